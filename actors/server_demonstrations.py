"""Demonstrations of a suite whose expert is asked over the wire, such as MetaWorld's policies.

Several env servers simulate at once, one control step of all of them after the other, so that the
same seed makes the same episodes in the same order. What is executed is the expert's action and a
noise that persists for some steps; what is recorded is the expert's action alone, in the states to
which the noise led (DART, Laskey et al. 2017): the demonstrations show how to come back.
Demonstrators may take their time: each episode's displacements are a share of the expert's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.recording import EpisodeQuota, Recording
from envservers.client import ServerClient, spawn_server
from envservers.inprocess import InprocessClient
from envservers.registry import check_memory, describe_suite
from envservers.usable import check_usable
from vlarl.config.data_schema import CollectConfig
from vlarl.data.episode import Episode
from vlarl.errors import ConfigError
from vlarl.types import TimeStep

Demonstrator = ServerClient | InprocessClient
"""A client whose suite has experts."""
SLOTS = 2
"""Environments of a server: they take turns, so that more would only take memory."""
PATIENCE_SECONDS = 300.0
"""For an answer: the first episode of a task may compile its scene, on a machine that is busy."""
PERSISTENCE = 0.9
"""Of the noise, from one control step to the next."""
_ELSEWHERE = {"waypoint_noise": 0.0, "clumsy_steps": 0}
"""Settings of experts that run in this process, and what leaves them out."""


@contextmanager
def open_servers(
    suite: str, servers: int, slots: int, options: Mapping[str, Any]
) -> Iterator[list[ServerClient]]:
    """Servers of one suite, started side by side, ended with the block.

    Raises:
        UserError: for a suite, option or task that there is none of, one that is not installed or
            cannot draw here, or more environments than memory; before any of them is started.
    """
    describe_suite(suite, **options)
    check_usable(suite)
    check_memory(suite, slots, servers, options)
    with ThreadPoolExecutor(servers) as pool:
        start = partial(spawn_server, suite, slots, options, PATIENCE_SECONDS)
        futures = [pool.submit(start) for _ in range(servers)]
    clients = [future.result() for future in futures if future.exception() is None]
    try:
        for future in futures:
            future.result()
        yield clients
    finally:
        for client in clients:
            client.close()


def check_settings(suite: str, config: CollectConfig) -> None:
    """Refuse settings that the experts of servers do not know.

    Raises:
        ConfigError: naming the first.
    """
    for name, unused in _ELSEWHERE.items():
        if getattr(config, name) != unused:
            raise ConfigError(
                f"collect.{name} = {getattr(config, name)}: has no effect with suite {suite!r}, "
                f"whose experts run in its servers. Use action_noise or slowest_pace, and leave "
                f"{name} out"
            )


def served_episodes(
    clients: Sequence[Demonstrator], quota: EpisodeQuota, config: CollectConfig
) -> Iterator[tuple[Episode, bool]]:
    """Episodes as they end, with their success; refills slots until the quota gives none."""
    lanes = [_Lane(client, config) for client in clients]
    while True:
        waiting = [lane for lane in lanes if lane.begin(quota)]
        for lane in waiting:
            lane.first()
        running = [lane for lane in lanes if lane.running]
        if not running:
            return
        for lane in running:
            lane.act()
        for lane in running:
            yield from lane.look()


class _Lane:
    """One server and its running episodes."""

    def __init__(self, client: Demonstrator, config: CollectConfig) -> None:
        self.running: dict[int, Recording] = {}
        self._client, self._seed = client, config.seed
        self._slowest = config.slowest_pace
        self._pace: dict[int, NDArray[np.float32]] = {}
        self._noise: dict[int, Callable[[], NDArray[np.float32]]] = {}
        self._now: dict[int, tuple[TimeStep, int]] = {}
        self._begun: list[Any] = []
        channels = client.spec.channels
        self._low = np.array([channel.low for channel in channels], np.float32)
        self._high = np.array([channel.high for channel in channels], np.float32)
        moves = np.array([channel.kind != "gripper" for channel in channels])
        self._moves = moves
        # A gripper that trembles drops what it holds; nobody learns to come back from that.
        self._scale = (config.action_noise * moves * (self._high - self._low) / 2).astype(
            np.float64
        )

    def begin(self, quota: EpisodeQuota) -> bool:
        """Ask for episodes in free slots; whether any were asked for."""
        free = [slot for slot in range(self._client.num_envs) if slot not in self.running]
        starts = quota.starts(len(free))
        self._begun = list(zip(free, starts, strict=False))
        if starts:
            self._client.submit_reset(np.array(free[: len(starts)]), starts)
        return bool(starts)

    def first(self) -> None:
        """Take in the first observations of what was asked for."""
        seen = self._client.receive()
        for row, (slot, start) in enumerate(self._begun):
            self.running[slot] = Recording(start, seen.instruction[row])
            self._now[slot] = seen, row
            self._noise[slot] = _persistent(self._scale, [self._seed, start.seed])
            pace = np.random.default_rng([self._seed, start.seed, 1]).uniform(self._slowest, 1.0)
            self._pace[slot] = np.where(self._moves, pace, 1.0).astype(np.float32)

    def act(self) -> None:
        """Ask the expert, record what it says, have its noisy action executed."""
        slots = np.array(sorted(self.running))
        wanted = np.clip(self._client.expert_actions(slots), self._low, self._high)
        wanted *= np.stack([self._pace[slot] for slot in slots.tolist()])
        for slot, action in zip(slots.tolist(), wanted, strict=True):
            self.running[slot].add(*self._now[slot], action)
        noise = np.stack([self._noise[slot]() for slot in slots.tolist()])
        executed = np.clip(wanted + noise, self._low, self._high)
        self._client.submit_step(slots, executed[:, None])

    def look(self) -> Iterator[tuple[Episode, bool]]:
        """Take in what came of it; the episodes that ended."""
        after = self._client.receive()
        for row, slot in enumerate(after.env_ids.tolist()):
            self._now[slot] = after, row
            if after.done[row]:
                success = bool(after.success[row])
                yield self.running.pop(slot).finish(success), success


def _persistent(
    scale: NDArray[np.float64], seed: Sequence[int]
) -> Callable[[], NDArray[np.float32]]:
    """Gaussian noise of this standard deviation in each channel, correlated in time."""
    random = np.random.default_rng(seed)
    present = random.normal(size=len(scale)) * scale

    def following() -> NDArray[np.float32]:
        nonlocal present
        now = present.astype(np.float32)
        fresh = np.sqrt(1 - PERSISTENCE**2) * random.normal(size=len(scale)) * scale
        present = PERSISTENCE * present + fresh
        return now

    return following
