"""Meshes with less detail: what stays, what must not vanish, what physics never sees."""

import mujoco
import numpy as np
import pytest

from envservers.mesh_detail import coarser, merge


def sphere(rings=60, sectors=120):
    """Points and triangles of a unit sphere, the poles left open."""
    heights = np.linspace(0.05, np.pi - 0.05, rings)
    turns = np.arange(sectors) * 2 * np.pi / sectors
    points = np.array(
        [(np.sin(h) * np.cos(t), np.sin(h) * np.sin(t), np.cos(h)) for h in heights for t in turns]
    )
    return points, grid(rings, sectors)


def grid(rows, columns):
    """Triangles between rows of points, each row a ring."""
    faces = []
    for row in range(rows - 1):
        for column in range(columns):
            a, b = row * columns + column, row * columns + (column + 1) % columns
            faces += [(a, b, a + columns), (b, b + columns, a + columns)]
    return np.array(faces)


def area(points, faces):
    one, two, three = (points[faces[:, corner]] for corner in range(3))
    return np.linalg.norm(np.cross(two - one, three - one), axis=1).sum() / 2


def test_fewer_triangles_cover_the_same_surface():
    points, faces = sphere()
    merged, kept = merge(points, faces, 16)
    assert len(merged) < len(faces) / 3
    assert area(points, merged) == pytest.approx(area(points, faces), rel=0.06)
    cell = 2 / 16
    away = np.linalg.norm(points[merged] - points[faces[kept]], axis=-1)
    assert away.max() <= cell * np.sqrt(3)


def test_where_every_point_has_a_cell_of_its_own_nothing_changes():
    points, faces = sphere(8, 10)
    merged, kept = merge(points, faces, 500)
    np.testing.assert_array_equal(merged, faces)
    np.testing.assert_array_equal(kept, np.arange(len(faces)))


def test_no_triangle_twice_and_none_without_area():
    merged, _ = merge(*sphere(), 12)
    corners = np.sort(merged, axis=1)
    assert len(np.unique(corners, axis=0)) == len(corners)
    assert (np.diff(corners, axis=1) > 0).all()


def test_a_bar_thinner_than_a_cell_does_not_vanish():
    ball, faces = sphere()
    ring = np.array([[0.002 * np.cos(t), 0.002 * np.sin(t)] for t in np.arange(8) * np.pi / 4])
    bar = np.array([[1.0 + x, *yz] for x in np.linspace(0, 1, 50) for yz in ring])
    points = np.concatenate([ball, bar])
    every = np.concatenate([faces, grid(50, 8) + len(ball)])
    merged, _ = merge(points, every, 16)
    of_bar = merged[(merged >= len(ball)).all(axis=1)]
    assert area(points, of_bar) > 0.8 * area(points, grid(50, 8) + len(ball))


@pytest.fixture
def model():
    points, faces = sphere(30, 40)
    numbers = (" ".join(map(str, values.reshape(-1))) for values in (points, faces))
    return mujoco.MjModel.from_xml_string(
        '<mujoco><asset><mesh name="ball" vertex="{}" face="{}"/></asset><worldbody>'
        '<geom type="plane" size="5 5 .1"/><body pos="0 0 2"><freejoint/>'
        '<geom type="mesh" mesh="ball"/></body></worldbody></mujoco>'.format(*numbers)
    )


def test_a_models_meshes_are_whole_again_afterwards_even_after_an_error(model):
    names = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum", "mesh_vert")
    before = {name: getattr(model, name).copy() for name in names}
    mass = model.body_mass.copy()
    with coarser(model, 8):
        assert model.mesh_facenum[0] < before["mesh_facenum"][0] / 2
        used = model.mesh_face[: model.mesh_facenum[0]]
        assert (used < model.mesh_vertnum[0]).all()
        np.testing.assert_array_equal(model.mesh_vert, before["mesh_vert"])
        np.testing.assert_array_equal(model.body_mass, mass)
    with pytest.raises(RuntimeError), coarser(model, 8):
        raise RuntimeError
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(model, name), values)


def test_physics_are_the_same_under_less_detail(model):
    def fall():
        data = mujoco.MjData(model)
        for _ in range(400):
            mujoco.mj_step(model, data)
        return data.qpos.copy()

    whole = fall()
    assert whole[2] < 1.5, "it has fallen onto the plane"
    with coarser(model, 8):
        np.testing.assert_array_equal(fall(), whole)
