"""What an action of RoboCasa-GR1 is made of: absolute joint positions, part by part.

Ranges of arms and waist are those of robosuite's model of the robot (`robots/gr1/robot.xml`). Hands
are told one number for each finger, which drives all of its joints; their bounds are the model's
own open and closed poses (`grippers/fourier_hands.py`), beyond the joints' range on both sides.
"""

from __future__ import annotations

from vlarl.types import Channel

_SHOULDER_ROLL = {"left": (0.0, 3.0), "right": (-3.0, 0.0)}
_ARM = (
    ("shoulder_pitch", -3.0, 3.0),
    ("shoulder_roll", 0.0, 0.0),
    ("shoulder_yaw", -3.0, 3.0),
    ("elbow_pitch", -3.0, 0.0),
    ("wrist_yaw", -3.0, 3.0),
    ("wrist_roll", -1.5, 1.5),
    ("wrist_pitch", -1.5, 1.5),
)
_HAND = (
    ("pinky", 1.5),
    ("ring", 1.5),
    ("middle", 1.5),
    ("index", 1.5),
    ("thumb_pitch", 3.0),
    ("thumb_yaw", 3.0),
)
_WAIST = (("waist_yaw", -1.05, 1.05), ("waist_pitch", -0.52, 1.22), ("waist_roll", -0.7, 0.7))

PARTS = {
    "left_arm": slice(0, 7),
    "right_arm": slice(7, 14),
    "left_hand": slice(14, 20),
    "right_hand": slice(20, 26),
    "waist": slice(26, 29),
}
"""RoboCasa's name of a part -> its channels, in actions and in states alike."""


def channels() -> tuple[Channel, ...]:
    """The 29 of an action."""
    return (*_arm("left"), *_arm("right"), *_hand("left"), *_hand("right"), *_waist())


def _arm(side: str) -> tuple[Channel, ...]:
    ranges = [
        (joint, *(_SHOULDER_ROLL[side] if joint == "shoulder_roll" else (low, high)))
        for joint, low, high in _ARM
    ]
    return tuple(
        Channel(f"{side}_{joint}", "rad", "absolute_joint", low, high)
        for joint, low, high in ranges
    )


def _hand(side: str) -> tuple[Channel, ...]:
    return tuple(
        Channel(f"{side}_{finger}", "rad", "dexterous_hand", -far, far) for finger, far in _HAND
    )


def _waist() -> tuple[Channel, ...]:
    return tuple(Channel(joint, "rad", "absolute_joint", low, high) for joint, low, high in _WAIST)
