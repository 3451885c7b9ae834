"""Weights on their way from learner to rollout: a version, and the bytes of what trains, in shards.

Only parameters that train travel, in the number format that rollout computes in (float32 masters
stay with the optimizer); the frozen rest is loaded once from the checkpoint. Adapters travel as
adapters: merged into bfloat16 weights they would give other log-probabilities than the learner's.

The parameters, one after another, are one row of bytes, cut into shards of at most `SHARD_BYTES`.
Each is put once, wherever `put` puts it: with Ray the object store, which is shared memory that
processes of the node map without a copy, and from which other nodes fetch. The update that names
the shards exists only when all are there, and a reader has all before it changes a parameter: none
ever acts with half a set. Not a checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.sharding import gathered

SHARD_BYTES = 2**28
"""Of one object; also what publishing needs beside the objects themselves."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class ParameterForm:
    """One parameter of an update."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class WeightsUpdate:
    """One published state of the trained parts."""

    version: int
    """Learner updates that made these weights; a batch made with them carries this number."""
    forms: tuple[ParameterForm, ...]
    """In the order of their bytes."""
    shards: tuple[Any, ...]
    """What `put` returned: uint8 arrays, or references to them."""

    @property
    def bytes(self) -> int:
        """Of all parameters."""
        return sum(form.bytes for form in self.forms)


def extract_weights(
    model: nn.Module,
    version: int,
    put: Callable[[Bytes], Any] = np.copy,
    shard_bytes: int = SHARD_BYTES,
) -> WeightsUpdate:
    """Every parameter that trains, put away in shards; of a divided model as `gathered` has it.

    Args:
        model: on any device.
        version: see `WeightsUpdate`.
        put: stores a copy of the bytes it is given, whose memory is used again, and returns where.
        shard_bytes: most bytes of a shard.
    """
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    forms = tuple(ParameterForm(name, each.dtype, tuple(each.shape)) for name, each in trained)
    total = sum(form.bytes for form in forms)
    # One buffer for all: new pages cost several times what copying into old ones does.
    buffer = np.empty(min(shard_bytes, total), np.uint8)
    shards = []
    filled = 0
    for _, parameter in trained:
        whole = gathered(parameter.detach()).contiguous()
        for part in _cut(_as_bytes(whole), shard_bytes, filled):
            torch.from_numpy(buffer[filled : filled + len(part)]).copy_(part)
            filled += len(part)
            if filled == shard_bytes:
                shards.append(put(buffer))
                filled = 0
    if filled:
        shards.append(put(buffer[:filled]))
    return WeightsUpdate(version, forms, tuple(shards))


def apply_weights(
    model: nn.Module,
    update: WeightsUpdate,
    get: Callable[[Sequence[Any]], Sequence[Bytes]] = lambda shards: shards,
) -> None:
    """Copy an update into a model of the same architecture, in place.

    Args:
        model: left as it is if anything of the update is missing.
        update: whose shards `get` can find.
        get: the arrays of all shards, or an exception.

    Raises:
        ValueError: if the update does not fit the model, or is not whole.
    """
    parameters = dict(model.named_parameters())
    _refuse_others(update, parameters)
    shards = get(update.shards)
    if sum(len(shard) for shard in shards) != update.bytes:
        raise ValueError(
            f"weights of version {update.version}: {sum(len(shard) for shard in shards)} bytes of "
            f"{update.bytes}"
        )
    with torch.no_grad(), warnings.catch_warnings():
        # Shared memory is not for us to write, nor do we.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        unread = [torch.from_numpy(shard) for shard in shards if len(shard)][::-1]
        for form in update.forms:
            parameter = parameters[form.name]
            whole: Tensor = parameter
            if not parameter.is_contiguous():
                whole = torch.empty(form.shape, dtype=form.dtype, device=parameter.device)
            _read(_as_bytes(whole.detach()), unread)
            if whole is not parameter:
                parameter.copy_(whole)


def _as_bytes(tensor: Tensor) -> Tensor:
    """[bytes] uint8 view of a contiguous tensor."""
    return tensor.view(-1).view(torch.uint8)


def _cut(row: Tensor, size: int, filled: int) -> Iterator[Tensor]:
    """Parts of a row of bytes that end where shards do, the first of which has `filled` already."""
    start = 0
    while start < len(row):
        end = min(len(row), start + size - filled)
        yield row[start:end]
        start, filled = end, 0


def _read(target: Tensor, unread: list[Tensor]) -> None:
    """Fill a row of bytes from the shards, the next of which is last, and take what was read."""
    start = 0
    while start < len(target):
        shard = unread.pop()
        count = min(len(shard), len(target) - start)
        target[start : start + count].copy_(shard[:count])
        if count < len(shard):
            unread.append(shard[count:])
        start += count


def _refuse_others(update: WeightsUpdate, parameters: dict[str, nn.Parameter]) -> None:
    unknown = sorted(form.name for form in update.forms if form.name not in parameters)
    if unknown:
        raise ValueError(f"weights for parameters that this model lacks: {unknown[:3]}")
    for form in update.forms:
        ours = parameters[form.name]
        if (ours.dtype, tuple(ours.shape)) != (form.dtype, form.shape):
            raise ValueError(
                f"weights of {form.name}: {form.dtype} {list(form.shape)}, and this model has "
                f"{ours.dtype} {list(ours.shape)}"
            )
