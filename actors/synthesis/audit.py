"""The audit of a dataset: a sample, checked by other means than those that made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from actors.synthesis.checks import (
    collision_defects,
    goal_defects,
    instruction_defects,
    motion_defects,
    pose_defects,
)
from actors.synthesis.mujoco_arm import MujocoArm
from vlarl.synthesis.arm import Arm, Floats, load_arm
from vlarl.synthesis.dataset import SynthesisDataset
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.observation import observe
from vlarl.synthesis.shard import Trajectory

VOXEL = 0.1
"""Edge of the cubes of which the workspace is made (m)."""
MOST_READ = 200_000
"""Instructions that are compared with one another, at most."""


@dataclass
class Report:
    """What an audit found."""

    samples: int = 0
    defects: dict[str, list[str]] = field(default_factory=dict)
    """Kind -> the trajectories that have it, as `SynthesisDataset.name` gives them."""
    coverage: dict[str, float] = field(default_factory=dict)
    """Robot -> share of the reachable volume above the table that the sample's tools visit."""
    different: int = 0
    """Different instructions among `read`."""
    read: int = 0
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Shortest, mean and longest trajectory of the sample."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "samples": self.samples,
            "defects": sum(map(len, self.defects.values())),
            "kinds": self.defects,
            "coverage": self.coverage,
            "instructions": {"different": self.different, "of": self.read},
            "seconds": dict(zip(("shortest", "mean", "longest"), self.seconds, strict=True)),
        }

    def text(self) -> str:
        """For people."""
        lines = [f"{self.samples} trajectories, {self.to_dict()['defects']} defects"]
        for kind, names in sorted(self.defects.items()):
            lines.append(f"  {kind}: {len(names)}, such as {', '.join(names[:3])}")
        lines.append("visited cubes of 10 cm of the reachable volume, by the sample:")
        lines += [f"  {robot:<14}{share:7.1%}" for robot, share in self.coverage.items()]
        lines.append(f"{self.different} different instructions among {self.read} trajectories")
        shortest, mean, longest = self.seconds
        lines.append(f"lengths {shortest:.1f} to {longest:.1f} s, mean {mean:.1f} s")
        return "\n".join(lines)


def audit(
    dataset: SynthesisDataset,
    samples: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Check `samples` trajectories drawn without repetition, or all if there are fewer.

    Args:
        dataset: to check.
        samples: how many.
        seed: of the draw.
        progress: called with the number of those done.
    """
    count = min(samples, len(dataset))
    chosen = np.sort(np.random.default_rng(seed).choice(len(dataset), count, replace=False))
    report = Report(samples=count)
    arms: dict[str, MujocoArm] = {}
    tips: dict[str, list[Floats]] = {}
    lengths = []
    for done, index in enumerate(chosen.tolist(), start=1):
        trajectory = dataset[index]
        if trajectory.robot not in arms:
            arms[trajectory.robot] = MujocoArm(load_arm(trajectory.robot))
        for kind in defects(arms[trajectory.robot], trajectory):
            report.defects.setdefault(kind, []).append(dataset.name(index))
        tips.setdefault(trajectory.robot, []).append(trajectory.tool_pose[:, :3])
        lengths.append(len(trajectory) / RATE)
        if progress is not None:
            progress(done)
    report.coverage = {
        robot: coverage(arms[robot].arm, np.concatenate(paths)) for robot, paths in tips.items()
    }
    report.seconds = (min(lengths), float(np.mean(lengths)), max(lengths))
    report.read = min(len(dataset), MOST_READ)
    report.different = len({dataset[index].instruction for index in range(report.read)})
    return report


def defects(mujoco_arm: MujocoArm, trajectory: Trajectory) -> list[str]:
    """Kinds of defects that one trajectory has, each once."""
    arm = mujoco_arm.arm
    found = list(motion_defects(arm, trajectory))
    if {"length", "not finite"} & set(found):
        return found
    seen = observe(
        trajectory.template, trajectory.tool_pose, trajectory.gripper, trajectory.segment_ends
    )
    found += pose_defects(mujoco_arm, trajectory)
    found += goal_defects(trajectory, seen)
    if "nothing is taken" not in found:
        found += collision_defects(mujoco_arm, trajectory, seen)
        found += instruction_defects(arm, trajectory, seen)
    return list(dict.fromkeys(found))


def coverage(arm: Arm, tips: Floats) -> float:
    """Share of the cubes of the reachable volume that tool positions [T, 3] visit.

    The volume is the ring on which things stand, up to the height at which trajectories begin.
    """
    reach = arm.reach_radius[1]
    edges = np.arange(-reach, reach, VOXEL) + VOXEL / 2
    heights = np.arange(0, arm.reach_height[1], VOXEL) + VOXEL / 2
    x, y, _ = np.meshgrid(edges, edges, heights, indexing="ij")
    radius, angle = np.hypot(x, y), np.abs(np.arctan2(y, x))
    inside = (radius >= arm.reach_radius[0]) & (radius <= reach) & (angle <= arm.reach_angle)
    cells = np.floor((tips - [-reach, -reach, 0]) / VOXEL).astype(int)
    valid = ((cells >= 0) & (cells < inside.shape)).all(axis=1)
    visited = np.zeros_like(inside)
    visited[tuple(cells[valid].T)] = True
    return float((visited & inside).sum() / inside.sum())
