"""Actions for recordings that have none, from what the robot did (paper section 3.2.1).

The action of a frame is what the state became by the next one: a difference, but for grippers,
whose action is where they went.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ANGLE_WORDS = ("roll", "pitch", "yaw", "theta", "heading", "euler", "angle")
_GRIPPER_WORDS = ("grip",)


def is_angle(name: str) -> bool:
    """Whether a state channel of this name is a rotation that jumps between -pi and pi.

    Joints are none: their range ends before it comes round, and may be in degrees.
    """
    return _named(name, _ANGLE_WORDS) and "joint" not in name.lower()


def is_gripper(name: str) -> bool:
    """Whether a channel of this name is the opening of a gripper."""
    return _named(name, _GRIPPER_WORDS)


def pseudo_actions(state: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float32]:
    """Finite differences of the state, one for each frame.

    Args:
        state: [T, d] proprioception; angles in radians.
        names: of the `d` channels; empty if unknown, and then no channel is an angle or a gripper.

    Returns:
        [T, d]: at `t`, `state[t + 1] - state[t]`, taken to (-pi, pi] for angles; for grippers
        `state[t + 1]`. The last frame, after which nothing is known, stands still.

    Raises:
        ValueError: if there are names, but not `d` of them.
    """
    if names and len(names) != state.shape[1]:
        raise ValueError(f"{len(names)} names for {state.shape[1]} channels: {', '.join(names)}")
    values = state.astype(np.float64)
    after = np.concatenate([values[1:], values[-1:]])
    actions = after - values
    for channel, name in enumerate(names):
        if is_gripper(name):
            actions[:, channel] = after[:, channel]
        elif is_angle(name):
            turn = actions[:, channel]
            actions[:, channel] = np.pi - np.mod(np.pi - turn, 2 * np.pi)
    return actions.astype(np.float32)


def _named(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)
