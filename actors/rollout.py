"""Collects on-policy batches: every stream gives exactly `T` decisions, simulation overlaps acting.

A plain class, with or without Ray. While one client simulates, the policy serves another; a batch
for the policy is always one client's slots, so that shapes are fixed and a run can be repeated.
What a decision is worth (returns, advantages) is the learner's business.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from tensordict import TensorDict

from actors.episodes import EpisodeSource
from actors.lane import Lane, Phase
from actors.rollout_stats import RolloutStats, Tally
from envservers.client import wait_ready
from vlarl.batch import validate
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvServerError, UserError
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.rewards import RewardFunction, RewardInput
from vlarl.types import TimeStep

T = TypeVar("T")
Restart = Callable[[int], EnvClient]
"""Replaces the server behind the client of this number and returns a client of the new one."""


class RolloutCollector:
    """Steps all clients' environments with a policy and returns what happened.

    Args:
        clients: their slots, in order, are the streams.
        policy: acts with the weights it holds at the time.
        reward: called once for each client's step, in simulator units.
        source: of episodes; one stream for each slot.
        decisions_per_stream: `T`.
        keep: `context` (hidden states, for a frozen backbone) or `inputs` (when it trains).
        seed: of the exploration noise.
        restart: called for a client whose server failed; None makes a failure final.
        max_restarts: for each client, over the life of the collector.
        bootstrap_time_limit: also value the final observation of truncated episodes.
    """

    def __init__(
        self,
        clients: Sequence[EnvClient],
        policy: Policy,
        reward: RewardFunction,
        source: EpisodeSource,
        decisions_per_stream: int,
        *,
        keep: str = "context",
        seed: Sequence[int] = (0,),
        restart: Restart | None = None,
        max_restarts: int = 3,
        bootstrap_time_limit: bool = False,
    ) -> None:
        self._lanes: list[Lane] = []
        first = 0
        for client in clients:
            streams = np.arange(first, first + client.num_envs)
            self._lanes.append(Lane(client, streams, source, [*seed, first], policy.past_frames))
            first += client.num_envs
        self._policy = policy
        self._reward = reward
        self._source = source
        self._horizon = decisions_per_stream
        self._keep = keep
        self._restart_client = restart
        self._max_restarts = max_restarts
        self._bootstrap_time_limit = bootstrap_time_limit
        self._tasks = clients[0].spec.tasks
        self._max_steps = clients[0].spec.max_steps
        self._tally = Tally()
        self._pending: dict[int, TensorDict] = {}

    @property
    def clients(self) -> list[EnvClient]:
        """As they are now: a failed one was replaced."""
        return [lane.client for lane in self._lanes]

    def collect(self, version: int = 0) -> tuple[TensorDict, RolloutStats]:
        """One window: `T` decisions of every stream.

        Args:
            version: of the policy's weights, written into every row.

        Returns:
            A batch [M] as in `vlarl.batch`, sorted by stream, then time; and what it cost.

        Raises:
            EnvServerError: naming the server that failed more often than allowed.
            UserError: if the reward function returned NaN or a wrong shape.
        """
        self._tally.started = time.perf_counter()
        for lane in self._lanes:
            self._guarded(lane, lane.begin_window)
        while unfinished := [lane for lane in self._lanes if len(lane.window) < self._horizon]:
            ready = next((lane for lane in unfinished if lane.phase is Phase.READY), None)
            if ready is not None:
                self._guarded(ready, partial(self._decide, ready, version))
            self._receive(unfinished, wait=ready is None)
        rows = [torch.stack(lane.window, dim=1).flatten(0, 1) for lane in self._lanes]
        batch = torch.cat(rows)
        validate(batch)
        stats = self._allocated(self._stats(batch))
        # What fails between two windows is counted in the next.
        self._tally = Tally()
        return batch, stats

    def state_dict(self) -> dict[str, Any]:
        """Episodes, environments, noise: what makes the next window what it will be."""
        lanes = [self._state_of(lane) for lane in self._lanes]
        return {**self._source.state_dict(), "lanes": lanes}

    def position(self) -> dict[str, Any]:
        """A `state_dict` without the environments: whoever loads it begins new episodes."""
        return {**self._source.state_dict(), "lanes": [lane.position() for lane in self._lanes]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, before the first window.

        Raises:
            UserError: if the run had another number of servers or environments.
        """
        if len(state["lanes"]) != len(self._lanes) or len(state["counters"]) != len(
            self._source.counters
        ):
            raise UserError(
                f"cannot resume: the checkpoint has {len(state['lanes'])} env servers with "
                f"{len(state['counters'])} environments in all, this run {len(self._lanes)} with "
                f"{len(self._source.counters)}; set env.servers and env.envs_per_server as before"
            )
        self._source.load_state_dict(state)
        for lane, values in zip(self._lanes, state["lanes"], strict=True):
            self._guarded(lane, partial(lane.load_state_dict, values))

    def lend(self, work: Callable[[list[EnvClient]], T]) -> T:
        """Let `work` use the clients between two windows; running episodes go on afterwards.

        Where the suite can take no snapshot, they start anew.
        """
        state = self.state_dict()
        try:
            return work([lane.client for lane in self._lanes])
        finally:
            for lane in self._lanes:
                lane.phase = Phase.IDLE
            self.load_state_dict(state)

    def restart(self, index: int) -> EnvClient:
        """Replace the server of client `index`; for who has the clients on loan.

        Raises:
            EnvServerError: if the collector was given no way to.
        """
        if self._restart_client is None:
            raise EnvServerError(f"env server {index} failed and cannot be restarted")
        self._lanes[index].client = self._restart_client(index)
        return self._lanes[index].client

    def _decide(self, lane: Lane, version: int) -> None:
        """One policy call for all slots of a lane, and off they go."""
        started = time.perf_counter()
        seen = lane.observation
        decisions = self._policy.act(
            Observations.of(seen, self._max_steps, lane.history()),
            lane.generator,
            explore=True,
            keep=self._keep,
        )
        self._tally.policy += time.perf_counter() - started
        n, time_index = len(seen), len(lane.window)
        kept = decisions.context if self._keep == "context" else decisions.inputs
        assert kept is not None
        assert decisions.chunk is not None
        self._pending[id(lane)] = TensorDict(
            {
                "stream": torch.from_numpy(lane.streams),
                "time": torch.full((n,), time_index, dtype=torch.int64),
                self._keep: kept,
                "chunk": decisions.chunk,
                "value": torch.as_tensor(decisions.value, dtype=torch.float32),
                "task": torch.tensor([self._tasks.index(task) for task in seen.task]),
                "version": torch.full((n,), version, dtype=torch.int64),
            },
            batch_size=[n],
        )
        lane.submit_step(decisions.actions)

    def _receive(self, lanes: Sequence[Lane], wait: bool) -> None:
        """Take in every answer that has come; wait for the first if there is nothing else to do."""
        asked = [lane for lane in lanes if lane.phase in (Phase.STEPPING, Phase.RESETTING)]
        started = time.perf_counter()
        answered = wait_ready([lane.client for lane in asked], None if wait else 0.0)
        if wait:
            self._tally.waiting += time.perf_counter() - started
        for lane in asked:
            if lane.client in answered:
                self._guarded(lane, partial(self._take, lane))

    def _take(self, lane: Lane) -> None:
        transition = lane.receive()
        if transition is not None:
            self._record(lane, *transition)

    def _record(self, lane: Lane, before: TimeStep, actions: np.ndarray, after: TimeStep) -> None:
        """Complete the lane's open decision with what came of it."""
        row = self._pending.pop(id(lane))
        n = len(after)
        last = len(lane.window) + 1 == self._horizon
        next_value = torch.zeros(n)
        if last or (self._bootstrap_time_limit and after.truncated.any()):
            started = time.perf_counter()
            seen = Observations.of(after, self._max_steps, lane.history())
            values = self._policy.value(seen)
            next_value = torch.as_tensor(values, dtype=torch.float32)
            self._tally.policy += time.perf_counter() - started
        row["reward"] = torch.from_numpy(self._rewards(before, actions, after))
        row["terminated"] = torch.from_numpy(after.terminated.copy())
        row["truncated"] = torch.from_numpy(after.truncated.copy())
        row["success"] = torch.from_numpy(after.success.copy())
        row["window_end"] = torch.full((n,), last, dtype=torch.bool)
        row["next_value"] = next_value
        lane.window.append(row)

    def _rewards(self, before: TimeStep, actions: np.ndarray, after: TimeStep) -> np.ndarray:
        rewards = np.asarray(self._reward(RewardInput(before, actions, after)), np.float32)
        if rewards.shape != (len(after),) or not np.isfinite(rewards).all():
            raise UserError(
                f"the reward function returned {rewards!r}; expected {len(after)} finite numbers, "
                "one for each environment"
            )
        return rewards

    def _guarded(self, lane: Lane, work: Callable[[], None]) -> None:
        """Do the lane's work; if its server fails, replace it and begin the lane's window anew."""
        try:
            work()
        except EnvServerError as error:
            self._replace(lane, error)

    def _state_of(self, lane: Lane) -> dict[str, Any]:
        """The lane's state; of a new server's first episodes, if its server fails meanwhile."""
        while True:
            try:
                return lane.state_dict()
            except EnvServerError as error:
                self._replace(lane, error)

    def _replace(self, lane: Lane, error: EnvServerError) -> None:
        index = self._lanes.index(lane)
        self._tally.dropped_decisions += len(lane.window) * lane.client.num_envs
        self._tally.dropped_episodes += lane.client.num_envs
        self._pending.pop(id(lane), None)
        while True:
            if self._restart_client is None or lane.restarts >= self._max_restarts:
                raise type(error)(
                    f"env server {index} failed once more than env.restarts={self._max_restarts} "
                    f"allows: {error}"
                ) from error
            lane.restarts += 1
            self._tally.restarts += 1
            try:
                lane.client = self._restart_client(index)
                lane.start()
                return
            except EnvServerError as next_error:
                error = next_error

    def _allocated(self, stats: RolloutStats) -> RolloutStats:
        """Allocate for the next window by what ended in this one; `stats` with both."""
        allocation = self._source.allocation
        if allocation is None:
            return stats
        environments = allocation.environments()
        allocation.update(stats.episodes, stats.successes)
        return dataclasses.replace(
            stats, allocation=environments, running_success=allocation.rates()
        )

    def _stats(self, batch: TensorDict) -> RolloutStats:
        finished = [episode for lane in self._lanes for episode in lane.finished]
        episodes = {task: sum(e.task == task for e in finished) for task in self._tasks}
        wins = {task: sum(e.task == task and e.success for e in finished) for task in self._tasks}
        return RolloutStats(
            decisions=batch.shape[0],
            control_steps=sum(lane.control_steps for lane in self._lanes),
            episodes={task: count for task, count in episodes.items() if count},
            successes={task: wins[task] for task, count in episodes.items() if count},
            mean_length=float(np.mean([e.length for e in finished])) if finished else 0.0,
            mean_reward=float(batch["reward"].mean()),
            seconds=time.perf_counter() - self._tally.started,
            seconds_waiting=self._tally.waiting,
            seconds_policy=self._tally.policy,
            dropped_decisions=self._tally.dropped_decisions,
            dropped_episodes=self._tally.dropped_episodes,
            restarts=self._tally.restarts,
        )
