"""Vulkan, which SAPIEN draws with: whether a driver is here that it accepts."""

from __future__ import annotations

from envservers.graphics_probe import Graphics, probe
from vlarl.errors import UserError

OLDEST_MESA = 25
"""Major version of Mesa whose software driver SAPIEN 3.0.3 accepts; Debian 12's 22 it does not."""
PACKAGES = "apt install libvulkan1 mesa-vulkan-drivers"
BACKPORTS = (
    "apt install -t bookworm-backports mesa-vulkan-drivers, after adding `deb "
    "http://deb.debian.org/debian bookworm-backports main` to /etc/apt/sources.list"
)
"""How a new enough Mesa gets onto Debian 12."""


def remedy(graphics: Graphics) -> str:
    """What to install, given what trying came to; empty if SAPIEN will do with what is here."""
    if not graphics.ok:
        return PACKAGES
    return BACKPORTS if not graphics.hardware and graphics.mesa < OLDEST_MESA else ""


def usable() -> Graphics:
    """What there is.

    Raises:
        UserError: if nothing is here that SAPIEN accepts.
    """
    graphics = probe("vulkan")
    needed = remedy(graphics)
    if needed:
        raise UserError(
            f"no Vulkan that SAPIEN accepts: {graphics.text}. Without a GPU it takes Mesa "
            f"{OLDEST_MESA} or newer: {needed}"
        )
    return graphics
