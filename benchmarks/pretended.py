"""Environments and a policy of given durations, in real time or in simulated time.

What rollout costs beside them is what `bench_rollout.py` and `bench_scale.py` measure. Simulated
time is a `VirtualClock`: the collector, its lanes and its statistics are the real ones, but nobody
sleeps, so that thousands of environments fit into one process.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict

from envservers.counting import ACTION_CHANNELS, CountingSuite, spread_of
from vlarl.env_protocol import EnvClient
from vlarl.noise import Generators
from vlarl.observations import Observations
from vlarl.policy import Decisions
from vlarl.rewards import RewardInput
from vlarl.types import EpisodeStart, TimeStep

CHUNK = 8
"""Control steps of a decision."""


def no_reward(seen: RewardInput) -> NDArray[np.float32]:
    """[n] zeros."""
    return np.zeros(len(seen.after), np.float32)


class PretendedPolicy:
    """Decides in `call_seconds + n * env_seconds`, as a GPU would: no core is used meanwhile.

    Args:
        sleep: lets time pass.
        call_seconds: of every call.
        env_seconds: of each environment in it.
    """

    past_frames = None

    def __init__(
        self, sleep: Callable[[float], None], call_seconds: float, env_seconds: float
    ) -> None:
        self._sleep = sleep
        self._call_seconds, self._env_seconds = call_seconds, env_seconds

    def act(
        self,
        observations: Observations,
        generator: Generators | None,
        explore: bool,
        keep: str = "context",
    ) -> Decisions:
        """See `Policy`."""
        n = len(observations)
        self._sleep(self._call_seconds + n * self._env_seconds)
        nothing = TensorDict({"hidden": torch.zeros(n, 1)}, batch_size=[n])
        return Decisions(
            actions=np.zeros((n, CHUNK, ACTION_CHANNELS), np.float32),
            value=torch.zeros(n),
            chunk=nothing.clone(),
            context=nothing,
        )

    def value(self, observations: Observations) -> torch.Tensor:
        """See `Policy`; of no duration."""
        return torch.zeros(len(observations))


class VirtualClock:
    """A clock that stands still unless something takes time."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """See `Clock`."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def wait(self, clients: Sequence[EnvClient], seconds: float) -> list[EnvClient]:
        """See `Clock`; the clients are `PretendedClient`s."""
        ready = [client for client in clients if client.ready()]
        if ready or not seconds:
            return ready
        moments = [client.ready_at for client in clients if isinstance(client, PretendedClient)]
        until = min([self._now + seconds, *moments])
        if math.isinf(until):
            return []
        self._now = max(self._now, until)
        return [client for client in clients if client.ready()]


@dataclass(frozen=True)
class Costs:
    """Seconds that answers take beside the simulation that is pretended."""

    server: float = 0.0
    """From the request to the answer, of an environment server."""
    answer: float = 0.0
    """Of the collector, for each answer that it takes in and what follows from it."""


class PretendedClient:
    """A counting suite whose answers come after a while of simulated time.

    Args:
        clock: of the simulation.
        num_envs: environments.
        chunk_seconds: of a step; resets take none.
        slow_tail: as of `CountingSuite`.
        costs: beside that.
        seed: of the durations.
    """

    def __init__(
        self,
        clock: VirtualClock,
        num_envs: int,
        chunk_seconds: float,
        slow_tail: float,
        costs: Costs,
        seed: int,
    ) -> None:
        self._suite = CountingSuite(num_envs, episode_length=1000)
        self.spec, self.num_envs = self._suite.spec, num_envs
        self._clock, self._costs = clock, costs
        self._chunk_seconds, self._spread = chunk_seconds, spread_of(slow_tail)
        self._luck = np.random.default_rng(seed)
        self._answers: deque[tuple[float, TimeStep]] = deque()
        self._free_at = 0.0

    @property
    def ready_at(self) -> float:
        """When the next answer comes; infinite without a request."""
        return self._answers[0][0] if self._answers else math.inf

    def ready(self) -> bool:
        """See `EnvClient`."""
        return self.ready_at <= self._clock.now()

    def submit_reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """See `EnvClient`."""
        self._answer(0.0, self._suite.reset(env_ids, starts))

    def submit_step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> None:
        """See `EnvClient`."""
        slowness = math.exp(self._spread * self._luck.standard_normal())
        self._answer(slowness * self._chunk_seconds, self._suite.step(env_ids, actions))

    def receive(self, timeout: float | None = None) -> TimeStep:
        """See `EnvClient`; takes the collector's time."""
        self._clock.sleep(self._costs.answer)
        return self._answers.popleft()[1]

    def _answer(self, seconds: float, answer: TimeStep) -> None:
        """One request after the other."""
        begin = max(self._clock.now(), self._free_at)
        self._free_at = begin + seconds + self._costs.server
        self._answers.append((self._free_at, answer))
