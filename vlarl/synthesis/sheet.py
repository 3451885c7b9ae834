"""A picture sheet of sampled trajectories: the arm at some moments, the tool's path, the things."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlarl.synthesis.arm import Arm, Floats, load_arm
from vlarl.synthesis.dataset import SynthesisDataset
from vlarl.synthesis.kinematics import link_frames, tool_point
from vlarl.synthesis.scene import TEMPLATES
from vlarl.synthesis.shard import Trajectory

_COLUMNS = 6
_MOMENTS = 5
_THING_COLORS = ("tab:red", "tab:blue", "0.4")


def write_sheet(
    dataset: SynthesisDataset, out: Path, count: int, seed: int, robots: Sequence[str]
) -> int:
    """Draw `count` trajectories, in turn of each template and robot, as one PNG file.

    Returns:
        How many there are on the sheet: fewer if the dataset holds fewer.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = _choose(dataset, count, seed, robots)
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, trajectory in enumerate(chosen, start=1):
        axes = figure.add_subplot(rows, columns, place, projection="3d")
        _draw(axes, load_arm(trajectory.robot), trajectory)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    return len(chosen)


def _choose(
    dataset: SynthesisDataset, count: int, seed: int, robots: Sequence[str]
) -> list[Trajectory]:
    """Robots change with every picture, templates with every robot's next."""
    random = np.random.default_rng(seed)
    pools: dict[tuple[str, str], list[int]] = {}
    first = 0
    for entry in dataset.entries:
        span = range(first, first + entry.trajectories)
        first += entry.trajectories
        if entry.robot in robots:
            pools.setdefault((entry.robot, entry.template), []).extend(span)
    order = [
        (robots[(row + column) % len(robots)], template)
        for row in range(len(robots))
        for column, template in enumerate(TEMPLATES)
    ]
    chosen: list[Trajectory] = []
    while len(chosen) < count and any(pools.values()):
        for key in order:
            if pools.get(key) and len(chosen) < count:
                pool = pools[key]
                chosen.append(dataset[pool.pop(int(random.integers(len(pool))))])
    return chosen


def _draw(axes: Any, arm: Arm, trajectory: Trajectory) -> None:
    steps = np.linspace(0, len(trajectory) - 1, _MOMENTS).astype(int)
    frames = link_frames(arm, trajectory.joint_position[steps].T.astype(np.float64))
    tip = tool_point(arm, frames)
    for moment in range(_MOMENTS):
        points = [frame.origin[:, moment] for frame in frames] + [tip[:, moment]]
        shade = 0.8 - 0.7 * moment / (_MOMENTS - 1)
        axes.plot(*np.stack(points).T, color=str(shade), linewidth=1.6, solid_capstyle="round")
    path = trajectory.tool_pose[:, :3]
    closed = trajectory.gripper > 0.05
    axes.plot(*path.T, color="tab:orange", linewidth=1)
    axes.plot(*np.where(closed[:, None], path, np.nan).T, color="tab:green", linewidth=1.5)
    scene = trajectory.scene
    for slot, color in enumerate(_THING_COLORS):
        radius, height = float(scene["radius"][slot]), float(scene["height"][slot])
        if radius > 0:
            _cylinder(axes, scene["position"][slot], radius, height, color, 0.25)
            _cylinder(axes, scene["final_position"][slot], radius, height, color, 0.7)
    for radius in arm.reach_radius:
        angle = np.linspace(-arm.reach_angle, arm.reach_angle, 33)
        ring = (radius * np.cos(angle), radius * np.sin(angle), 0 * angle)
        axes.plot(*ring, color="0.85", linewidth=0.7)
    reach = 0.75 * arm.reach_radius[1]
    axes.set(xlim=(-0.3 * reach, 1.3 * reach), ylim=(-reach, reach), zlim=(0, 1.2 * reach))
    axes.set_box_aspect((1.6, 2, 1.2), zoom=1.35)
    axes.view_init(elev=28, azim=-130)
    axes.set_axis_off()
    title = textwrap.fill(trajectory.instruction, 36)
    axes.set_title(f"{arm.robot_tag}, {len(trajectory)} steps\n{title}", fontsize=6)


def _cylinder(
    axes: Any, foot: Floats, radius: float, height: float, color: str, strength: float
) -> None:
    """Rings and a few uprights: light to draw and to look through."""
    angle = np.linspace(0, 2 * np.pi, 17)
    x, y = foot[0] + radius * np.cos(angle), foot[1] + radius * np.sin(angle)
    for z in (foot[2], foot[2] + height):
        axes.plot(x, y, z, color=color, alpha=strength, linewidth=0.8)
    for k in range(0, 16, 4):
        ends = (foot[2], foot[2] + height)
        axes.plot([x[k]] * 2, [y[k]] * 2, ends, color=color, alpha=strength, linewidth=0.8)
