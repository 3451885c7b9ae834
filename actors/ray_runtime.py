"""The run as Ray actors: an env host a node, a learner, and rollout workers if they live apart.

Actors are the plain classes, made remote. Observations go straight from env servers to whoever
acts, never through Ray; batches do, where rollout and learner are processes of their own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from tensordict import TensorDict

from actors.env_host import EnvAccess, EnvServerActor
from actors.evaluation import EvalResult, EvaluationRequest
from actors.learner import Learner
from actors.placement import Place, gpu_share, remote, start_ray
from actors.player import Progress
from actors.process_stats import merge_use
from actors.rollout_stats import RolloutStats, ended, merge_metrics
from actors.rollout_worker import RolloutWorker
from actors.run_model import load_model
from actors.weights import WeightsUpdate
from vlarl.config.schema import RunConfig
from vlarl.timeline import Span, Timeline
from vlarl.training_state import read_state
from vlarl.types import EnvSpec

_CLOSE_SECONDS = 20.0
_POLL_SECONDS = 1.0
"""Between two looks at how far an evaluation is."""


class LearnerActor:
    """A `Learner` in an actor; it acts too if it is given a host. Begins with `start`."""

    def __init__(self) -> None:
        self._opened: Learner | None = None
        self._host: Any | None = None

    def start(
        self,
        config: RunConfig,
        host: Any | None,
        specs: dict[str, EnvSpec] | None,
        checkpoint: Path | None,
    ) -> None:
        """See `Learner`; `host` is an `EnvServerActor`."""
        access = None if host is None else EnvAccess(config.env, _RemoteHost(host))
        self._opened, self._host = Learner(config, access, specs, checkpoint), host

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
        return self._learner.evaluate(request, _noting(self._host))

    def weights(self) -> WeightsUpdate:
        """See `Learner`."""
        return self._learner.weights()

    def record(self) -> None:
        """See `Timeline`."""
        self._learner.timeline.record()

    def recorded(self) -> list[Span]:
        """See `Timeline`."""
        return self._learner.timeline.recorded()

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
        self._host: Any | None = None

    def start(
        self,
        config: RunConfig,
        host: Any,
        share: tuple[int, int],
        number: int,
        checkpoint: Path | None,
    ) -> dict[str, EnvSpec]:
        """See `RolloutWorker`; returns what is simulated, by suite."""
        access = EnvAccess(config.env, _RemoteHost(host), share)
        model = load_model(config, *access.specs.values(), checkpoint=checkpoint)
        self._opened, self._host = RolloutWorker(config, model, access, number), host
        if checkpoint is not None:
            self._opened.load_state_dict(read_state(checkpoint)["workers"][number])
        return access.specs

    @property
    def _worker(self) -> RolloutWorker:
        assert self._opened is not None
        return self._opened

    def set_weights(self, update: WeightsUpdate) -> None:
        """See `RolloutWorker`."""
        self._worker.set_weights(update)

    def collect(self) -> tuple[TensorDict, RolloutStats]:
        """A batch and what it cost, as two objects: the batch goes to the learner unseen."""
        return self._worker.collect()

    def allocate(self, episodes: dict[str, int], successes: dict[str, int]) -> dict[str, float]:
        """See `RolloutWorker`."""
        return self._worker.allocate(episodes, successes)

    def use(self) -> dict[str, float]:
        """See `RolloutWorker`."""
        return self._worker.use()

    def record(self) -> None:
        """See `Timeline`."""
        self._worker.timeline.record()

    def recorded(self) -> list[Span]:
        """See `Timeline`."""
        return self._worker.timeline.recorded()

    def evaluate(self, request: EvaluationRequest) -> EvalResult:
        """See `RolloutWorker`; the host is told how far it is."""
        return self._worker.evaluate(request, _noting(self._host))

    def pause(self) -> None:
        """See `RolloutWorker`."""
        self._worker.pause()

    def state_dict(self) -> dict[str, Any]:
        """See `RolloutWorker`."""
        return self._worker.state_dict()

    def close(self) -> None:
        """See `RolloutWorker`."""
        if self._opened is not None:
            self._opened.close()


class _RemoteHost:
    """A remote `EnvHost` that answers like a local one."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def addresses(self) -> list[str]:
        """See `EnvHost`."""
        found: list[str] = fetch(self._actor.addresses.remote())
        return found

    def restart(self, index: int, suite: str | None = None) -> str:
        """See `EnvHost`."""
        address: str = fetch(self._actor.restart.remote(index, suite))
        return address


def _noting(host: Any) -> Progress:
    """Tells an `EnvServerActor`, without waiting for it, how many episodes were played."""

    def note(done: int, _total: int) -> None:
        host.note_played.remote(done)

    return note


class RayRuntime:
    """Starts Ray and the actors of a run.

    With one rollout worker (the default) it lives in the learner's process and shares its model.
    """

    def __init__(self, config: RunConfig, checkpoint: Path | None = None) -> None:
        places = start_ray(config)
        self._first_node = places[0].node
        self._hosts: dict[str, Any] = {}
        self._learner: Any | None = None
        self._workers: list[Any] = []
        self._timeline = Timeline("runtime")
        try:
            for node in dict.fromkeys(place.node for place in places):
                self._hosts[node] = remote(EnvServerActor, 0, node).remote()
            started = [host.start.remote(config.env) for host in self._hosts.values()]
            if len(places) == 1:
                self._start_together(config, places[0], started, checkpoint)
            else:
                self._start_apart(config, places, started, checkpoint)
        except BaseException:
            self.close()
            raise

    def _start_together(
        self, config: RunConfig, place: Place, hosts: list[Any], checkpoint: Path | None
    ) -> None:
        """One process that acts and learns; it loads while the servers start."""
        gpus = gpu_share(config, place.node, actors=1)
        self._learner = remote(LearnerActor, 1, place.node, gpus).remote()
        fetch(hosts)
        host = self._hosts[place.node]
        fetch(self._learner.start.remote(config, host, None, checkpoint))

    def _start_apart(
        self,
        config: RunConfig,
        places: Sequence[Place],
        hosts: list[Any],
        checkpoint: Path | None,
    ) -> None:
        """Workers in processes of their own, and a learner that only learns."""
        # A node's workers and the learner, wherever it comes to live, must fit its GPUs.
        shares = [gpu_share(config, place.node, place.share[1] + 1) for place in places]
        self._workers = [
            remote(RolloutActor, 1, place.node, gpus).remote()
            for place, gpus in zip(places, shares, strict=True)
        ]
        self._learner = remote(LearnerActor, 1, gpus=min(filter(None, shares), default=0)).remote()
        fetch(hosts)
        started = [
            worker.start.remote(config, self._hosts[place.node], place.share, number, checkpoint)
            for number, (worker, place) in enumerate(zip(self._workers, places, strict=True))
        ]
        specs = fetch(started)[0]
        fetch(self._learner.start.remote(config, None, specs, checkpoint))
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
        started = time.perf_counter()
        self._publish()
        learned["publishing_seconds"] = time.perf_counter() - started
        self._timeline.add("runtime", "publish", started)
        use = fetch([worker.use.remote() for worker in self._workers])
        stats: list[RolloutStats] = [fetch(each) for _, each in collected]
        rates = self._allocate(stats)
        merged = merge_metrics([each.metrics() for each in stats])
        return {**merged, **rates, **learned, **merge_use(use)}

    def record(self) -> None:
        """See `Runtime`."""
        fetch([actor.record.remote() for actor in self._actors()])
        self._timeline.record()

    def recorded(self) -> list[Span]:
        """See `Runtime`."""
        found = self._timeline.recorded()
        for spans in fetch([actor.recorded.remote() for actor in self._actors()]):
            found += spans
        return found

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """See `Runtime`; by one worker, whose slots are the fixed ones."""
        actor = self._workers[0] if self._workers else self._learner
        assert actor is not None
        # An actor that plays answers nobody; its host does.
        host = self._hosts[self._first_node]
        # Whoever does not play would take the processors for a rollout that nobody waits for.
        fetch([host.note_played.remote(0), *[worker.pause.remote() for worker in self._workers]])
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
        # Clients first, then the servers they are connected to.
        for group in (self._actors(), list(self._hosts.values())):
            closing = [actor.close.remote() for actor in group]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        ray.shutdown()

    def _actors(self) -> list[Any]:
        """Everyone but the hosts."""
        return [*self._workers, *([self._learner] if self._learner else [])]

    def _allocate(self, stats: Sequence[RolloutStats]) -> dict[str, float]:
        """Let every worker allocate by what all of them saw; the running success rates after it."""
        if not any(each.allocation for each in stats):
            return {}
        seen = ended(stats)
        rates = fetch([worker.allocate.remote(*seen) for worker in self._workers])[0]
        return {f"running_success/{task}": rate for task, rate in rates.items()}

    def _publish(self) -> None:
        """Give every worker the learner's weights."""
        assert self._learner is not None
        weights = self._learner.weights.remote()
        fetch([worker.set_weights.remote(weights) for worker in self._workers])


def fetch(reference: Any) -> Any:
    """The value of a Ray reference, or of a list of them.

    Raises:
        Exception: what the remote call raised, as itself; RuntimeError if its actor died.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except RayActorError as error:
        raise RuntimeError(f"a process of the run died: {error}") from error
