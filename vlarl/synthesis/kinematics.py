"""Forward kinematics and Jacobians of many configurations at once.

Arrays are laid out joint by joint, [n, N] for `N` configurations, so that every operation runs over
long contiguous rows: this is what makes synthesis fast without a compiled planner. The constant
rotations between joints are mostly quarter turns, whose zeros and ones are not multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlarl.synthesis.arm import Arm, Floats


@dataclass(frozen=True)
class Frame:
    """A frame of `N` configurations: the axes and the origin, each [3, N], in the world."""

    x: Floats
    y: Floats
    z: Floats
    origin: Floats

    def point(self, local: tuple[float, ...] | Floats) -> Floats:
        """[3, N] world position of a point given in this frame."""
        found = self.origin
        for axis, amount in zip((self.x, self.y, self.z), local, strict=True):
            if amount:
                found = found + axis * axis.dtype.type(amount)
        return found


def link_frames(arm: Arm, q: Floats) -> list[Frame]:
    """Frames of links 0 to n and of the tool (index n + 1), in the precision of `q` [n, N]."""
    count = q.shape[1]
    one, zero = np.ones(count, q.dtype), np.zeros(count, q.dtype)
    frame = Frame(
        np.stack([one, zero, zero]),
        np.stack([zero, one, zero]),
        np.stack([zero, zero, one]),
        np.zeros((3, count), q.dtype),
    )
    frames = [frame]
    cosines, sines = np.cos(q), np.sin(q)
    for joint in range(arm.joints):
        fixed = _moved(frame, arm.origins[joint], arm.rotations[joint])
        c, s = cosines[joint], sines[joint]
        frame = Frame(c * fixed.x + s * fixed.y, c * fixed.y - s * fixed.x, fixed.z, fixed.origin)
        frames.append(frame)
    frames.append(_moved(frame, arm.tool_origin, arm.tool_rotation))
    return frames


def tool_point(arm: Arm, frames: list[Frame]) -> Floats:
    """[3, N] the point between the fingertips."""
    return frames[-1].point((0.0, 0.0, arm.tcp))


def jacobian(arm: Arm, frames: list[Frame]) -> Floats:
    """[N, 6, n]: velocity of the tool's point over its angular velocity, per joint velocity."""
    tip = tool_point(arm, frames)
    found = np.empty((6, arm.joints, tip.shape[1]), tip.dtype)
    for joint in range(arm.joints):
        frame = frames[joint + 1]
        found[:3, joint] = cross(frame.z, tip - frame.origin)
        found[3:, joint] = frame.z
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def cross(a: Floats, b: Floats) -> Floats:
    """[3, ...] cross product of two [3, ...]."""
    found = np.empty(b.shape, b.dtype)
    np.subtract(a[1] * b[2], a[2] * b[1], out=found[0])
    np.subtract(a[2] * b[0], a[0] * b[2], out=found[1])
    np.subtract(a[0] * b[1], a[1] * b[0], out=found[2])
    return found


def quaternion_of(x: Floats, y: Floats, z: Floats) -> Floats:
    """[N, 4] unit quaternions (w, x, y, z) of frames with these axes [3, N].

    The largest of the four components is found first; the sign makes `w` not negative.
    """
    trace = x[0] + y[1] + z[2]
    squares = np.stack([trace, x[0], y[1], z[2]])
    largest = squares.argmax(axis=0)
    # Row k is the quaternion times 4 q_k.
    rows = np.stack(
        [
            np.stack([1 + trace, y[2] - z[1], z[0] - x[2], x[1] - y[0]]),
            np.stack([y[2] - z[1], 1 + x[0] - y[1] - z[2], y[0] + x[1], z[0] + x[2]]),
            np.stack([z[0] - x[2], y[0] + x[1], 1 + y[1] - x[0] - z[2], z[1] + y[2]]),
            np.stack([x[1] - y[0], z[0] + x[2], z[1] + y[2], 1 + z[2] - x[0] - y[1]]),
        ]
    )
    found = rows[largest, :, np.arange(len(largest))]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[found[:, 0] < 0] *= -1
    return found


def _moved(frame: Frame, origin: Floats, rotation: Floats) -> Frame:
    """The frame at `origin` and `rotation`, both given in `frame`."""
    axes = [_combination(frame, rotation[:, column]) for column in range(3)]
    return Frame(axes[0], axes[1], axes[2], frame.point(origin))


def _combination(frame: Frame, weights: Floats) -> Floats:
    """The sum of weighted axes; zeros, ones and minus ones cost nothing or a sign."""
    found = None
    for axis, weight in zip((frame.x, frame.y, frame.z), weights, strict=True):
        if not weight:
            continue
        term = axis if weight == 1 else -axis if weight == -1 else axis * axis.dtype.type(weight)
        found = term if found is None else found + term
    assert found is not None
    return found
