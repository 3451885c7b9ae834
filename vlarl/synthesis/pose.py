"""Where the tool is and how it is turned: numbers that can be interpolated, and their frames.

A tool that points down has a `yaw` (turn about the vertical, counterclockwise from above) and a
`lean` (two small angles by which it leans away from the vertical). Interpolating these three keeps
the sense of a turn, which an instruction such as "clockwise" speaks of, and allows more than half a
turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlarl.synthesis.arm import Floats
from vlarl.synthesis.kinematics import cross


@dataclass(frozen=True)
class Poses:
    """Tool poses; the leading axes of the three arrays agree."""

    position: Floats
    """[..., 3] of the point between the fingertips."""
    yaw: Floats
    """[...] from the world's x axis to the tool's, counterclockwise from above."""
    lean: Floats
    """[..., 2] turn about the axes of the frame that `yaw` makes."""

    def axes(self) -> tuple[Floats, Floats, Floats]:
        """The tool's x, y and z axes, each [3, ...]; with no lean, z points down."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        zero, one = np.zeros_like(c), np.ones_like(c)
        ahead, aside, up = (
            np.stack([c, s, zero]),
            np.stack([-s, c, zero]),
            np.stack([zero, zero, one]),
        )
        axis = ahead * self.lean[..., 0] + aside * self.lean[..., 1]
        angle = np.sqrt((self.lean**2).sum(-1))
        first = np.sinc(angle / np.pi)
        second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2

        def leaned(vector: Floats) -> Floats:
            turned = cross(axis, vector)
            return np.asarray(vector + first * turned + second * cross(axis, turned))

        return leaned(ahead), -leaned(aside), -leaned(up)
