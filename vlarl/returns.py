"""Advantages and value targets of flat batches, through TorchRL's GAE (paper section 4.2).

Only here do `terminated`, `truncated` and `window_end` turn into returns. `gamma` and `lambda` act
once for each decision, whatever number of control steps it executed.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives.value.functional import generalized_advantage_estimate


def generalized_advantage(
    batch: TensorDict, gamma: float, gae_lambda: float, bootstrap_time_limit: bool
) -> tuple[Tensor, Tensor]:
    """Advantage and value target of every decision.

    Args:
        batch: [M] as in `vlarl.batch`: `T` decisions of each stream, the last one a window end. A
            decision's next value is its stream's next `value`, and its own `next_value` (of the
            final observation) where its episode or window ends.
        gamma: discount.
        gae_lambda: trace decay.
        bootstrap_time_limit: whether an episode cut by its time limit goes on in value; otherwise
            the limit is an end like any other.

    Returns:
        [M] advantages and [M] targets, in the batch's order.
    """
    order = torch.argsort(batch["stream"], stable=True)
    streams = len(torch.unique(batch["stream"]))
    assert len(order) % streams == 0, "streams differ in their number of decisions"

    def rows(key: str) -> Tensor:
        return batch[key][order].view(streams, -1)

    stream, time = rows("stream"), rows("time")
    assert bool((stream == stream[:, :1]).all()), "streams differ in their number of decisions"
    assert bool((time == torch.arange(time.shape[1])).all()), "a stream is not in order of time"
    window_end = rows("window_end")
    assert bool(window_end[:, -1].all()), "a stream does not end with its window"
    value = rows("value")
    done = rows("terminated") | rows("truncated") | window_end
    cut = rows("terminated") if bootstrap_time_limit else rows("terminated") | rows("truncated")
    following = torch.cat([value[:, 1:], value[:, -1:]], dim=1)
    next_value = torch.where(done, rows("next_value"), following)
    advantage, target = generalized_advantage_estimate(
        gamma,
        gae_lambda,
        value[..., None],
        next_value[..., None],
        rows("reward")[..., None],
        done[..., None],
        cut[..., None],
    )
    back = torch.argsort(order)
    return advantage.flatten()[back], target.flatten()[back]


def normalized(advantage: Tensor) -> Tensor:
    """[M] shifted and scaled to mean 0 and deviation 1; all equal ones become 0."""
    centered = advantage - advantage.mean()
    return centered / (centered.square().mean().sqrt() + 1e-8)
