"""Processes that learn together: how they find one another, and what they divide.

Each is told its rank, how many there are, and where the first one listens; `torchrun` is not
needed. Leaves out who starts them (`ray_runtime`), and the arithmetic (`learners.shares`,
`learners.sharding`).
"""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist

from learners.sharding import shard
from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError
from vlarl.model.qwen_vla import QwenVLA

TIMEOUT_SECONDS = 600.0
"""A process that waits longer than this for the others gives up: one of them hangs."""

Address = tuple[str, int]
"""Host and port where the first process listens."""


def backend() -> str:
    """Of `torch.distributed`: NCCL for what is on a GPU, gloo for the rest."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def listen(
    world: int, host: str, timeout: float = TIMEOUT_SECONDS
) -> tuple[dist.TCPStore, Address]:
    """Of the first process: the store where all meet, on a free port of `host`."""
    store = dist.TCPStore(
        host, 0, world, True, timeout=timedelta(seconds=timeout), wait_for_workers=False
    )
    return store, (host, store.port)


def reach(world: int, address: Address, timeout: float = TIMEOUT_SECONDS) -> dist.TCPStore:
    """Of the others: the same store."""
    return dist.TCPStore(*address, world, False, timeout=timedelta(seconds=timeout))


def join(rank: int, world: int, store: dist.TCPStore, timeout: float = TIMEOUT_SECONDS) -> None:
    """Make this process `rank` of the `world` that `Peers.joined` finds; all must do so.

    Args:
        rank: of this process.
        world: how many there are.
        store: of `listen` or `reach`.
        timeout: seconds after which waiting for the others is an error.
    """
    dist.init_process_group(
        backend(), store=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout)
    )


def leave() -> None:
    """Inverse of `join`; nothing without it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def divide(config: RunConfig, model: QwenVLA) -> None:
    """What `runtime.shard` says of a model that is about to learn.

    Raises:
        ConfigError: if `runtime.offload` would do nothing, because the model is on the CPU.
    """
    runtime = config.runtime
    if runtime.offload != "none" and model.device.type == "cpu":
        raise ConfigError(
            f"runtime.offload = {runtime.offload!r}: the model is on the CPU already. Use "
            "runtime.offload=none."
        )
    if runtime.shard == "full":
        shard(model)
