"""Human hands as actions: relative wrist motion and eigengrasps (paper section 3.2.2).

    action [H, 32]  =  left: translation 3, rotation 3, eigengrasp weights 10; right: the same

A wrist's motion is where it will be, seen from where it is when the chunk begins. The 45 numbers of
a hand's 15 joints hardly vary independently: the first 10 principal components say most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.rotations import Floats, angle_between, axis_angle_of, matrix_of

JOINTS = 15
POSE = 3 * JOINTS
"""Numbers of a hand pose: an axis-angle rotation for each joint, as MANO has them."""
COMPONENTS = 10
HAND_CHANNELS = 6 + COMPONENTS
SIDES = ("left", "right")
_MIRROR = np.tile([1.0, -1.0, -1.0], JOINTS)
"""What a reflection in x does to an axis-angle rotation: MANO's hands are mirror images so."""


@dataclass(frozen=True)
class Wrist:
    """Poses of one wrist in a frame that stands still during the chunk (camera motion removed)."""

    position: Floats
    """[..., 3] meters"""
    rotation: Floats
    """[..., 3, 3]"""


@dataclass(frozen=True)
class Eigengrasps:
    """Principal components of hand poses; one basis serves both hands, the left one mirrored."""

    mean: NDArray[np.float64]
    """[45]"""
    basis: NDArray[np.float64]
    """[n, 45] orthonormal, most variance first"""
    variance: NDArray[np.float64]
    """[45] of every component of the fit, largest first"""

    @property
    def explained(self) -> float:
        """Share of the variance that the kept components hold."""
        total = float(self.variance.sum())
        return float(self.variance[: len(self.basis)].sum()) / total if total else 1.0

    def weights(self, pose: Floats, side: str) -> NDArray[np.float64]:
        """[..., 45] -> [..., n]."""
        return (_as_right(pose, side) - self.mean) @ self.basis.T

    def pose(self, weights: Floats, side: str) -> NDArray[np.float64]:
        """[..., n] -> [..., 45], the nearest pose that the kept components can form."""
        return _as_right(self.mean + np.asarray(weights) @ self.basis, side)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as JSON holds them."""
        return {
            "mean": self.mean.tolist(),
            "basis": self.basis.tolist(),
            "variance": self.variance.tolist(),
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Eigengrasps:
        """Inverse of `to_dict`.

        Raises:
            ValueError: for a missing or an unknown key, or another shape.
        """
        if values.keys() != {"mean", "basis", "variance"}:
            raise ValueError(f"eigengrasps hold mean, basis, variance, not {sorted(values)}")
        found = Eigengrasps(**{key: np.asarray(value, float) for key, value in values.items()})
        if found.mean.shape != (POSE,) or found.basis.shape[1:] != (POSE,):
            raise ValueError(f"eigengrasps of shape {found.mean.shape}, {found.basis.shape}")
        return found


def fit_eigengrasps(left: Floats, right: Floats, components: int = COMPONENTS) -> Eigengrasps:
    """Principal components of all poses of both hands, [N, 45] each (one may be empty).

    Raises:
        ValueError: for another shape, a value that is not finite, or no more poses than components.
    """
    for side, poses in zip(SIDES, (left, right), strict=True):
        if poses.ndim != 2 or poses.shape[1] != POSE:
            raise ValueError(f"{side} hand poses must be [N, {POSE}], not {poses.shape}")
        if not np.isfinite(poses).all():
            raise ValueError(f"{side} hand poses contain NaN or infinity")
    poses = np.concatenate([_as_right(left, "left"), _as_right(right, "right")])
    if not 1 <= components <= POSE or len(poses) <= components:
        raise ValueError(f"{len(poses)} hand poses do not determine {components} components")
    mean = poses.mean(axis=0)
    variance, vectors = np.linalg.eigh(np.cov(poses - mean, rowvar=False, bias=True))
    order = np.argsort(variance)[::-1]
    basis = vectors.T[order[:components]]
    # An eigenvector's sign is arbitrary: its largest entry is made positive.
    largest = np.abs(basis).argmax(axis=1)[:, None]
    basis = basis * np.sign(np.take_along_axis(basis, largest, axis=1))
    return Eigengrasps(mean, basis, np.maximum(variance[order], 0.0))


def encode_hands(
    start: Mapping[str, Wrist],
    wrists: Mapping[str, Wrist],
    poses: Mapping[str, Floats],
    grasps: Eigengrasps,
) -> NDArray[np.float32]:
    """[..., H, 32] actions of a chunk, or of several.

    Args:
        start: `left` and `right` wrist when the chunk begins, [..., 3] and [..., 3, 3].
        wrists: the same at each of its `H` steps, [..., H, 3] and [..., H, 3, 3].
        poses: side -> [..., H, 45] joint rotations.
        grasps: fitted on the data.

    Raises:
        ValueError: for a missing side or a value that is not finite.
    """
    parts = []
    for side in SIDES:
        if not (side in start and side in wrists and side in poses):
            raise ValueError(f"the {side} hand is missing")
        frame = np.asarray(start[side].rotation)
        moved = wrists[side].position - np.asarray(start[side].position)[..., None, :]
        back = np.swapaxes(frame, -1, -2)[..., None, :, :]
        parts.append(moved @ frame)
        parts.append(axis_angle_of(back @ wrists[side].rotation))
        parts.append(grasps.weights(poses[side], side))
    actions = np.concatenate(parts, axis=-1)
    if not np.isfinite(actions).all():
        raise ValueError("hand motion contains NaN or infinity")
    return actions.astype(np.float32)


def decode_hands(
    actions: Floats, start: Mapping[str, Wrist], grasps: Eigengrasps
) -> tuple[dict[str, Wrist], dict[str, NDArray[np.float64]]]:
    """Inverse of `encode_hands`, up to what the eigengrasps leave out: wrists and poses by side.

    Raises:
        ValueError: for another number of channels.
    """
    channels = 2 * (6 + len(grasps.basis))
    if actions.ndim < 2 or actions.shape[-1] != channels:
        raise ValueError(f"hand actions must be [..., H, {channels}], not {actions.shape}")
    wrists, poses = {}, {}
    halves = np.split(np.asarray(actions, np.float64), 2, axis=-1)
    for side, part in zip(SIDES, halves, strict=True):
        frame = np.asarray(start[side].rotation)
        moved = part[..., :3] @ np.swapaxes(frame, -1, -2)
        position = np.asarray(start[side].position)[..., None, :] + moved
        wrists[side] = Wrist(position, frame[..., None, :, :] @ matrix_of(part[..., 3:6]))
        poses[side] = grasps.pose(part[..., 6:], side)
    return wrists, poses


def joint_errors(pose: Floats, grasps: Eigengrasps, side: str) -> NDArray[np.float64]:
    """[N, 15] by what angle, in radians, the kept components miss each joint of poses [N, 45]."""
    return angle_between(_joints(pose), _joints(grasps.pose(grasps.weights(pose, side), side)))


def reconstruction_error(poses: Mapping[str, Floats], grasps: Eigengrasps) -> dict[str, float]:
    """What the kept components lose: mean and 95th percentile angle of the joints, in radians.

    Args:
        poses: side -> [N, 45], N > 0
        grasps: of the same data, or other.

    Returns:
        `<side>/mean_angle`, `<side>/p95_angle` and `<side>/explained_variance` (share of the
        variance of these poses that comes back) of each side given, and `explained_variance` of the
        fit.
    """
    found = {"explained_variance": grasps.explained}
    for side, pose in poses.items():
        angles = joint_errors(pose, grasps, side)
        lost = np.var(pose - grasps.pose(grasps.weights(pose, side), side), axis=0).sum()
        total = np.var(pose, axis=0).sum()
        found[f"{side}/mean_angle"] = float(angles.mean())
        found[f"{side}/p95_angle"] = float(np.quantile(angles, 0.95))
        found[f"{side}/explained_variance"] = float(1 - lost / total) if total else 1.0
    return found


def _joints(pose: Floats) -> NDArray[np.float64]:
    """[..., 45] -> [..., 15, 3, 3]."""
    return matrix_of(np.asarray(pose).reshape(*pose.shape[:-1], JOINTS, 3))


def _as_right(pose: Floats, side: str) -> NDArray[np.float64]:
    """[..., 45] a left hand's pose as its mirror image's; its own inverse."""
    if side not in SIDES:
        raise ValueError(f"side {side!r}; allowed: {', '.join(SIDES)}")
    return np.asarray(pose, np.float64) * (_MIRROR if side == "left" else 1.0)
