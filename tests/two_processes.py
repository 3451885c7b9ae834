"""Work that two processes do together, as one group of learners (gloo)."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from actors.learner_group import Address, join, leave, listen, reach

HOST = "127.0.0.1"
_SECONDS = 120.0


def together(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(rank, *arguments)` returns in each of two processes that have joined.

    `work` is a function of a module; it returns what can be pickled.
    """
    _store, address = listen(2, HOST, _SECONDS)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs = [pool.submit(_joined, rank, address, work, arguments) for rank in range(2)]
        return [job.result() for job in jobs]


def _joined(rank: int, address: Address, work: Callable[..., Any], arguments: Any) -> Any:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    join(rank, 2, reach(2, address, _SECONDS), _SECONDS)
    try:
        return work(rank, *arguments)
    finally:
        leave()
