"""The run as Ray actors: env hosts, learners, and rollout workers if they live apart.

Actors are the plain classes, made remote. Observations go straight from env servers to whoever
acts, never through Ray; batches do, where rollout and learner are processes of their own. What dies
is replaced: a host in `ray_hosts.py`, a worker in `ray_workers.py`, a learner, and all else with
it, by the controller.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray

from actors.env_link import fetch
from actors.evaluation import EvalResult, EvaluationRequest
from actors.placement import start_ray
from actors.player import Progress
from actors.process_stats import merge_use
from actors.ray_hosts import Hosts
from actors.ray_learners import LearnerActor, Learners
from actors.ray_workers import Workers
from actors.rollout_stats import merge_metrics
from envservers.socket_folder import sweep_socket_folders
from vlarl.config.schema import RunConfig
from vlarl.timeline import Span, Timeline

_CLOSE_SECONDS = 20.0
_POLL_SECONDS = 1.0
"""Between two looks at how far an evaluation is."""


class RayRuntime:
    """Starts Ray and the actors of a run.

    With one rollout worker (the default) it lives in the learner's process and shares its model,
    unless there are several learners, or `cluster.strategy` has them on different nodes.

    Raises:
        ProcessDied: from each of its methods, if a learner died, or a node with what it had made:
            the run goes on from its last checkpoint, in a new runtime.
    """

    def __init__(self, config: RunConfig, checkpoint: Path | None = None) -> None:
        self._placement = start_ray(config)
        self._hosts: Hosts | None = None
        self._learners: Learners | None = None
        self._workers: Workers | None = None
        self._timeline = Timeline("runtime")
        try:
            self._hosts = Hosts(config, self._placement)
            seats = self._placement.plan.learners
            self._learners = Learners(
                [self._placement.remote(LearnerActor, seat).remote() for seat in seats]
            )
            if self._placement.plan.workers:
                self._start_apart(config, self._learners, self._hosts, checkpoint)
            else:
                self._start_together(config, self._learners, self._hosts, checkpoint)
        except BaseException:
            self.close()
            raise

    def _start_together(
        self, config: RunConfig, learners: Learners, hosts: Hosts, checkpoint: Path | None
    ) -> None:
        """One process that acts and learns; it loads while the servers start."""
        hosts.wait()
        (link,) = hosts.links
        learners.start(config, link, None, checkpoint)

    def _start_apart(
        self, config: RunConfig, learners: Learners, hosts: Hosts, checkpoint: Path | None
    ) -> None:
        """Workers in processes of their own, and learners that only learn."""
        if config.runtime.learners > 1:
            # Workers that came first could share a GPU in a way that leaves none for a learner.
            learners.all("node")
        self._workers = Workers(config, self._placement, hosts, learners.weights)
        hosts.wait()
        specs = self._workers.start(checkpoint)
        learners.start(config, None, specs, checkpoint)
        self._publish(learners)

    def iterate(self) -> dict[str, float]:
        """See `Runtime`; also what was lost on the way."""
        assert self._learners is not None
        assert self._hosts is not None
        if self._workers is None:
            iterating = self._learners.first.iterate.remote()
            metrics: dict[str, float] = fetch(self._hosts.attended(iterating))
            return {**metrics, "host_restarts": self._hosts.restarted()}
        batches, stats = self._workers.collect()
        learned = self._learners.all("update", *batches)
        started = time.perf_counter()
        self._publish(self._learners)
        learned["publishing_seconds"] = time.perf_counter() - started
        self._timeline.add("runtime", "publish", started)
        use = fetch(self._workers.asked(lambda actor: actor.use.remote()))
        merged = merge_metrics([each.metrics() for each in stats])
        metrics = {**merged, **self._workers.allocate(stats), **learned, **merge_use(use)}
        lost = self._workers.losses()
        for name in ("dropped_episodes", "dropped_decisions"):
            lost[name] += metrics[name]
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
        assert self._hosts is not None
        if self._workers is None:
            host = self._hosts.present(self._hosts.links[0].hosts[0])
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
        assert self._hosts is not None
        # An actor that plays answers nobody; its host does.
        host.note_played.remote(0)
        playing = actor.evaluate.remote(request)
        while not ray.wait([playing], timeout=_POLL_SECONDS)[0]:
            self._hosts.look_after()
            done = None if progress is None else self._hosts.played(host)
            if progress is not None and done is not None:
                progress(done, request.episodes)
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
        # What comes after this run, or goes on with it, need not wait until Ray finds out.
        self._placement.remove()
        ray.shutdown()
        # Hosts that did not close in time were ended together with their servers.
        sweep_socket_folders()

    def _publish(self, learners: Learners) -> None:
        """Give every worker the present weights, which are put once."""
        assert self._workers is not None
        # What a learner died of is not a worker's death: they are there before a worker is asked.
        weights = learners.weights()
        self._workers.asked(lambda actor: actor.set_weights.remote(weights))
