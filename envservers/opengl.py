"""Which OpenGL MuJoCo draws with in this process: EGL where it works, else OSMesa.

Call `choose` before `mujoco` is imported for the first time: it reads `MUJOCO_GL` then.
"""

from __future__ import annotations

import os

from envservers.graphics_probe import Graphics, probe
from vlarl.errors import UserError

PACKAGES = {
    "egl": "apt install libegl1 libopengl0 libgl1-mesa-dri",
    "osmesa": "apt install libosmesa6",
}
"""Backend of MuJoCo's that needs no display -> how it gets here (Debian 12)."""


_WITH_DISPLAY = ("glfw", "glx")
"""Backends that are taken at their word: they need a display, which somebody has to see to."""


def choose() -> str:
    """Set `MUJOCO_GL` for this process, unless it is set to one that needs a display.

    Of several EGL devices, a GPU draws, if there is one.

    Returns:
        The backend.

    Raises:
        UserError: if none works, or not the one that `MUJOCO_GL` names.
    """
    named = os.environ.get("MUJOCO_GL", "").lower()
    if named in _WITH_DISPLAY:
        return named
    backend, graphics = usable()
    os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend
    if graphics.device:
        os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", str(graphics.device))
    return backend


def usable() -> tuple[str, Graphics]:
    """The first backend that works here, really tried, and what it came to.

    Raises:
        UserError: if none does, with the packages to install.
    """
    named = os.environ.get("MUJOCO_GL", "").lower()
    if named in _WITH_DISPLAY:
        return named, Graphics(True, "as MUJOCO_GL asks, with a display")
    if named and named not in PACKAGES:
        allowed = ", ".join((*PACKAGES, *_WITH_DISPLAY))
        raise UserError(
            f"MUJOCO_GL={named} draws no images here: use one of {allowed}, or unset it"
        )
    backends = (named,) if named else tuple(PACKAGES)
    failed = []
    for backend in backends:
        graphics = probe(backend)
        if graphics.ok:
            return backend, graphics
        failed.append(f"{backend}: {graphics.text} ({PACKAGES[backend]})")
    asked = f"as MUJOCO_GL={named} asks" if len(backends) == 1 else "needed to draw images"
    raise UserError(
        f"no OpenGL, {asked}. {'; '.join(failed)}. One of them is enough; "
        "`vlarl doctor` tries them again"
    )
