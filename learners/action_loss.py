"""The flow-matching loss of action chunks (paper section 2.5): targets, draws, loss.

Flow times and noise are drawn for a whole batch, so that any part of it can be computed by itself,
now or in another process, with the numbers that the whole batch would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from vlarl.codec import ActionCodec
from vlarl.config.schema import FlowConfig
from vlarl.data.samples import ChunkBatch
from vlarl.flow import flow_matching_loss, interpolate, sample_tau, target_velocity
from vlarl.model.qwen_vla import QwenVLA


class Draws(NamedTuple):
    """What is random in the loss of `B` chunks, each of which is drawn for `R` times."""

    tau: Tensor
    """[B, R] flow times."""
    noise: Tensor
    """[B, R, H, K]"""

    def part(self, rows: slice | NDArray[np.int64], steps: int) -> Draws:
        """Those of some chunks and of their first `steps` control steps."""
        return Draws(self.tau[rows], self.noise[rows, :, :steps])


def encode_chunks(codecs: Sequence[ActionCodec], batch: ChunkBatch) -> tuple[Tensor, Tensor]:
    """Normalized chunks `y0` [B, H, K], zero where padded, and their mask [B, H, K] bool.

    Each row by the codec of its embodiment: of its own channels and steps, the rest is ignored.

    The steps beyond an episode's end count like any other. Masked, they would tell the expert how
    far the episode has come, which no mask tells it when it acts. Whole trajectories, whose prompt
    says how long they are (`Observations.steps`), count to their end.
    """
    which = batch.observations.embodiment
    if which is None:
        clean, mask = codecs[0].encode(batch.actions)
    else:
        mask = codecs[0].mask(len(which), 0)
        clean = torch.zeros(mask.shape)
        for place in np.unique(which):
            rows, codec = np.flatnonzero(which == place), codecs[place]
            own = batch.actions[rows, : codec.horizon, : len(codec.stats.low)]
            clean[rows], mask[rows] = codec.encode(own)
    if batch.channels is not None:
        mask[..., : batch.channels.shape[1]] &= torch.from_numpy(batch.channels)[:, None]
    if batch.observations.steps is not None:
        steps = torch.from_numpy(batch.observations.steps)
        mask &= (torch.arange(mask.shape[1]) < steps[:, None])[..., None]
        longest = int(steps.max())
        clean, mask = clean[:, :longest], mask[:, :longest]
    return clean.masked_fill(~mask, 0.0), mask


def draw(shape: torch.Size, config: FlowConfig, generator: torch.Generator) -> Draws:
    """Flow times and noise for chunks of `shape` [B, H, K], from a generator on the CPU."""
    batch, repeats = shape[0], config.repeats
    tau = sample_tau(batch * repeats, config, generator)
    noise = torch.randn((batch * repeats, *shape[1:]), generator=generator)
    return Draws(tau.view(batch, repeats), noise.view(batch, repeats, *shape[1:]))


def drawn_loss(
    model: QwenVLA, context: TensorDict, clean: Tensor, mask: Tensor, draws: Draws
) -> Tensor:
    """Flow-matching loss (paper eq. 1, 2), averaged over the draws for each context.

    Args:
        model: whose velocity is trained.
        context: of `model.encode`, batch size [B].
        clean: [B, H, K] normalized chunks `y0`.
        mask: [B, H, K] which entries count.
        draws: of these chunks.

    Returns:
        Scalar.
    """
    repeats = draws.tau.shape[1]
    clean = clean.repeat_interleave(repeats, dim=0)
    mask = mask.repeat_interleave(repeats, dim=0)
    tau = draws.tau.flatten()
    noise = draws.noise.flatten(0, 1).masked_fill(~mask, 0.0)
    noisy = interpolate(clean, noise, tau)
    noisy, tau, target, mask = (
        tensor.to(context["hidden"].device)
        for tensor in (noisy, tau, target_velocity(clean, noise), mask)
    )
    return flow_matching_loss(model.velocity(context, noisy, tau, mask), target, mask).mean()
