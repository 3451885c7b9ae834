"""Small data for text-to-action pretraining: invented trajectories, and a real folder of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlarl.config.embodiments import load_embodiment
from vlarl.data.episode import Episode
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.dataset import Entry, Recipe, append, open_folder
from vlarl.synthesis.generator import make_shard

REAL_ROBOT = "tabletop_arm"


class Invented:
    """Trajectories of given lengths whose actions count: trajectory, step, channel."""

    def __init__(self, lengths: list[int], channels: int, words: str) -> None:
        self.lengths = np.array(lengths)
        self._channels, self._words = channels, words

    def sentence(self, index: int) -> str:
        return f"{self._words} {index % 2}"

    def actions(self, index: int) -> np.ndarray:
        steps, channels = np.arange(self.lengths[index])[:, None], np.arange(self._channels)
        return (100 * index + steps + 0.01 * channels).astype(np.float32)


def synthesize(folder: Path, robots: tuple[str, ...] = ("ur5e", "xarm7"), each: int = 2) -> Path:
    """A folder as `vlarl synth t2a` makes it."""
    recipe = Recipe(0, robots, ("push",), each * len(robots))
    open_folder(folder, recipe)
    for job in recipe.jobs():
        shard = make_shard(load_arm(job.robot), job.template, 0, job.index, job.count)
        path = folder / job.name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = shard.write(path)
        append(folder, Entry(job.name, job.robot, job.template, len(shard), shard.steps, size))
    return folder


def record(folder: Path, lengths: tuple[int, ...] = (9, 20, 14)) -> Path:
    """A LeRobot dataset of `REAL_ROBOT`."""
    robot = load_embodiment(REAL_ROBOT)
    names = [channel.name for channel in robot.channels]
    low, high = (np.array([getattr(c, end) for c in robot.channels]) for end in ("low", "high"))
    random = np.random.default_rng(0)
    with LeRobotWriter(folder, robot.control_hz, (), names, 1, robot.name) as writer:
        for length in lengths:
            action = random.uniform(low, high, (length, len(names))).astype(np.float32)
            state = np.zeros((length, 1), np.float32)
            writer.add(Episode({}, state, action, f"put the spoon on towel {length}"))
    return folder
