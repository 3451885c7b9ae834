"""One shard: trajectories of one arm and one template, from a seed.

Scenes are drawn and planned hundreds at a time; where the direct path is not feasible, detours are
tried; the feasible ones are sampled at 50 Hz and worded. The same seed gives the same shard.
"""

from __future__ import annotations

import zlib
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis import motion
from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.instruction import DRAWS, Manner, compose
from vlarl.synthesis.kinematics import quaternion_of
from vlarl.synthesis.motion import RATE, Records
from vlarl.synthesis.path import find_path, tool_poses
from vlarl.synthesis.plan import DETOURS, VARIATION, make_plan
from vlarl.synthesis.scene import Scene, draw
from vlarl.synthesis.shard import Shard
from vlarl.synthesis.vocabulary import load_vocabulary

BATCH = 640
"""Trajectories that are planned together, at most."""
_LEAST_BATCH = 32


class Infeasible(RuntimeError):
    """Hardly any trajectory of an arm and a template is feasible: its file is to blame."""


def make_shard(arm: Arm, template: str, seed: int, index: int, count: int) -> Shard:
    """Shard `index` of `count` trajectories.

    Raises:
        Infeasible: if fewer than one in fifty attempts succeed.
    """
    random = np.random.default_rng([seed, _number(arm.name), _number(template), index])
    found: list[_Batch] = []
    kept = attempts = 0
    while kept < count:
        size = min(BATCH, max(_LEAST_BATCH, int(1.15 * (count - kept))))
        batch = _plan(arm, template, size, random, count - kept)
        attempts += size
        kept += len(batch.scene)
        found.append(batch)
        if attempts > 50 * kept + 8 * size:
            raise Infeasible(f"{arm.name}, {template}: {kept} of {attempts} attempts are feasible")
    batch = _Batch.joined(found)
    return _finish(arm, template, batch, random)


class _Batch:
    """Feasible trajectories before they are sampled."""

    def __init__(
        self, scene: Scene, knots: Floats, steps: NDArray[np.int64], gripper: Floats
    ) -> None:
        self.scene, self.knots, self.steps, self.gripper = scene, knots, steps, gripper

    @staticmethod
    def joined(parts: list[_Batch]) -> _Batch:
        """One after the other."""
        scene = Scene(
            *(
                np.concatenate([getattr(part.scene, field.name) for part in parts])
                for field in fields(Scene)
            )
        )
        return _Batch(
            scene,
            np.concatenate([part.knots for part in parts]),
            np.concatenate([part.steps for part in parts]),
            np.concatenate([part.gripper for part in parts]),
        )


def _plan(arm: Arm, template: str, size: int, random: np.random.Generator, most: int) -> _Batch:
    """The feasible ones of `size` attempts, `most` at most, in the order they were drawn."""
    scene = draw(arm, template, size, random)
    variation = random.uniform(size=(size, VARIATION))
    spread = random.uniform(-1, 1, (size, arm.joints))
    rows = np.arange(size)
    parts, places = [], []
    for detour in range(len(DETOURS)):
        part = scene.rows(rows)
        plan = make_plan(arm, template, part, variation[rows], detour)
        path = find_path(arm, plan, part, spread[rows], random)
        good = path.feasible
        parts.append(
            _Batch(part.rows(good), path.knots[good], path.steps[good], path.gripper[good])
        )
        places.append(rows[good])
        rows = rows[~good]
        if not len(rows):
            break
    batch = _Batch.joined(parts)
    order = np.argsort(np.concatenate(places), kind="stable")[:most]
    return _Batch(
        batch.scene.rows(order), batch.knots[order], batch.steps[order], batch.gripper[order]
    )


def _finish(arm: Arm, template: str, batch: _Batch, random: np.random.Generator) -> Shard:
    """Sample and word."""
    records = motion.sample(batch.knots, batch.steps, batch.gripper)
    position, frame = tool_poses(arm, records.position)
    pose = np.concatenate([position, quaternion_of(frame.x, frame.y, frame.z)], axis=1)
    manner = _manner(template, records, position)
    draws = random.uniform(size=(len(batch.scene), DRAWS))
    texts = compose(arm, template, batch.scene, manner, load_vocabulary(), draws)
    return Shard.of(arm.name, template, records, pose, batch.scene, texts)


def _manner(template: str, records: Records, position: Floats) -> Manner:
    """Top speed of the tool, and its top height while it holds something."""
    starts = records.offsets[:-1]
    speed = np.zeros(len(position))
    speed[1:] = np.linalg.norm(np.diff(position.astype(np.float64), axis=0), axis=1) * RATE
    # The step from one trajectory to the next is no motion.
    speed[starts] = 0
    height = np.full(len(starts), np.nan)
    if template not in ("push", "pull"):
        resting = records.gripper == records.gripper[0]
        height = np.maximum.reduceat(np.where(resting, 0, position[:, 2]), starts)
    return Manner(np.maximum.reduceat(speed, starts), height)


def _number(name: str) -> int:
    """A number for a name, the same in every process."""
    return zlib.crc32(name.encode())
