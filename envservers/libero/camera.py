"""Draws a scene's cameras: all scenes of a process share one OpenGL context.

MuJoCo's default settings cost most of a step: a shadow map of 4096 pixels, multisampling, mirrors,
a buffer of 640 x 480; and meshes of tens of thousands of triangles. `tuned` leaves them out, and
draws coarser meshes (`mesh_detail.py`), those in view alone (`frustum.py`); `default` is what the
benchmark itself draws.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.frustum import culled
from envservers.mesh_detail import cells_for, coarser

CAMERAS = {"ego": "agentview", "cam_right_wrist": "robot0_eye_in_hand"}
"""View -> LIBERO's camera."""
_COLLISION_GROUP, _VISUAL_GROUP = 0, 1
_MOST_GEOMS = 1000
_contexts: list[Any] = []


def _context() -> Any:
    import mujoco

    if not _contexts:
        _contexts.append(mujoco.GLContext(64, 64))
    return _contexts[0]


class Drawing:
    """Of one model.

    Args:
        model: the compiled model; its rendering settings are changed.
        size: of the images, both sides.
        tuned: whether to leave out what the pictures do not need.
    """

    def __init__(self, model: Any, size: int, tuned: bool) -> None:
        import mujoco

        self._mujoco, self._model, self._size, self._tuned = mujoco, model, size, tuned
        whole = model.vis.global_
        if tuned:
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
            whole.offwidth = whole.offheight = size
        else:
            whole.offwidth, whole.offheight = max(whole.offwidth, size), max(whole.offheight, size)
        _context().make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=_MOST_GEOMS)
        if tuned:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[_COLLISION_GROUP] = 0
        self._options.geomgroup[_VISUAL_GROUP] = 1
        self._still = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        with coarser(model, cells_for(size)) if tuned else nullcontext():
            self._canvas = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)

    def draw(self, data: Any, view: str) -> NDArray[np.uint8]:
        """[size, size, 3], flipped on both axes, as published policies see it."""
        gl = self._mujoco
        _context().make_current()
        # The buffer that is drawn into is the shared context's, whoever drew last.
        gl.mjr_setBuffer(gl.mjtFramebuffer.mjFB_OFFSCREEN, self._canvas)
        self._camera.fixedcamid = camera = self._model.camera(CAMERAS[view]).id
        everything = gl.mjtCatBit.mjCAT_ALL
        with culled(self._model, data, camera) if self._tuned else nullcontext():
            gl.mjv_updateScene(
                self._model, data, self._options, self._still, self._camera, everything, self._scene
            )
        viewport = gl.MjrRect(0, 0, self._size, self._size)
        gl.mjr_render(viewport, self._scene, self._canvas)
        image = np.empty((self._size, self._size, 3), np.uint8)
        gl.mjr_readPixels(image, None, viewport, self._canvas)
        # OpenGL's rows begin at the bottom, so that flipping both axes mirrors the picture: so are
        # the recorded demonstrations shown to every published policy.
        return np.ascontiguousarray(image[::-1, ::-1])

    def close(self) -> None:
        """Free the textures and buffers."""
        _context().make_current()
        self._canvas.free()
