"""Rows of a batch: opened as a lane decides, completed by what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from actors.lane import Lane
from vlarl.errors import UserError
from vlarl.policy import Decisions
from vlarl.rewards import RewardFunction, RewardInput
from vlarl.types import TimeStep


def opened(
    lane: Lane, decisions: Decisions, rows: slice, keep: str, tasks: Sequence[str], version: int
) -> TensorDict:
    """[n] the lane's decisions, whose outcome is not known yet.

    Args:
        lane: with the observation that was decided on.
        decisions: of a call of the policy, perhaps for other lanes too.
        rows: which of them are this lane's.
        keep: `context` or `inputs`.
        tasks: of the run; a row holds its task's place in them.
        version: of the weights that decided.
    """
    n = len(lane.streams)
    kept = decisions.context if keep == "context" else decisions.inputs
    assert kept is not None
    assert decisions.chunk is not None
    places = [tasks.index(task) for task in lane.observation.task]
    return TensorDict(
        {
            "stream": torch.from_numpy(lane.streams),
            "time": torch.full((n,), len(lane.window), dtype=torch.int64),
            keep: kept[rows],
            "chunk": decisions.chunk[rows],
            "value": torch.as_tensor(decisions.value[rows], dtype=torch.float32),
            "task": torch.tensor(places),
            "version": torch.full((n,), version, dtype=torch.int64),
        },
        batch_size=[n],
    )


def completed(
    row: TensorDict, after: TimeStep, rewards: NDArray[np.float32], next_value: Tensor, last: bool
) -> TensorDict:
    """The opened rows [n] with their outcome; `last` of their window."""
    row["reward"] = torch.from_numpy(rewards)
    row["terminated"] = torch.from_numpy(after.terminated.copy())
    row["truncated"] = torch.from_numpy(after.truncated.copy())
    row["success"] = torch.from_numpy(after.success.copy())
    row["window_end"] = torch.full((len(after),), last, dtype=torch.bool)
    row["next_value"] = next_value
    return row


def checked_rewards(
    reward: RewardFunction, before: TimeStep, actions: NDArray[np.float32], after: TimeStep
) -> NDArray[np.float32]:
    """[n] what the reward function says.

    Raises:
        UserError: if that is no finite number for each environment.
    """
    rewards = np.asarray(reward(RewardInput(before, actions, after)), np.float32)
    if rewards.shape != (len(after),) or not np.isfinite(rewards).all():
        raise UserError(
            f"the reward function returned {rewards!r}; expected {len(after)} finite numbers, "
            "one for each environment"
        )
    return rewards
