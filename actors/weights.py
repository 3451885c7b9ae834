"""Weights on their way from learner to rollout: a version and the tensors that changed.

Only parts that train travel; the frozen rest is loaded once from the checkpoint. Not a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from learners.sharding import gathered


@dataclass(frozen=True)
class WeightsUpdate:
    """One published state of the trained parts."""

    version: int
    """Learner updates that made these weights; a batch made with them carries this number."""
    tensors: dict[str, torch.Tensor]
    """Parameter name -> a copy on the CPU."""


def extract_weights(model: nn.Module, version: int) -> WeightsUpdate:
    """A copy of every parameter that trains; of a divided model as `gathered` has it."""
    return WeightsUpdate(
        version,
        {
            name: gathered(parameter.detach()).to("cpu", copy=True)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        },
    )


def apply_weights(model: nn.Module, update: WeightsUpdate) -> None:
    """Copy an update into a model of the same architecture, in place.

    Raises:
        ValueError: if the update holds a parameter that the model lacks.
    """
    parameters = dict(model.named_parameters())
    _refuse_unknown(update.tensors, parameters)
    with torch.no_grad():
        for name, tensor in update.tensors.items():
            parameters[name].copy_(tensor)


def _refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"weights for parameters that this model lacks: {unknown[:3]}")
