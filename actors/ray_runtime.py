"""The run as Ray actors: env hosts, a learner, and rollout workers if they live apart.

Actors are the plain classes, made remote. Observations go straight from env servers to whoever
acts, never through Ray; batches do, where rollout and learner are processes of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from tensordict import TensorDict

from actors.env_host import EnvServerActor
from actors.env_link import EnvLink, fetch
from actors.evaluation import EvalResult, EvaluationRequest
from actors.learner import Learner
from actors.placement import start_ray
from actors.player import Progress
from actors.rollout_stats import merge_metrics
from actors.rollout_worker import RolloutWorker, load_model
from actors.weights import WeightsUpdate
from envservers.keys import new_key
from vlarl.config.schema import RunConfig
from vlarl.training_state import read_state
from vlarl.types import EnvSpec

_CLOSE_SECONDS = 20.0
_POLL_SECONDS = 1.0
"""Between two looks at how far an evaluation is."""


class LearnerActor:
    """A `Learner` in an actor; it acts too if it is given env servers. Begins with `start`."""

    def __init__(self) -> None:
        self._opened: Learner | None = None
        self._link: EnvLink | None = None

    def start(
        self, config: RunConfig, link: EnvLink | None, spec: EnvSpec | None, checkpoint: Path | None
    ) -> EnvSpec:
        """See `Learner`. Returns what is simulated."""
        access = None if link is None else link.open(config.env)
        self._opened, self._link = Learner(config, access, spec, checkpoint), link
        found = spec if access is None else access.clients[0].spec
        assert found is not None
        return found

    @property
    def _learner(self) -> Learner:
        assert self._opened is not None
        return self._opened

    def iterate(self) -> dict[str, float]:
        """See `Learner`."""
        return self._learner.iterate()

    def update(self, *batches: TensorDict) -> dict[str, float]:
        """See `Learner`."""
        return self._learner.update(batches)

    def evaluate(self, request: EvaluationRequest) -> EvalResult:
        """See `RolloutWorker`; the host is told how far it is."""
        assert self._link is not None
        return self._learner.evaluate(request, self._link.noting())

    def weights(self) -> WeightsUpdate:
        """See `Learner`."""
        return self._learner.weights(ray.put)

    def save(self, folder: Path, *workers: dict[str, Any]) -> None:
        """See `Learner`."""
        self._learner.save(folder, workers)

    def close(self) -> None:
        """See `Learner`."""
        if self._opened is not None:
            self._opened.close()


class RolloutActor:
    """A `RolloutWorker` in an actor, with a model of its own. Begins with `start`."""

    def __init__(self) -> None:
        self._opened: RolloutWorker | None = None
        self._link: EnvLink | None = None

    def start(
        self, config: RunConfig, link: EnvLink, number: int, checkpoint: Path | None
    ) -> EnvSpec:
        """See `RolloutWorker`; returns what is simulated."""
        access = link.open(config.env)
        spec = access.clients[0].spec
        model = load_model(config, spec, checkpoint)
        self._opened, self._link = RolloutWorker(config, model, access, number), link
        if checkpoint is not None:
            self._opened.load_state_dict(read_state(checkpoint)["workers"][number])
        return spec

    @property
    def _worker(self) -> RolloutWorker:
        assert self._opened is not None
        return self._opened

    def set_weights(self, update: WeightsUpdate) -> None:
        """See `RolloutWorker`."""
        self._worker.set_weights(update, lambda shards: ray.get(list(shards)))

    def collect(self) -> tuple[TensorDict, dict[str, float]]:
        """A batch and its metrics, as two objects: the batch goes to the learner unseen."""
        batch, stats = self._worker.collect()
        return batch, stats.metrics()

    def evaluate(self, request: EvaluationRequest) -> EvalResult:
        """See `RolloutWorker`; the host is told how far it is."""
        assert self._link is not None
        return self._worker.evaluate(request, self._link.noting())

    def state_dict(self) -> dict[str, Any]:
        """See `RolloutWorker`."""
        return self._worker.state_dict()

    def close(self) -> None:
        """See `RolloutWorker`."""
        if self._opened is not None:
            self._opened.close()


class RayRuntime:
    """Starts Ray and the actors of a run.

    With one rollout worker (the default) it lives in the learner's process and shares its model,
    unless `cluster.strategy` has them on different nodes.
    """

    def __init__(self, config: RunConfig, checkpoint: Path | None = None) -> None:
        self._placed = start_ray(config)
        self._hosts: list[Any] = []
        self._learner: Any | None = None
        self._workers: list[Any] = []
        try:
            started = self._start_hosts(config)
            if self._placed.plan.workers:
                self._start_apart(config, started, checkpoint)
            else:
                self._start_together(config, started, checkpoint)
        except BaseException:
            self.close()
            raise

    def _start_hosts(self, config: RunConfig) -> list[Any]:
        """Have every env host start its servers; they listen to other nodes with a key alone."""
        plan = self._placed.plan
        self._hosts = [self._placed.remote(EnvServerActor, seat).remote() for seat in plan.hosts]
        key = new_key() if plan.hosts_apart else None
        self._links = [
            EnvLink(tuple(self._hosts[number] for number in each.hosts), each.share, key)
            for each in plan.shares
        ]
        addresses = [self._placed.addresses[seat.bundle] for seat in plan.hosts]
        return [
            host.start.remote(config.env, address if key else None, key)
            for host, address in zip(self._hosts, addresses, strict=True)
        ]

    def _start_together(self, config: RunConfig, hosts: list[Any], checkpoint: Path | None) -> None:
        """One process that acts and learns; it loads while the servers start."""
        self._learner = self._placed.remote(LearnerActor, self._placed.plan.learner).remote()
        fetch(hosts)
        (link,) = self._links
        self.spec: EnvSpec = fetch(self._learner.start.remote(config, link, None, checkpoint))

    def _start_apart(self, config: RunConfig, hosts: list[Any], checkpoint: Path | None) -> None:
        """Workers in processes of their own, and a learner that only learns."""
        plan = self._placed.plan
        self._workers = [self._placed.remote(RolloutActor, seat).remote() for seat in plan.workers]
        self._learner = self._placed.remote(LearnerActor, plan.learner).remote()
        fetch(hosts)
        specs = [
            worker.start.remote(config, link, number, checkpoint)
            for number, (worker, link) in enumerate(zip(self._workers, self._links, strict=True))
        ]
        self.spec = fetch(specs)[0]
        fetch(self._learner.start.remote(config, None, self.spec, checkpoint))
        self._publish()

    def iterate(self) -> dict[str, float]:
        """See `Runtime`."""
        assert self._learner is not None
        if not self._workers:
            metrics: dict[str, float] = fetch(self._learner.iterate.remote())
            return metrics
        collected = [worker.collect.options(num_returns=2).remote() for worker in self._workers]
        update = self._learner.update.remote(*[batch for batch, _ in collected])
        learned = fetch(update)
        self._publish()
        return {**merge_metrics([fetch(stats) for _, stats in collected]), **learned}

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """See `Runtime`; by one worker, whose slots are the fixed ones."""
        actor = self._workers[0] if self._workers else self._learner
        assert actor is not None
        # An actor that plays answers nobody; its host does.
        host = self._links[0].hosts[0]
        fetch(host.note_played.remote(0))
        playing = actor.evaluate.remote(request)
        while progress is not None and not ray.wait([playing], timeout=_POLL_SECONDS)[0]:
            progress(fetch(host.played.remote()), request.episodes)
        result: EvalResult = fetch(playing)
        if progress is not None:
            progress(request.episodes, request.episodes)
        return result

    def save(self, folder: Path) -> None:
        """See `Runtime`; the learner's node must see this folder."""
        assert self._learner is not None
        states = [worker.state_dict.remote() for worker in self._workers]
        fetch(self._learner.save.remote(folder.absolute(), *states))

    def close(self) -> None:
        """See `Runtime`."""
        if not ray.is_initialized():
            return
        actors = [*self._workers, *([self._learner] if self._learner else [])]
        # Clients first, then the servers they are connected to.
        for group in (actors, self._hosts):
            closing = [actor.close.remote() for actor in group]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        ray.shutdown()

    def _publish(self) -> None:
        """Give every worker the learner's weights, which are put once."""
        assert self._learner is not None
        weights = self._learner.weights.remote()
        fetch([worker.set_weights.remote(weights) for worker in self._workers])
