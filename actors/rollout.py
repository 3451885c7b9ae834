"""Steps environments with a policy: simulation of some overlaps acting on others.

A plain class, with or without Ray. `collect` makes an on-policy batch: every stream gives exactly
`T` decisions. Or `turn` after `turn` goes on without end, and segments are taken as they fill
(`actors.stream`). A batch for the policy is one client's slots, so that shapes are fixed and a run
can be repeated, unless `Batching` joins several. What a decision is worth (returns, advantages) is
the learner's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from tensordict import TensorDict

from actors.allocating import Allocator, Move
from actors.arena import named
from actors.batching import Batching, choose
from actors.clock import Clock, WallClock
from actors.decision_rows import checked_rewards, completed, opened
from actors.episodes import Episodes
from actors.lane import Lane, Phase
from actors.resuming import fits
from actors.rollout_stats import RolloutStats, Tally, summarize
from actors.segment import Segment, segment_of
from vlarl.batch import validate
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvServerError
from vlarl.mixed_rows import joined
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.rewards import RewardFunction
from vlarl.timeline import Timeline
from vlarl.types import TimeStep

T = TypeVar("T")
_ASKED = {Phase.STEPPING: "chunk", Phase.RESETTING: "reset"}
"""What a lane waits for, as the timeline says it."""
Restart = Callable[[int], EnvClient]
"""Replaces the server behind the client of this number and returns a client of the new one."""


class RolloutCollector:
    """Steps all clients' environments with a policy and returns what happened.

    Args:
        clients: their slots, in order, are the streams.
        policy: acts with the weights it holds at the time; one for each client, or for all.
        reward: called once for each client's step, in simulator units.
        source: of episodes; one stream for each slot.
        decisions_per_stream: `T`.
        keep: `context` (hidden states, for a frozen backbone) or `inputs` (when it trains).
        seed: of the exploration noise.
        restart: called for a client whose server failed; None makes a failure final.
        max_restarts: for each client, over the life of the collector.
        bootstrap_time_limit: also value the final observation of truncated episodes.
        batching: which clients share a call of the policy.
        weights_lock: held while the policy is called; for who changes its weights meanwhile.
        timeline: told what is done when.
        suites: name of each client's suite, where the run has several.
        alone: see `Allocator`.
        move: likewise.
        in_turn: likewise.
        clock: by which all this goes; None: the wall's.
    """

    def __init__(
        self,
        clients: Sequence[EnvClient],
        policy: Policy | Sequence[Policy],
        reward: RewardFunction,
        source: Episodes,
        decisions_per_stream: int,
        *,
        keep: str = "context",
        seed: Sequence[int] = (0,),
        restart: Restart | None = None,
        max_restarts: int = 3,
        bootstrap_time_limit: bool = False,
        batching: Batching | None = None,
        weights_lock: AbstractContextManager[Any] | None = None,
        timeline: Timeline | None = None,
        suites: Sequence[str] = (),
        alone: bool = True,
        move: Move | None = None,
        in_turn: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or WallClock()
        self._lanes: list[Lane] = []
        first = 0
        policies = policy if isinstance(policy, Sequence) else [policy] * len(clients)
        suites = suites or [""] * len(clients)
        for client, own, suite in zip(clients, policies, suites, strict=True):
            streams = np.arange(first, first + client.num_envs)
            lane = Lane(client, streams, source, [*seed, first], own, suite, self._clock.now)
            self._lanes.append(lane)
            first += client.num_envs
        self._reward = reward
        self._source = source
        self._horizon = decisions_per_stream
        self._keep = keep
        self._restart_client = restart
        self._max_restarts = max_restarts
        self._bootstrap_time_limit = bootstrap_time_limit
        self._allocator = Allocator(source, self._lanes, move, alone, in_turn)
        every = [named(lane.suite, task) for lane in self._lanes for task in lane.client.spec.tasks]
        self._tasks = tuple(dict.fromkeys(every))
        self._batching = batching or Batching()
        self._weights_lock = weights_lock or nullcontext()
        self._timeline = timeline or Timeline("worker")
        self._tally = Tally()
        self._pending: dict[int, TensorDict] = {}

    @property
    def suites(self) -> list[str]:
        """Of the clients, as they are now."""
        return [lane.suite for lane in self._lanes]

    @property
    def clients(self) -> list[EnvClient]:
        """As they are now: a failed one was replaced."""
        return [lane.client for lane in self._lanes]

    @property
    def decisions(self) -> int:
        """Of one iteration: `T` of every stream."""
        return self._horizon * sum(len(lane.streams) for lane in self._lanes)

    @property
    def window_decisions(self) -> int:
        """That the lanes have of the windows at hand; may be asked from another thread."""
        return sum(len(lane.window) * len(lane.streams) for lane in self._lanes)

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
        started = self._clock.now()
        for lane in self._lanes:
            self._guarded(lane, lane.begin_window)
            self._follow(lane)
        while unfinished := [lane for lane in self._lanes if len(lane.window) < self._horizon]:
            self._turn(unfinished, lambda: version)
        segments = [segment_of(*numbered) for numbered in enumerate(self._lanes)]
        batch = joined([segment.rows for segment in segments])
        validate(batch)
        self._timeline.add("worker", "window", started)
        # What fails between two windows is counted in the next.
        tally, self._tally = self._tally, Tally()
        return batch, self.stats(segments, tally, self._clock.now() - started)

    def begin(self) -> None:
        """Start what does not run yet, to go on by `turn`; windows that had begun go on."""
        for lane in self._lanes:
            if lane.phase is Phase.IDLE:
                self._tally.dropped_decisions += len(lane.window) * len(lane.streams)
                self._guarded(lane, lane.start)

    def turn(self, version: Callable[[], int], seconds: float) -> None:
        """Call the policy once for who is ready, and take in what has been answered.

        Args:
            version: of the policy's weights; asked, as the policy is, with the lock held.
            seconds: to wait at most if nobody is ready.

        Raises:
            EnvServerError: as `collect`.
            UserError: as `collect`.
        """
        self._turn(self._lanes, version, seconds)

    def settle(self) -> None:
        """Wait for every answer that was asked for, and ask for no more decisions."""
        while any(lane.phase in (Phase.STEPPING, Phase.RESETTING) for lane in self._lanes):
            self._receive(self._lanes, math.inf)

    def take_segments(self) -> tuple[list[Segment], Tally]:
        """Full windows, whose lanes begin their next, and what was counted since the last call."""
        segments = []
        for number, lane in enumerate(self._lanes):
            if len(lane.window) == self._horizon:
                segments.append(segment_of(number, lane))
                lane.begin_window()
        tally, self._tally = self._tally, Tally()
        return segments, tally

    def move_due(self) -> None:
        """Between two turns: servers that are to simulate another suite do, once they can."""
        for number in self._allocator.move_due():
            lane = self._lanes[number]
            self._timeline.close(self._server(lane))
            self._guarded(lane, lane.start)
            self._follow(lane)

    def stats(self, segments: Sequence[Segment], tally: Tally, seconds: float) -> RolloutStats:
        """What segments showed and cost; what comes next is allocated by it."""
        bound = self._batching.environments
        return self._allocator.after(summarize(segments, tally, self._tasks, seconds, bound))

    def allocate(
        self, episodes: Mapping[str, int], successes: Mapping[str, int]
    ) -> dict[str, float]:
        """As `Allocator.allocate`."""
        return self._allocator.allocate(episodes, successes)

    def state_dict(self) -> dict[str, Any]:
        """Episodes, environments, noise: what makes the next window what it will be."""
        lanes = [self._state_of(lane) for lane in self._lanes]
        # No lane waits for anything now.
        for lane in self._lanes:
            self._timeline.close(self._server(lane))
        return {**self._allocator.state_dict(), "lanes": lanes}

    def position(self) -> dict[str, Any]:
        """A `state_dict` without the environments: whoever loads it begins new episodes."""
        return {**self._allocator.state_dict(), "lanes": [lane.position() for lane in self._lanes]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, before the first window.

        Raises:
            UserError: if the run had other servers, environments or suites.
        """
        fits(state, len(self._source.counters), self.suites, self._allocator.movable)
        self._allocator.move(dict(enumerate(state.get("suites", self.suites))))
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

    def unoccupied(self) -> list[tuple[int, EnvClient]]:
        """Number and client of the servers that have nothing to do; only between two windows."""
        return [
            (number, lane.client)
            for number, lane in enumerate(self._lanes)
            if lane.phase is not Phase.RESETTING or lane.client.ready()
        ]

    def _turn(
        self, lanes: Sequence[Lane], version: Callable[[], int], seconds: float = math.inf
    ) -> None:
        """`turn` among some of the lanes."""
        chosen, left = choose(lanes, self._batching, self._clock.now())
        if chosen:
            self._decide(chosen, version)
        self._receive(lanes, min(left, seconds))

    def _decide(self, lanes: Sequence[Lane], version: Callable[[], int]) -> None:
        """One policy call for all slots of some lanes with the same policy, and off they go."""
        seen = [lane.shown(lane.observation) for lane in lanes]
        alone = len(lanes) == 1
        with self._weights_lock:
            started = self._clock.now()
            made_by = version()
            decisions = lanes[0].policy.act(
                seen[0] if alone else Observations.joined(seen),
                lanes[0].generator
                if alone
                else [(lane.generator, len(lane.streams)) for lane in lanes],
                explore=True,
                keep=self._keep,
            )
            self._tally.policy += self._clock.now() - started
            self._timeline.add("worker", "policy", started)
        self._tally.calls += 1
        first = 0
        for lane in lanes:
            rows = slice(first, first + len(lane.streams))
            self._pending[id(lane)] = opened(
                lane, decisions, rows, self._keep, self._tasks, made_by
            )
            self._timeline.open(self._server(lane), _ASKED[Phase.STEPPING])
            self._guarded(lane, partial(lane.submit_step, decisions.actions[rows]))
            first = rows.stop
        self._tally.acted_for += first

    def _receive(self, lanes: Iterable[Lane], seconds: float) -> None:
        """Take in every answer that has come; wait up to `seconds` for the first of them."""
        asked = [lane for lane in lanes if lane.phase in (Phase.STEPPING, Phase.RESETTING)]
        started = self._clock.now()
        answered = self._clock.wait([lane.client for lane in asked], seconds)
        if seconds != 0.0:
            causes = {lane.phase for lane in asked if lane.client in answered}
            cause = "simulation" if Phase.STEPPING in causes else "resets"
            self._tally.waited(self._clock.now() - started, cause)
            self._timeline.add("worker", f"wait for {cause}", started)
        for lane in asked:
            if lane.client in answered:
                self._guarded(lane, partial(self._take, lane))

    def _take(self, lane: Lane) -> None:
        transition = lane.receive()
        self._timeline.close(self._server(lane))
        self._follow(lane)
        if transition is not None:
            self._record(lane, *transition)

    def _server(self, lane: Lane) -> str:
        """The track of the lane's server."""
        return f"env server {self._lanes.index(lane)}"

    def _follow(self, lane: Lane) -> None:
        """Show what the lane waits for from now on."""
        if lane.phase in _ASKED:
            self._timeline.open(self._server(lane), _ASKED[lane.phase])

    def _record(self, lane: Lane, before: TimeStep, actions: np.ndarray, after: TimeStep) -> None:
        """Complete the lane's open decision with what came of it."""
        row = self._pending.pop(id(lane))
        last = len(lane.window) + 1 == self._horizon
        next_value = torch.zeros(len(after))
        if last or (self._bootstrap_time_limit and after.truncated.any()):
            seen = lane.shown(after)
            with self._weights_lock:
                started = self._clock.now()
                values = lane.policy.value(seen)
                self._tally.policy += self._clock.now() - started
                self._timeline.add("worker", "value", started)
            next_value = torch.as_tensor(values, dtype=torch.float32)
        rewards = checked_rewards(self._reward, before, actions, after)
        lane.window.append(completed(row, after, rewards, next_value, last))

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
        self._timeline.close(self._server(lane))
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
                break
            except EnvServerError as next_error:
                error = next_error
        self._follow(lane)
