"""The flow-matching loss of action chunks (paper section 2.5): targets and loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from vlarl.codec import ActionCodec
from vlarl.config.schema import FlowConfig
from vlarl.data.samples import ChunkBatch
from vlarl.flow import flow_matching_loss, interpolate, sample_tau, target_velocity
from vlarl.model.qwen_vla import QwenVLA


def encode_chunks(codecs: Sequence[ActionCodec], batch: ChunkBatch) -> tuple[Tensor, Tensor]:
    """Normalized chunks `y0` [B, H, K], zero where padded, and their mask [B, H, K] bool.

    Each row by the codec of its embodiment: of its own channels and steps, the rest is ignored.

    The steps beyond an episode's end count like any other. Masked, they would tell the expert how
    far the episode has come, which no mask tells it when it acts.
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
    return clean.masked_fill(~mask, 0.0), mask


def action_loss(
    model: QwenVLA,
    context: TensorDict,
    clean: Tensor,
    mask: Tensor,
    config: FlowConfig,
    generator: torch.Generator,
) -> Tensor:
    """Flow-matching loss (paper eq. 1, 2), averaged over `config.repeats` draws for each context.

    Args:
        model: whose velocity is trained.
        context: of `model.encode`, batch size [B].
        clean: [B, H, K] normalized chunks `y0`.
        mask: [B, H, K] which entries count.
        config: how flow times are drawn, and how many for each context.
        generator: draws flow times and noise, on the CPU.

    Returns:
        Scalar.
    """
    clean = clean.repeat_interleave(config.repeats, dim=0)
    mask = mask.repeat_interleave(config.repeats, dim=0)
    tau = sample_tau(len(clean), config, generator)
    noise = torch.randn(clean.shape, generator=generator).masked_fill(~mask, 0.0)
    noisy = interpolate(clean, noise, tau)
    noisy, tau, target, mask = (
        tensor.to(context["hidden"].device)
        for tensor in (noisy, tau, target_velocity(clean, noise), mask)
    )
    return flow_matching_loss(model.velocity(context, noisy, tau, mask), target, mask).mean()
