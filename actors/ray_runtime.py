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
from torch.distributed import TCPStore

from actors.env_host import EnvAccess, EnvServerActor
from actors.evaluation import EvalResult, EvaluationRequest
from actors.learner import Learner
from actors.learner_group import Address, join, leave, listen, reach
from actors.placement import Place, gpu_share, learner_share, remote, start_ray
from actors.player import Progress
from actors.process_stats import merge_use
from actors.rollout_stats import merge_metrics
from actors.rollout_worker import RolloutWorker, load_model
from actors.weights import WeightsUpdate
from vlarl.config.schema import RunConfig
from vlarl.timeline import Span, Timeline
from vlarl.training_state import read_state
from vlarl.types import EnvSpec

_CLOSE_SECONDS = 20.0
_GRACE_SECONDS = 5.0
"""In which the others of a group fail as well, or turn out to have died."""
_POLL_SECONDS = 1.0
"""Between two looks at how far an evaluation is."""


class LearnerActor:
    """A `Learner` in an actor; it acts too if it is given a host. Begins with `start`."""

    def __init__(self) -> None:
        self._opened: Learner | None = None
        self._host: Any | None = None
        self._store: TCPStore | None = None

    def listen(self, world: int) -> Address:
        """As the first of several learners, see `learner_group`."""
        self._store, address = listen(world, ray.util.get_node_ip_address())
        return address

    def join(self, rank: int, world: int, address: Address) -> None:
        """As `rank` of several learners, see `learner_group`; before `start`."""
        join(rank, world, reach(world, address) if self._store is None else self._store)

    def start(
        self, config: RunConfig, host: Any | None, spec: EnvSpec | None, checkpoint: Path | None
    ) -> EnvSpec:
        """See `Learner`; `host` is an `EnvServerActor`. Returns what is simulated."""
        access = None if host is None else EnvAccess(config.env, _RemoteHost(host))
        self._opened, self._host = Learner(config, access, spec, checkpoint), host
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
        return self._learner.evaluate(request, _noting(self._host))

    def weights(self) -> tuple[WeightsUpdate, int]:
        """See `Learner`; and their version as an object of its own, for those who only wait."""
        update = self._learner.weights()
        return update, update.version

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
        leave()
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
    ) -> EnvSpec:
        """See `RolloutWorker`; returns what is simulated."""
        access = EnvAccess(config.env, _RemoteHost(host), share)
        spec = access.clients[0].spec
        model = load_model(config, spec, checkpoint)
        self._opened, self._host = RolloutWorker(config, model, access, number), host
        if checkpoint is not None:
            self._opened.load_state_dict(read_state(checkpoint)["workers"][number])
        return spec

    @property
    def _worker(self) -> RolloutWorker:
        assert self._opened is not None
        return self._opened

    def set_weights(self, update: WeightsUpdate) -> None:
        """See `RolloutWorker`."""
        self._worker.set_weights(update)

    def collect(self) -> tuple[TensorDict, dict[str, float]]:
        """A batch and its metrics, as two objects: the batch goes to the learner unseen."""
        batch, stats = self._worker.collect()
        return batch, stats.metrics()

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

    def restart(self, index: int) -> str:
        """See `EnvHost`."""
        address: str = fetch(self._actor.restart.remote(index))
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
        self._further: list[Any] = []
        """Learners beside the first."""
        self._workers: list[Any] = []
        self._timeline = Timeline("runtime")
        try:
            for place in places:
                self._hosts.setdefault(place.node, remote(EnvServerActor, 0, place.node).remote())
            started = [host.start.remote(config.env) for host in self._hosts.values()]
            if len(places) == config.runtime.learners == 1:
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
        self.spec: EnvSpec = fetch(self._learner.start.remote(config, host, None, checkpoint))

    def _start_apart(
        self,
        config: RunConfig,
        places: Sequence[Place],
        hosts: list[Any],
        checkpoint: Path | None,
    ) -> None:
        """Workers in processes of their own, and a learner that only learns."""
        # A node's workers and the learner, wherever it comes to live, must fit its GPUs.
        alone = config.runtime.learners == 1
        shares = [gpu_share(config, place.node, place.share[1] + alone) for place in places]
        self._workers = [
            remote(RolloutActor, 1, place.node, gpus).remote()
            for place, gpus in zip(places, shares, strict=True)
        ]
        share = min(filter(None, shares), default=0.0) if alone else learner_share(config)
        self._learner, *self._further = (
            remote(LearnerActor, 1, gpus=share).remote() for _ in range(config.runtime.learners)
        )
        fetch(hosts)
        specs = [
            worker.start.remote(config, self._hosts[place.node], place.share, number, checkpoint)
            for number, (worker, place) in enumerate(zip(self._workers, places, strict=True))
        ]
        self.spec = fetch(specs)[0]
        if not alone:
            self._join()
        self._all("start", config, None, self.spec, checkpoint)
        self._publish()

    def _join(self) -> None:
        """Make one group of the learners."""
        learners = self._learners
        world = len(learners)
        address = fetch(learners[0].listen.remote(world))
        fetch_all(
            [learner.join.remote(rank, world, address) for rank, learner in enumerate(learners)]
        )

    @property
    def _learners(self) -> list[Any]:
        return [*([self._learner] if self._learner else []), *self._further]

    def _all(self, method: str, *arguments: Any) -> Any:
        """The same call of every learner; what the first one answers."""
        calls = [getattr(learner, method).remote(*arguments) for learner in self._learners]
        return fetch_all(calls)[0]

    def iterate(self) -> dict[str, float]:
        """See `Runtime`."""
        assert self._learner is not None
        if not self._workers:
            metrics: dict[str, float] = fetch(self._learner.iterate.remote())
            return metrics
        collected = [worker.collect.options(num_returns=2).remote() for worker in self._workers]
        learned = self._all("update", *[batch for batch, _ in collected])
        started = time.perf_counter()
        self._publish()
        learned["publishing_seconds"] = time.perf_counter() - started
        self._timeline.add("runtime", "publish", started)
        use = fetch([worker.use.remote() for worker in self._workers])
        stats = merge_metrics([fetch(stats) for _, stats in collected])
        return {**stats, **learned, **merge_use(use)}

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
        states = [worker.state_dict.remote() for worker in self._workers]
        self._all("save", folder.absolute(), *states)

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
        return [*self._workers, *self._learners]

    def _publish(self) -> None:
        """Give every worker the learner's weights."""
        calls = [learner.weights.options(num_returns=2).remote() for learner in self._learners]
        published = [worker.set_weights.remote(calls[0][0]) for worker in self._workers]
        fetch_all([version for _, version in calls])
        fetch(published)


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


def fetch_all(references: Sequence[Any]) -> list[Any]:
    """What the learners answer, who wait for one another: if one fails, no other need answer.

    When one dies, others fail for the want of it; the error names it, not them.

    Raises:
        Exception: as `fetch`, of the first that died, else of the first that failed.
    """
    waiting = list(references)
    failed: dict[int, Exception] = {}
    while waiting and not failed:
        done, waiting = ray.wait(waiting, num_returns=1)
        failed = _failures(references, done)
    if failed and waiting:
        done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_GRACE_SECONDS)
        failed |= _failures(references, done)
    for rank, error in sorted(failed.items()):
        if isinstance(error, RayActorError):
            raise RuntimeError(
                f"learner {rank} of {len(references)}, a process of the run, died: {error}"
            ) from error
    for rank in sorted(failed):
        fetch(references[rank])
    return [fetch(reference) for reference in references]


def _failures(references: Sequence[Any], done: Sequence[Any]) -> dict[int, Exception]:
    """Place -> error of those that are done and have failed."""
    failed: dict[int, Exception] = {}
    for reference in done:
        try:
            ray.get(reference)
        except (RayTaskError, RayActorError) as error:
            failed[references.index(reference)] = error
    return failed
