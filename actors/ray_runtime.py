"""The run as Ray actors: an env host a node, learners, and rollout workers if they live apart.

Actors are the plain classes, made remote. Observations go straight from env servers to whoever
acts, never through Ray; batches do, where rollout and learner are processes of their own. What dies
is replaced: a host in `ray_hosts.py`, a worker in `ray_workers.py`, a learner, and all else with
it, by the controller.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from actors.evaluation import EvalResult, EvaluationRequest
from actors.placement import Place, gpu_share, learner_share, remote, start_ray, wait_for_places
from actors.player import Progress
from actors.process_stats import merge_use
from actors.ray_hosts import Hosts, fetch
from actors.ray_learners import LearnerActor, Learners
from actors.ray_workers import Workers
from actors.rollout_stats import merge_metrics
from vlarl.config.schema import RunConfig
from vlarl.timeline import Span, Timeline
from vlarl.types import EnvSpec

_CLOSE_SECONDS = 20.0
_POLL_SECONDS = 1.0
"""Between two looks at how far an evaluation is."""


class RayRuntime:
    """Starts Ray and the actors of a run.

    With one rollout worker (the default) it lives in the learner's process and shares its model.

    Raises:
        ProcessDied: from each of its methods, if a learner died, or a node with what it had made:
            the run goes on from its last checkpoint, in a new runtime.
    """

    def __init__(self, config: RunConfig, checkpoint: Path | None = None) -> None:
        places = start_ray(config)
        self._first_node = places[0].node
        self._hosts: Hosts | None = None
        self._learners: Learners | None = None
        self._workers: Workers | None = None
        self._timeline = Timeline("runtime")
        try:
            self._hosts = Hosts(config, [place.node for place in places])
            if len(places) == config.runtime.learners == 1:
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
        self._learners = Learners([remote(LearnerActor, 1, place.node, gpus).remote()])
        wait_for_places(self._learners.places())
        hosts.wait()
        host = hosts.of(place.node, place.node)
        self.spec: EnvSpec = self._learners.start(config, host, None, checkpoint)

    def _start_apart(
        self, config: RunConfig, places: Sequence[Place], hosts: Hosts, checkpoint: Path | None
    ) -> None:
        """Workers in processes of their own, and learners that only learn."""
        self._workers = Workers(config, places, hosts, self._weights)
        alone = config.runtime.learners == 1
        gpus = min(filter(None, self._workers.gpus), default=0) if alone else learner_share(config)
        self._learners = Learners(
            [remote(LearnerActor, 1, gpus=gpus).remote() for _ in range(config.runtime.learners)]
        )
        wait_for_places({**self._workers.places(), **self._learners.places()})
        hosts.wait()
        self.spec = self._workers.start(checkpoint)
        self._learners.start(config, None, self.spec, checkpoint)
        self._publish()

    def iterate(self) -> dict[str, float]:
        """See `Runtime`; also what was lost on the way."""
        assert self._learners is not None
        assert self._hosts is not None
        if self._workers is None:
            metrics: dict[str, float] = fetch(self._learners.first.iterate.remote())
            return {**metrics, "host_restarts": self._hosts.restarted()}
        batches, told = self._workers.collect()
        learned = self._learners.all("update", *batches)
        started = time.perf_counter()
        self._publish()
        learned["publishing_seconds"] = time.perf_counter() - started
        self._timeline.add("runtime", "publish", started)
        use = fetch(self._workers.asked(lambda actor: actor.use.remote()))
        metrics = {**merge_metrics(told), **learned, **merge_use(use)}
        lost = self._workers.losses()
        lost["dropped_episodes"] += metrics["dropped_episodes"]
        return {**metrics, "host_restarts": self._hosts.restarted(), **lost}

    def record(self) -> None:
        """See `Runtime`; whoever takes the place of another meanwhile records nothing."""
        assert self._learners is not None
        self._learners.all("record")
        if self._workers is not None:
            self._workers.asked(lambda actor: actor.record.remote())
        self._timeline.record()

    def recorded(self) -> list[Span]:
        """See `Runtime`."""
        assert self._learners is not None
        found = [*self._timeline.recorded(), *self._learners.recorded()]
        if self._workers is not None:
            for spans in fetch(self._workers.asked(lambda actor: actor.recorded.remote())):
                found += spans
        return found

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """See `Runtime`; by one worker, whose slots are the fixed ones."""
        assert self._learners is not None
        if self._workers is None:
            assert self._hosts is not None
            host = self._hosts.of(self._first_node, self._first_node)
            playing = self._played(self._learners.first, host, request, progress)
            result: EvalResult = fetch(playing)
        else:
            workers = self._workers
            # Whoever does not play would take the processors for a rollout that nobody waits for.
            workers.asked(lambda actor: actor.pause.remote())
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
        assert self._learners is not None
        states = []
        if self._workers is not None:
            states = self._workers.asked(lambda actor: actor.state_dict.remote())
        self._learners.all("save", folder.absolute(), *states)

    def close(self) -> None:
        """See `Runtime`."""
        if not ray.is_initialized():
            return
        closing = [] if self._workers is None else self._workers.closing()
        closing += [] if self._learners is None else self._learners.closing()
        # Clients first, then the servers they are connected to.
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        if self._hosts is not None:
            self._hosts.close(_CLOSE_SECONDS)
        ray.shutdown()

    def _weights(self) -> Any:
        """A reference to the present weights, which are there."""
        assert self._learners is not None
        return self._learners.weights()

    def _publish(self) -> None:
        """Give every worker the present weights."""
        assert self._workers is not None
        # What a learner died of is not a worker's death: they are there before a worker is asked.
        weights = self._weights()
        self._workers.asked(lambda actor: actor.set_weights.remote(weights))
