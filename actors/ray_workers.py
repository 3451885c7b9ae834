"""The rollout workers of a Ray run as processes of their own, each replaced when it dies.

A successor continues where the last window ended: it has the episode counters and the generators of
that moment, and the present weights. Episodes that were running are lost and counted; the window is
collected again by that worker alone. The learner only ever gets whole windows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from tensordict import TensorDict

from actors.env_host import EnvAccess
from actors.evaluation import EvalResult, EvaluationRequest
from actors.placement import PLACE_SECONDS, Place, gpu_share, node_of_this_process, remote
from actors.ray_hosts import Hosts, RemoteHost, fetch, noting
from actors.rollout_worker import RolloutWorker, load_model
from actors.weights import WeightsUpdate
from vlarl.config.schema import RunConfig
from vlarl.errors import ProcessDied
from vlarl.timeline import Span
from vlarl.training_state import read_state
from vlarl.types import EnvSpec

logger = logging.getLogger(__name__)


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
        access = EnvAccess(config.env, RemoteHost(host), share)
        spec = access.clients[0].spec
        model = load_model(config, spec, checkpoint)
        self._opened, self._host = RolloutWorker(config, model, access, number), host
        if checkpoint is not None:
            self._opened.load_state_dict(read_state(checkpoint)["workers"][number])
        return spec

    def node(self) -> str:
        """Where this process runs: an answer says that it does."""
        return node_of_this_process()

    @property
    def _worker(self) -> RolloutWorker:
        assert self._opened is not None
        return self._opened

    def set_weights(self, update: WeightsUpdate) -> None:
        """See `RolloutWorker`."""
        self._worker.set_weights(update)

    def collect(self) -> tuple[TensorDict, tuple[dict[str, float], dict[str, Any]]]:
        """A batch, and beside it, as an object of its own, its metrics and the worker's position.

        The batch goes to the learner unseen.
        """
        batch, stats = self._worker.collect()
        return batch, (stats.metrics(), self._worker.position())

    def use(self) -> dict[str, float]:
        """See `RolloutWorker`."""
        return self._worker.use()

    def record(self) -> None:
        """See `Timeline`."""
        self._worker.timeline.record()

    def recorded(self) -> list[Span]:
        """See `Timeline`."""
        return self._worker.timeline.recorded()

    def pause(self) -> None:
        """See `RolloutWorker`."""
        self._worker.pause()

    def evaluate(self, request: EvaluationRequest) -> EvalResult:
        """See `RolloutWorker`; the host is told how far it is."""
        return self._worker.evaluate(request, noting(self._host))

    def position(self) -> dict[str, Any]:
        """See `RolloutWorker`."""
        return self._worker.position()

    def continue_from(self, position: dict[str, Any]) -> None:
        """Begin at another worker's position."""
        self._worker.load_state_dict(position)

    def state_dict(self) -> dict[str, Any]:
        """See `RolloutWorker`."""
        return self._worker.state_dict()

    def close(self) -> None:
        """See `RolloutWorker`."""
        if self._opened is not None:
            self._opened.close()


@dataclass
class _Post:
    """One worker's part of the run, and the process that fills it."""

    number: int
    place: Place
    gpus: float
    actor: Any
    node: str
    position: dict[str, Any]
    """At the end of its last window."""
    restarts: int = 0


class Workers:
    """All of them, in the order of their numbers.

    Args:
        config: of the run.
        places: one for each.
        hosts: of their nodes.
        weights: a reference to the present weights, which are there, for a successor.
    """

    def __init__(
        self, config: RunConfig, places: Sequence[Place], hosts: Hosts, weights: Callable[[], Any]
    ) -> None:
        self._config = config
        self._hosts = hosts
        self._weights = weights
        # A node's workers and the learner, wherever it comes to live, must fit its GPUs.
        alone = config.runtime.learners == 1
        self.gpus = [gpu_share(config, place.node, place.share[1] + alone) for place in places]
        self._posts = [
            _Post(number, place, gpus, _made(place.node, gpus), place.node, {})
            for number, (place, gpus) in enumerate(zip(places, self.gpus, strict=True))
        ]
        self._replaced = 0
        self._dropped = 0

    def start(self, checkpoint: Path | None) -> EnvSpec:
        """Load the model, connect; returns what is simulated."""
        specs = [self._started(post, checkpoint) for post in self._posts]
        found: list[EnvSpec] = fetch(specs)
        for post in self._posts:
            post.position = fetch(post.actor.position.remote())
        return found[0]

    def collect(self) -> tuple[list[Any], list[dict[str, float]]]:
        """One window of each: references to the batches, and their metrics."""
        answers = self.asked(lambda actor: actor.collect.options(num_returns=2).remote())
        metrics = []
        for post, (_, told) in zip(self._posts, answers, strict=True):
            found, post.position = fetch(told)
            metrics.append(found)
        return [batch for batch, _ in answers], metrics

    def asked(self, call: Callable[[Any], Any]) -> list[Any]:
        """What `call` returned for each worker's actor, once it is done: references, unseen.

        Where a worker died, its successor was asked again.
        """
        answers = [call(post.actor) for post in self._posts]
        return [
            self._done(post, call, answer)
            for post, answer in zip(self._posts, answers, strict=True)
        ]

    def first(self, call: Callable[[Any], Any]) -> Any:
        """The first worker's answer to `call`; asked again of a successor if it died."""
        post = self._posts[0]
        return fetch(self._done(post, call, call(post.actor)))

    def first_host(self) -> Any:
        """The host of the first worker's servers."""
        return self._host_of(self._posts[0])

    def losses(self) -> dict[str, float]:
        """What was lost since this was asked last."""
        lost = {"worker_restarts": float(self._replaced), "dropped_episodes": float(self._dropped)}
        self._replaced = self._dropped = 0
        return lost

    def places(self) -> dict[str, Any]:
        """What each process is -> a reference that is done once it runs."""
        return {f"rollout worker {post.number}": post.actor.node.remote() for post in self._posts}

    def closing(self) -> list[Any]:
        """References to the workers' disconnecting."""
        return [post.actor.close.remote() for post in self._posts]

    def _done(self, post: _Post, call: Callable[[Any], Any], answer: Any) -> Any:
        while True:
            try:
                # The last of several is the small one; a task's answers come or fail together.
                fetch(answer[-1] if isinstance(answer, list) else answer)
            except ProcessDied as error:
                self._replace(post, error)
                answer = call(post.actor)
            else:
                return answer

    def _replace(self, post: _Post, error: ProcessDied) -> None:
        """Fill the post again, on its own node if that lives.

        Raises:
            RuntimeError: if its restarts are spent, or no node has room.
        """
        name, limit = f"rollout worker {post.number}", self._config.runtime.restarts
        if post.restarts >= limit:
            raise RuntimeError(
                f"{name} died once more than runtime.restarts={limit} allows: {error}"
            ) from error
        post.restarts += 1
        self._replaced += 1
        # Of the environments of a worker, each had one episode running.
        self._dropped += len(post.position["counters"])
        logger.warning("%s is replaced (%d of %d): %s", name, post.restarts, limit, error)
        # If a learner is gone too, that is what there is to say.
        weights = self._weights()
        for node in self._candidates(post):
            if self._filled(post, node, weights):
                return
        needed = f"1 CPU{f' and {post.gpus:g} GPU' if post.gpus else ''}"
        raise RuntimeError(
            f"{name} died, and no node of the Ray cluster has room for another within "
            f"{PLACE_SECONDS:g} s: it needs {needed}. Add a node, then continue the run with "
            f"resume=auto. It died of: {error}"
        ) from error

    def _candidates(self, post: _Post) -> list[str]:
        """Nodes that live: its present one, then those with the fewest workers."""
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        crowd = [other.node for other in self._posts]
        return sorted(alive, key=lambda node: (node != post.node, crowd.count(node), node))

    def _filled(self, post: _Post, node: str, weights: Any) -> bool:
        """Whether a process there took over."""
        actor = _made(node, post.gpus)
        if not ray.wait([actor.node.remote()], timeout=PLACE_SECONDS)[0]:
            ray.kill(actor)
            return False
        post.actor, post.node = actor, node
        try:
            fetch(self._started(post, None))
            fetch(actor.continue_from.remote(post.position))
            fetch(actor.set_weights.remote(weights))
        except ProcessDied as error:
            logger.warning("node %s did not take it: %s", node, error)
            return False
        return True

    def _started(self, post: _Post, checkpoint: Path | None) -> Any:
        host = self._host_of(post)
        return post.actor.start.remote(
            self._config, host, post.place.share, post.number, checkpoint
        )

    def _host_of(self, post: _Post) -> Any:
        return self._hosts.of(post.place.node, post.node)


def _made(node: str, gpus: float) -> Any:
    return remote(RolloutActor, 1, node, gpus).remote()
