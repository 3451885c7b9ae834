"""Programs worked through on many tables at once, every control step recorded (section 3.2.3).

Whatever fails, from a table that does not settle to a success test that does not hold, is counted
by its reason and not kept. Leaves out what becomes of the recordings (`vision_language_action.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.facts import Facts
from envservers.tabletop.layouts import Layout, sample_layout
from envservers.tabletop.programs import Program, make_program
from envservers.tabletop.renderer import CAMERAS
from envservers.tabletop.workbench import Workbench
from envservers.tabletop.worker import PICK, Worker

HORIZONS = ("short", "long")


@dataclass
class Recording:
    """One program at work, and at last a success."""

    program: Program
    worker: Worker
    facts: list[Facts]
    """Of the table at the start, and after each finished stage."""
    now: Facts
    images: dict[str, list[NDArray[np.uint8]]] = field(
        default_factory=lambda: {camera: [] for camera in CAMERAS}
    )
    states: list[NDArray[np.float32]] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)
    """Of each action."""
    parts: list[str] = field(default_factory=list)
    """`pick` or `place`, of each action."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def layout(self) -> Layout:
        """The table's."""
        return self.now.layout

    def bounds(self, stage: int) -> tuple[int, int, int]:
        """First frame of a stage, first frame of its placing (after the last grasp), and its end.

        A dropped object is picked up again: that belongs to the picking.
        """
        frames = np.flatnonzero(np.array(self.stages) == stage)
        picked = [frame for frame in frames if self.parts[frame] == PICK]
        return int(frames[0]), int(picked[-1]) + 1, int(frames[-1]) + 1


class MotionStudio:
    """Lays tables, makes up tasks and has them done; `failures` counts what came to nothing."""

    def __init__(self, num_envs: int, image_size: int, horizon: str, seed: int) -> None:
        """`horizon` is `short`, `long` or `both`, which takes either for each table."""
        self._bench = Workbench(num_envs, image_size)
        self._horizon, self._seed = horizon, seed
        self._rounds = 0
        self.tables = 0
        self.failures: Counter[str] = Counter()

    def round(self) -> list[Recording]:
        """The successes on one batch of fresh tables."""
        ids = np.arange(self._bench.num_envs)
        seeds = [[self._seed, 0x51A, self._rounds, sim] for sim in range(len(ids))]
        randoms = [np.random.default_rng(seed) for seed in seeds]
        self._rounds += 1
        self.tables += len(ids)
        defects = self._bench.lay(ids, [_table(random) for random in randoms])
        running: dict[int, Recording] = {}
        for sim, random, defect in zip(ids.tolist(), randoms, defects, strict=True):
            facts = self._bench.facts(sim)
            horizon = self._horizon
            if horizon == "both":
                horizon = HORIZONS[random.integers(2)]
            program = None if defect else make_program(facts, horizon, random)
            if program is None:
                self.failures[defect or "no task fits the table"] += 1
            else:
                running[sim] = Recording(program, Worker(program, facts, random), [facts], facts)
        finished: dict[int, Recording] = {}
        while running:
            self._step(running)
            for sim, recording in self._ended(running):
                del running[sim]
                if recording is not None:
                    finished[sim] = recording
        return [finished[sim] for sim in sorted(finished)]

    def _step(self, running: dict[int, Recording]) -> None:
        """One control step of everything that runs, recorded."""
        ids = np.array(sorted(running))
        pictures = {camera: self._bench.render(ids, camera)[0] for camera in CAMERAS}
        states = self._bench.state(ids)
        commanded = self._bench.control.target[ids].copy()
        actions = []
        for row, sim in enumerate(ids.tolist()):
            recording = running[sim]
            action = recording.worker.act(recording.now, commanded[row])
            recording.stages.append(recording.worker.stage)
            recording.parts.append(recording.worker.part)
            recording.states.append(states[row])
            recording.actions.append(action)
            for camera, images in pictures.items():
                recording.images[camera].append(images[row])
            actions.append(action)
        self._bench.step(ids, np.stack(actions).astype(np.float64))

    def _ended(self, running: dict[int, Recording]) -> Iterator[tuple[int, Recording | None]]:
        """Slots whose program has ended: with its recording, or with none if it failed."""
        for sim, recording in list(running.items()):
            if self._bench.failed(sim):
                self.failures["unstable physics"] += 1
                yield sim, None
                continue
            recording.now = self._bench.facts(sim)
            worker, before = recording.worker, recording.worker.stage
            worker.judge(recording.now)
            if worker.stage > before:
                recording.facts.append(recording.now)
            kind = recording.program.kind
            if worker.done and recording.program.succeeded(recording.now):
                yield sim, recording
            elif worker.done:
                self.failures[f"{kind}: success test failed"] += 1
                yield sim, None
            elif worker.timed_out:
                self.failures[f"{kind}: timed out in stage {worker.stage + 1}"] += 1
                yield sim, None


def _table(random: np.random.Generator) -> Layout:
    """A table with enough to do, something stacked now and then, often things of one color."""
    return sample_layout(
        random,
        stacks=int(random.integers(0, 2)),
        objects=int(random.integers(4, 9)),
        alike=bool(random.random() < 0.5),
    )
