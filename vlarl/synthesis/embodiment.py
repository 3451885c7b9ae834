"""A synthesized arm as a robot that prompts name: absolute joints and the gripper."""

from __future__ import annotations

from vlarl.embodiment import Embodiment
from vlarl.synthesis.arm import Arm
from vlarl.synthesis.motion import RATE
from vlarl.types import Channel


def arm_embodiment(arm: Arm, horizon: int, control_hz: float = RATE) -> Embodiment:
    """The embodiment of `arm`, which predicts `horizon` control steps; channels as exported."""
    joints = [
        Channel(f"joint_{number}", "rad", "absolute_joint", float(low), float(high))
        for number, (low, high) in enumerate(zip(arm.low, arm.high, strict=True), start=1)
    ]
    return Embodiment(
        name=arm.name,
        robot_tag=f"{arm.robot_tag} (absolute joint)",
        dual_arm=False,
        waist=False,
        mobile_base=False,
        control_hz=control_hz,
        horizon=horizon,
        channels=(*joints, Channel("gripper", "1", "gripper", 0.0, 1.0)),
    )
