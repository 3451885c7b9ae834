"""The two arms that RoboTwin and DOMINO evaluate with: ALOHA-AgileX, absolute joint positions."""

from __future__ import annotations

from vlarl.types import CameraSpec, Channel

EMBODIMENT = "aloha_agilex_joint"
CONTROL_HZ = 16.7
"""The rate of its datasets: every 15th of 250 physics steps a second. In simulation a control step
lasts as long as the arms need to get there."""
CAMERAS = {
    "ego": "head_camera",
    "cam_left_wrist": "left_camera",
    "cam_right_wrist": "right_camera",
}
"""View -> RoboTwin's camera."""
_JOINTS, _REACH = 6, 3.14159
_SIDES = ("left", "right")


def channels() -> tuple[Channel, ...]:
    """The 14 of an action: six joints and a gripper (0 closed, 1 open), left and right."""
    return tuple(channel for side in _SIDES for channel in _arm(side))


def cameras(image_size: int) -> tuple[CameraSpec, ...]:
    """Pictures `image_size` pixels high, as wide as the cameras' 4:3 makes them."""
    return tuple(CameraSpec(view, image_size, image_size * 4 // 3) for view in CAMERAS)


def _arm(side: str) -> tuple[Channel, ...]:
    joints = (
        Channel(f"{side}_joint_{joint + 1}", "rad", "absolute_joint", -_REACH, _REACH)
        for joint in range(_JOINTS)
    )
    return (*joints, Channel(f"{side}_gripper", "1", "gripper", 0.0, 1.0))
