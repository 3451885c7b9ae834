"""MetaWorld's cameras, drawn as small as they are asked for.

MetaWorld's own settings draw shadows from a 4096-pixel map, reflections and four samples a pixel;
`tuned` draws none of them, and coarser meshes (`mesh_detail.py`), those in view alone
(`frustum.py`). One OpenGL context serves the process; each stage has a drawing context (its meshes
and textures) on it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import mujoco
import numpy as np
from mujoco.gl_context import GLContext
from numpy.typing import NDArray

from envservers.frustum import culled
from envservers.mesh_detail import cells_for, coarser

CAMERAS = {"ego": "corner2", "cam_right_wrist": "gripperPOV"}
"""Ours -> MetaWorld's."""
_UPSIDE_DOWN = ("corner2",)
_GEOMS = 1000


class Screen:
    """An OpenGL context that painters share, made when the first of them comes.

    Args:
        image_size: width and height of the pictures.
    """

    _current: Screen | None = None
    """Whose context the process's one thread draws on."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self._context: Any = None
        self._painters = 0

    def enter(self) -> None:
        """Count one more that draws here."""
        if self._context is None:
            self._context = GLContext(self.image_size, self.image_size)
        self._painters += 1

    def use(self) -> None:
        """Draw on this one from now on."""
        if Screen._current is not self:
            self._context.make_current()
            Screen._current = self

    def leave(self) -> None:
        """Count one less; the last frees the context."""
        self._painters -= 1
        if not self._painters:
            Screen._current = None
            self._context.free()
            self._context = None


class Painter:
    """Draws one stage.

    Args:
        screen: shared by all.
        model: of the stage; the size of its off-screen buffer and its samples are changed.
        cameras: names of ours, some of `ego`, `cam_right_wrist`.
        tuned: whether shadows, reflections, multisampling and detail of meshes are left out.
    """

    def __init__(self, screen: Screen, model: Any, cameras: tuple[str, ...], tuned: bool) -> None:
        size = screen.image_size
        self._model, self._tuned = model, tuned
        self._screen = screen
        self._cameras = {name: model.camera(CAMERAS[name]).id for name in cameras}
        self._flipped = tuple(name for name in cameras if CAMERAS[name] in _UPSIDE_DOWN)
        model.vis.global_.offwidth, model.vis.global_.offheight = size, size
        if tuned:
            model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        screen.enter()
        screen.use()
        with coarser(model, cells_for(size)) if tuned else nullcontext():
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        self._scene = mujoco.MjvScene(model, _GEOMS)
        self._option, self._view = mujoco.MjvOption(), mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rectangle = mujoco.MjrRect(0, 0, size, size)
        if tuned:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def draw(self, data: Any) -> dict[str, NDArray[np.uint8]]:
        """Camera -> `[size, size, 3]` of the scene as it is now."""
        self._screen.use()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        return {name: self._picture(data, name) for name in self._cameras}

    def _picture(self, data: Any, name: str) -> NDArray[np.uint8]:
        self._view.fixedcamid = self._cameras[name]
        everything = mujoco.mjtCatBit.mjCAT_ALL
        with culled(self._model, data, self._cameras[name]) if self._tuned else nullcontext():
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, self._view, everything, self._scene
            )
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        pixels = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._context)
        # OpenGL's first row is the lowest; corner2 hangs with its head down, which is as good.
        return pixels[:, ::-1].copy() if name in self._flipped else pixels[::-1].copy()

    def close(self) -> None:
        """Free the drawing context."""
        self._screen.use()
        self._context.free()
        self._screen.leave()
