"""Writes a synthesized dataset as LeRobot v3.0 datasets, one for each robot.

A robot's states and actions have their own width, so each robot gets a folder of its own. State:
joint positions and the gripper; action: the same numbers one record later, which is what a position
controller is told. There are no images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlarl.data.episode import Episode
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.errors import UserError
from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.dataset import SynthesisDataset
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.shard import Trajectory


def export(dataset: SynthesisDataset, out: Path, progress: Callable[[int], None]) -> dict[str, int]:
    """Write `out/ROBOT` for each robot; robot -> episodes.

    Args:
        dataset: to export.
        out: folder that does not exist yet.
        progress: called with 1 after each episode.

    Raises:
        UserError: if `out` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists already: choose another folder or remove it")
    written = {}
    for robot in dataset.robots:
        joints = load_arm(robot).joints
        names = [*(f"joint_{index + 1}" for index in range(joints)), "gripper"]
        indices = dataset.indices(robot)
        with LeRobotWriter(
            out / robot,
            fps=RATE,
            cameras=(),
            action_names=names,
            state_dim=len(names),
            robot_type=robot,
        ) as writer:
            for index in indices:
                writer.add(_episode(dataset[index], dataset.name(index)))
                progress(1)
        written[robot] = len(indices)
    return written


def _episode(trajectory: Trajectory, name: str) -> Episode:
    state = np.concatenate([trajectory.joint_position, trajectory.gripper[:, None]], axis=1)
    return Episode(
        images={},
        state=state[:-1],
        action=state[1:],
        instruction=trajectory.instruction,
        extra={"template": trajectory.template, "source": name},
    )
