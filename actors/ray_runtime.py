"""The run as Ray actors: an env host a node, a learner, and rollout workers if they live apart.

Actors are the plain classes, made remote. Observations go straight from env servers to whoever
acts, never through Ray; batches do, where rollout and learner are processes of their own. What dies
is replaced: a host in `ray_hosts.py`, a worker in `ray_workers.py`, the learner, and all else with
it, by the controller.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from tensordict import TensorDict

from actors.env_host import EnvAccess
from actors.evaluation import EvalResult, EvaluationRequest
from actors.learner import Learner
from actors.placement import (
    Place,
    gpu_share,
    node_of_this_process,
    remote,
    start_ray,
    wait_for_places,
)
from actors.player import Progress
from actors.ray_hosts import Hosts, RemoteHost, fetch, noting
from actors.ray_workers import Workers
from actors.rollout_stats import merge_metrics
from actors.weights import WeightsUpdate
from vlarl.config.schema import RunConfig
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
        self, config: RunConfig, host: Any | None, spec: EnvSpec | None, checkpoint: Path | None
    ) -> EnvSpec:
        """See `Learner`; `host` is an `EnvServerActor`. Returns what is simulated."""
        access = None if host is None else EnvAccess(config.env, RemoteHost(host))
        self._opened, self._host = Learner(config, access, spec, checkpoint), host
        found = spec if access is None else access.clients[0].spec
        assert found is not None
        return found

    def node(self) -> str:
        """Where this process runs: an answer says that it does."""
        return node_of_this_process()

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
        return self._learner.evaluate(request, noting(self._host))

    def weights(self) -> WeightsUpdate:
        """See `Learner`."""
        return self._learner.weights()

    def save(self, folder: Path, *workers: dict[str, Any]) -> None:
        """See `Learner`."""
        self._learner.save(folder, workers)

    def close(self) -> None:
        """See `Learner`."""
        if self._opened is not None:
            self._opened.close()


class RayRuntime:
    """Starts Ray and the actors of a run.

    With one rollout worker (the default) it lives in the learner's process and shares its model.

    Raises:
        ProcessDied: from each of its methods, if the learner died, or a node with what it had made:
            the run goes on from its last checkpoint, in a new runtime.
    """

    def __init__(self, config: RunConfig, checkpoint: Path | None = None) -> None:
        places = start_ray(config)
        self._first_node = places[0].node
        self._hosts: Hosts | None = None
        self._learner: Any | None = None
        self._workers: Workers | None = None
        try:
            self._hosts = Hosts(config, [place.node for place in places])
            if len(places) == 1:
                self._start_together(config, places[0], self._hosts, checkpoint)
            else:
                self._start_apart(config, places, self._hosts, checkpoint)
        except BaseException:
            self.close()
            raise

    def _start_together(
        self, config: RunConfig, place: Place, hosts: Hosts, checkpoint: Path | None
    ) -> None:
        """One process that acts and learns; it loads while the servers start."""
        gpus = gpu_share(config, place.node, actors=1)
        self._learner = remote(LearnerActor, 1, place.node, gpus).remote()
        wait_for_places({"the learner": self._learner.node.remote()})
        hosts.wait()
        host = hosts.of(place.node, place.node)
        self.spec: EnvSpec = fetch(self._learner.start.remote(config, host, None, checkpoint))

    def _start_apart(
        self, config: RunConfig, places: Sequence[Place], hosts: Hosts, checkpoint: Path | None
    ) -> None:
        """Workers in processes of their own, and a learner that only learns."""
        self._workers = Workers(config, places, hosts, self._weights)
        gpus = min(filter(None, self._workers.gpus), default=0)
        self._learner = remote(LearnerActor, 1, gpus=gpus).remote()
        learner = {"the learner": self._learner.node.remote()}
        wait_for_places({**self._workers.places(), **learner})
        hosts.wait()
        self.spec = self._workers.start(checkpoint)
        fetch(self._learner.start.remote(config, None, self.spec, checkpoint))
        self._publish()

    def iterate(self) -> dict[str, float]:
        """See `Runtime`; also what was lost on the way."""
        assert self._learner is not None
        assert self._hosts is not None
        if self._workers is None:
            metrics: dict[str, float] = fetch(self._learner.iterate.remote())
            return {**metrics, "host_restarts": self._hosts.restarted()}
        batches, told = self._workers.collect()
        learned = fetch(self._learner.update.remote(*batches))
        self._publish()
        metrics = {**merge_metrics(told), **learned, "host_restarts": self._hosts.restarted()}
        lost = self._workers.losses()
        lost["dropped_episodes"] += metrics["dropped_episodes"]
        return {**metrics, **lost}

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """See `Runtime`; by one worker, whose slots are the fixed ones."""
        assert self._learner is not None
        if self._workers is None:
            assert self._hosts is not None
            host = self._hosts.of(self._first_node, self._first_node)
            playing = self._played(self._learner, host, request, progress)
            result: EvalResult = fetch(playing)
        else:
            workers = self._workers
            result = workers.first(
                lambda actor: self._played(actor, workers.first_host(), request, progress)
            )
        if progress is not None:
            progress(request.episodes, request.episodes)
        return result

    def _played(
        self, actor: Any, host: Any, request: EvaluationRequest, progress: Progress | None
    ) -> Any:
        """A reference to the evaluation, once it is over."""
        # An actor that plays answers nobody; its host does.
        fetch(host.note_played.remote(0))
        playing = actor.evaluate.remote(request)
        while progress is not None and not ray.wait([playing], timeout=_POLL_SECONDS)[0]:
            progress(fetch(host.played.remote()), request.episodes)
        return playing

    def save(self, folder: Path) -> None:
        """See `Runtime`; the learner's node must see this folder."""
        assert self._learner is not None
        states = []
        if self._workers is not None:
            states = self._workers.asked(lambda actor: actor.state_dict.remote())
        fetch(self._learner.save.remote(folder.absolute(), *states))

    def close(self) -> None:
        """See `Runtime`."""
        if not ray.is_initialized():
            return
        closing = [] if self._workers is None else self._workers.closing()
        if self._learner is not None:
            closing.append(self._learner.close.remote())
        # Clients first, then the servers they are connected to.
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        if self._hosts is not None:
            self._hosts.close(_CLOSE_SECONDS)
        ray.shutdown()

    def _weights(self) -> Any:
        """A reference to the learner's present weights."""
        assert self._learner is not None
        return self._learner.weights.remote()

    def _publish(self) -> None:
        """Give every worker the learner's weights."""
        assert self._workers is not None
        weights = self._weights()
        # What the learner died of is not a worker's death.
        fetch(weights)
        self._workers.asked(lambda actor: actor.set_weights.remote(weights))
