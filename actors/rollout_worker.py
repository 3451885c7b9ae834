"""Acts: the collector, evaluation and reward of one worker, around one model.

A plain class. It shares the learner's model when both live in one process; a worker of its own
process gets its weights as a `WeightsUpdate`. With `rollout.mode: async` its rollout goes on in a
thread, between the batches that are asked for, until an evaluation or a checkpoint pauses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDict

from actors.acting import policies_of, refuse_mode_dependence
from actors.arena import Arena, tasks_played
from actors.batching import Batching
from actors.env_host import EnvAccess
from actors.episodes import Episodes, EpisodeSource
from actors.evaluation import EvalResult, EvaluationRequest, evaluate_arenas
from actors.fair_lock import FairLock
from actors.player import Progress
from actors.process_stats import ServerCounters, process_use
from actors.rollout import RolloutCollector
from actors.rollout_stats import RolloutStats
from actors.stream import RolloutStream
from actors.suite_episodes import SuiteEpisodes
from actors.task_allocation import TaskAllocation
from actors.weights import Bytes, WeightsUpdate, apply_weights
from envservers.task_groups import expand
from vlarl.config.process_schema import EnvConfig
from vlarl.config.schema import RunConfig
from vlarl.env_protocol import EnvClient
from vlarl.errors import ConfigError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.policy import Policy
from vlarl.rewards import load_reward
from vlarl.timeline import Timeline
from vlarl.types import EnvSpec

logger = logging.getLogger(__name__)


class RolloutWorker:
    """One policy on the clients of one `EnvAccess`.

    Args:
        config: of the run.
        model: acts with whatever weights it holds.
        access: to env servers; closed with the worker.
        number: of the worker among several; each draws its own episodes and noise.
        timeline: of the process; None makes one of its own.
        version: of the model's weights, where a learner of this process changes them; None: they
            are what `set_weights` says.

    Attributes:
        weights_lock: held while the policy is called; a learner of this process holds it while it
            changes weights.

    Raises:
        CheckpointError: if the model's contract does not fit the environments.
        UserError: for a mistake in the reward.
    """

    def __init__(
        self,
        config: RunConfig,
        model: QwenVLA,
        access: EnvAccess,
        number: int = 0,
        timeline: Timeline | None = None,
        version: Callable[[], int] | None = None,
    ) -> None:
        self.timeline = timeline or Timeline(f"worker {number}")
        self._counters = ServerCounters()
        self._config = config
        self._model = model
        self._access = access
        self._published = 0
        self._collecting = False
        self.weights_lock = FairLock()
        for client in access.clients:
            model.contract.check(client.spec)
        in_turn = config.rollout.mode == "sync"
        shared = version is not None and not in_turn
        if shared:
            refuse_mode_dependence(model)
        self._groups, specs = config.env.groups, access.specs
        self._policies = policies_of(config, model, specs, shared)
        for suite, spec in specs.items():
            _check_tasks(self._groups[suite], spec, suite)
        self._collector = RolloutCollector(
            access.clients,
            [self._policies[suite] for suite in access.suites],
            load_reward(config.reward),
            _episodes(config, access, (config.seed, number)),
            config.decisions_per_stream,
            keep="inputs" if trains_backbone(config) else "context",
            seed=(config.seed, number),
            restart=access.restart,
            max_restarts=config.env.restarts,
            bootstrap_time_limit=config.ppo.bootstrap_time_limit,
            batching=batching_of(config, access),
            weights_lock=self.weights_lock,
            timeline=self.timeline,
            suites=access.suites,
            alone=config.rollout.workers == 1,
            move=self._move if config.env.allocation.suites else None,
            in_turn=in_turn,
        )
        rollout = config.rollout
        self._version = version or (lambda: self._published)
        self._stream = (
            None
            if in_turn
            else RolloutStream(
                self._collector,
                self._version,
                rollout.max_staleness,
                rollout.threads,
                self._counters,
            )
        )

    def set_weights(
        self, update: WeightsUpdate, get: Callable[[Sequence[Any]], Sequence[Bytes]]
    ) -> None:
        """Act with these weights from the next decision on; see `apply_weights`."""
        with self.weights_lock:
            apply_weights(self._model, update, get)
            self._published = update.version

    def collect(self) -> tuple[TensorDict, RolloutStats]:
        """The decisions of one iteration; with `rollout.mode: async`, what has come of them."""
        if self._stream is not None:
            return self._stream.take()
        with _threads(self._config.rollout.threads):
            try:
                self._collecting = True
                return self._collector.collect(self._version())
            finally:
                self._collecting = False

    def at_stake(self) -> int:
        """Decisions that nobody has yet, lost if this process dies; asked from another thread."""
        if self._stream is not None:
            return self._collector.window_decisions + self._stream.waiting_decisions()
        return self._collector.window_decisions if self._collecting else 0

    def allocate(
        self, episodes: Mapping[str, int], successes: Mapping[str, int]
    ) -> dict[str, float]:
        """Allocate for the next window by all workers' episodes; see `Allocator`."""
        return self._collector.allocate(episodes, successes)

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """Deterministic evaluation on the training environments, between two decisions."""
        self.pause()
        if self._stream is not None:
            self._counters.ask(self._collector.unoccupied())
        with _threads(self._config.rollout.threads):
            result = self._collector.lend(
                lambda clients: evaluate_arenas(
                    self._arenas(clients, request),
                    request,
                    restart=self._collector.restart,
                    max_restarts=self._config.env.restarts,
                    progress=progress,
                )
            )
        # What servers did for it is no part of the next window's.
        self._counters.skip(self._collector.unoccupied())
        return result

    def servers_use(self) -> dict[str, float]:
        """What the env servers did and use, see `ServerCounters`; between two windows.

        Where rollout goes on all the time, its thread alone may speak to servers: what it was told.
        """
        if self._stream is None:
            self._counters.ask(self._collector.unoccupied())
        return self._counters.told()

    def use(self) -> dict[str, float]:
        """`servers_use`, and that of this process, if it is the worker's own."""
        return {**process_use("worker", self._model.device), **self.servers_use()}

    def _arenas(self, clients: list[EnvClient], request: EvaluationRequest) -> list[Arena]:
        """The clients by suite."""
        found = []
        for suite, policy in self._policies.items():
            of_suite = enumerate(zip(clients, self._collector.suites, strict=True))
            own = {number: client for number, (client, name) in of_suite if name == suite}
            spec = next(iter(own.values())).spec
            asked = expand(spec.suite, request.tasks)
            tasks = asked or tasks_played(self._groups[suite], spec)
            found.append(Arena(policy, own, tasks, suite))
        return found

    def _move(self, index: int, suite: str) -> tuple[EnvClient, Policy]:
        """Have a server simulate another suite."""
        return self._access.restart(index, suite), self._policies[suite]

    def state_dict(self) -> dict[str, Any]:
        """What the next window depends on, besides the weights.

        Windows that have begun, and decisions that wait to be learned from, are not part of it.
        """
        self.pause()
        return self._collector.state_dict()

    def position(self) -> dict[str, Any]:
        """The state without the running episodes: for whoever takes this worker's place."""
        return self._collector.position()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, before the first window."""
        self._collector.load_state_dict(state)
        if any(state["counters"]) and not any(len(lane["environments"]) for lane in state["lanes"]):
            logger.warning("no running episodes were kept: each environment begins its next one")

    def pause(self) -> None:
        """Rest until the next `collect`; nothing to do where rollout and learning take turns."""
        if self._stream is not None:
            self._stream.pause()

    def close(self) -> None:
        """Stop, and disconnect from the servers; safe to call twice."""
        if self._stream is not None:
            self._stream.close()
        self._access.close()


def _episodes(config: RunConfig, access: EnvAccess, seed: tuple[int, int]) -> Episodes:
    """Where episodes come from, with the tasks' allocation if there is one."""
    groups, first = config.env.groups, 0
    streams = []
    for client in access.clients:
        streams.append(range(first, first + client.num_envs))
        first += client.num_envs
    tasks = {suite: tasks_played(groups[suite], spec) for suite, spec in access.specs.items()}
    settings = config.env.allocation
    if config.env.suites:
        return SuiteEpisodes(tasks, seed, access.suites, streams, settings)
    ((_, own),) = tasks.items()
    uniform = settings.kind == "uniform"
    allocation = None if uniform else TaskAllocation(settings, own, range(first))
    return EpisodeSource(own, seed, first, allocation=allocation)


def batching_of(config: RunConfig, access: EnvAccess) -> Batching:
    """How this worker's servers share calls of the policy.

    Raises:
        ConfigError: if no two of them fit: servers started elsewhere have the size they have.
    """
    bound = config.rollout.batch_environments
    sizes = sorted(client.num_envs for client in access.clients)
    if bound and sum(sizes[:2]) > bound:
        raise ConfigError(
            f"rollout.batch_environments = {bound}: joins no two env servers; they have "
            f"{', '.join(map(str, sizes))} environments. Use {sum(sizes[:2])} or more, or 0."
        )
    return Batching(bound, config.rollout.batch_deadline_seconds)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch threads while acting: the other cores are simulating at the same time.

    More threads than free cores make each small matrix product wait for the slowest of them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trains_backbone(config: RunConfig) -> bool:
    """Whether the learner recomputes the backbone, so that its inputs must be kept."""
    return bool({"vision", "language", "lora"} & config.ppo.optimizer.learning_rates.keys())


def _check_tasks(config: EnvConfig, spec: EnvSpec, suite: str) -> None:
    """Servers that were started elsewhere have the tasks they were given there."""
    key = f"env.suites.{suite}.tasks" if suite else "env.tasks"
    for task in expand(spec.suite, config.tasks):
        if task not in spec.tasks:
            raise ConfigError(
                f"{key} = {list(config.tasks)}: {task!r} is no task of the environments; "
                f"they have {', '.join(spec.tasks)}"
            )
