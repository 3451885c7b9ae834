"""Coarser meshes in SAPIEN's scenes: see `envservers.mesh_detail`.

The model of the camera at the Panda's wrist has most of all the triangles that software draws of a
scene.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.mesh_detail import merge

_MANY = 2000
"""Triangles of a mesh from a file; what has fewer stays: a table made anew shines no more."""
_COARSE = "coarse"
"""Name of what has been made coarse."""

_Corners = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
_known: dict[tuple[str, int, int], _Corners] = {}
"""File, number of the part, cells -> positions, normals and texture coordinates of the corners of
what is left. Some tasks make their scene anew in each episode."""


def coarsen(scene: Any, cells: int) -> None:
    """Draw a scene's meshes with less detail; what collides is not touched.

    Args:
        scene: ManiSkill's.
        cells: of a grid, along the longest side of each mesh.
    """
    import sapien

    for part in scene.sub_scenes:
        for entity in part.entities:
            body = entity.find_component_by_type(sapien.render.RenderBodyComponent)
            if (
                body is not None
                and body.name != _COARSE
                and any(map(_detailed, body.render_shapes))
            ):
                entity.remove_component(body)
                entity.add_component(_coarse(body, cells))


def _detailed(shape: Any) -> bool:
    import sapien

    if not isinstance(shape, sapien.render.RenderShapeTriangleMesh) or not shape.filename:
        return False
    return any(len(part.triangles) > _MANY for part in shape.parts)


def _coarse(body: Any, cells: int) -> Any:
    import sapien

    made = sapien.render.RenderBodyComponent()
    for shape in body.render_shapes:
        if not _detailed(shape):
            made.attach(shape.clone())
            continue
        for number, part in enumerate(shape.parts):
            key = shape.filename, number, cells
            if key not in _known:
                _known[key] = _corners(part, cells)
            positions, normals, uvs = _known[key]
            triangles = np.arange(len(positions), dtype=np.uint32).reshape(-1, 3)
            piece = sapien.render.RenderShapeTriangleMesh(
                positions, triangles, normals, uvs, material=part.material
            )
            piece.local_pose, piece.front_face = shape.local_pose, shape.front_face
            piece.set_scale(shape.scale)
            made.attach(piece)
    made.name, made.visibility, made.shading_mode = _COARSE, body.visibility, body.shading_mode
    return made


def _corners(part: Any, cells: int) -> _Corners:
    points, faces = np.asarray(part.vertices), np.asarray(part.triangles, np.int64)
    merged, kept = merge(points, faces, cells)
    # As they were in the triangle that is left: corners of one place differ in both.
    before = faces[kept].ravel()
    normals, uvs = np.asarray(part.get_vertex_normal()), np.asarray(part.get_vertex_uv())
    return (
        np.ascontiguousarray(points[merged.ravel()], np.float32),
        np.ascontiguousarray(normals[before] if len(normals) else normals, np.float32),
        np.ascontiguousarray(uvs[before] if len(uvs) else uvs, np.float32),
    )
