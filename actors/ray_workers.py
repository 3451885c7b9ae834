"""The rollout workers of a Ray run as processes of their own, each replaced when it dies.

A successor continues where the last window ended: it has the episode counters and the generators of
that moment, and the present weights. Episodes that were running are lost and counted; the window is
collected again by that worker alone. The learner only ever gets whole windows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
from tensordict import TensorDict

from actors.env_link import EnvLink, fetch
from actors.evaluation import EvalResult, EvaluationRequest
from actors.placement import (
    GRANT_SECONDS,
    PLACE_SECONDS,
    Placement,
    living_nodes,
    node_of_this_process,
    remote_beside,
)
from actors.ray_hosts import Hosts
from actors.rollout_stats import RolloutStats, ended
from actors.rollout_worker import RolloutWorker
from actors.run_model import load_model
from actors.weights import WeightsUpdate
from vlarl.config.schema import RunConfig
from vlarl.errors import ProcessDied
from vlarl.timeline import Span
from vlarl.training_state import read_state
from vlarl.types import EnvSpec

logger = logging.getLogger(__name__)

_Allocated = tuple[dict[str, float], dict[str, Any]]


class RolloutActor:
    """A `RolloutWorker` in an actor, with a model of its own. Begins with `start`."""

    def __init__(self) -> None:
        self._opened: RolloutWorker | None = None
        self._link: EnvLink | None = None
        self._telling: threading.Event | None = None

    def start(
        self, config: RunConfig, link: EnvLink, number: int, checkpoint: Path | None
    ) -> dict[str, EnvSpec]:
        """See `RolloutWorker`; returns what is simulated, by suite."""
        access = link.open(config.env)
        model = load_model(config, *access.specs.values(), checkpoint=checkpoint)
        self._opened, self._link = RolloutWorker(config, model, access, number), link
        if checkpoint is not None:
            self._opened.load_state_dict(read_state(checkpoint)["workers"][number])
        self._telling = link.tell_at_stake(number, self._opened.at_stake)
        return access.specs

    def node(self) -> str:
        """Where this process runs: an answer says that it does."""
        return node_of_this_process()

    @property
    def _worker(self) -> RolloutWorker:
        assert self._opened is not None
        return self._opened

    def set_weights(self, update: WeightsUpdate) -> None:
        """See `RolloutWorker`."""
        self._worker.set_weights(update, lambda shards: ray.get(list(shards)))

    def collect(self) -> tuple[TensorDict, tuple[RolloutStats, dict[str, Any]]]:
        """A batch, and beside it, as an object of its own, what it cost and the worker's position.

        The batch goes to the learner unseen.
        """
        batch, stats = self._worker.collect()
        return batch, (stats, self._worker.position())

    def allocate(self, episodes: dict[str, int], successes: dict[str, int]) -> _Allocated:
        """See `RolloutWorker`; and the position, which is another one now."""
        return self._worker.allocate(episodes, successes), self._worker.position()

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
        assert self._link is not None
        return self._worker.evaluate(request, self._link.noting())

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
        if self._telling is not None:
            self._telling.set()
        if self._opened is not None:
            self._opened.close()


@dataclass
class _Post:
    """One worker's part of the run, and the process that fills it."""

    number: int
    link: EnvLink
    actor: Any
    node: str = ""
    position: dict[str, Any] = field(default_factory=dict)
    """At the end of its last window."""
    restarts: int = 0


class Workers:
    """All of them, in the order of their numbers.

    Args:
        config: of the run.
        placement: their seats.
        hosts: of their env servers.
        weights: a reference to the present weights, which are there, for a successor.
    """

    def __init__(
        self, config: RunConfig, placement: Placement, hosts: Hosts, weights: Callable[[], Any]
    ) -> None:
        self._config = config
        self._placement = placement
        self._hosts = hosts
        self._weights = weights
        seats = placement.plan.workers
        self._posts = [
            _Post(number, link, placement.remote(RolloutActor, seat).remote())
            for number, (seat, link) in enumerate(zip(seats, hosts.links, strict=True))
        ]
        self._replaced = 0
        self._dropped = {"dropped_episodes": 0.0, "dropped_decisions": 0.0}

    def start(self, checkpoint: Path | None) -> dict[str, EnvSpec]:
        """Load the model, connect; returns what is simulated, by suite."""
        specs = [self._started(post, checkpoint) for post in self._posts]
        found: list[dict[str, EnvSpec]] = fetch(specs)
        for post in self._posts:
            post.position = fetch(post.actor.position.remote())
            post.node = fetch(post.actor.node.remote())
        return found[0]

    def collect(self) -> tuple[list[Any], list[RolloutStats]]:
        """One window of each: references to the batches, and what they cost."""
        answers = self.asked(lambda actor: actor.collect.options(num_returns=2).remote())
        stats = []
        for post, (_, told) in zip(self._posts, answers, strict=True):
            found, post.position = fetch(told)
            stats.append(found)
        return [batch for batch, _ in answers], stats

    def allocate(self, stats: Sequence[RolloutStats]) -> dict[str, float]:
        """Let every worker allocate by what all of them saw; the running success rates after it."""
        if not any(each.allocation for each in stats):
            return {}
        seen = ended(stats)
        rates: dict[str, float] = {}
        answers = self.asked(lambda actor: actor.allocate.remote(*seen))
        for post, answer in zip(self._posts, answers, strict=True):
            rates, post.position = fetch(answer)
        return {f"running_success/{task}": rate for task, rate in rates.items()}

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
        """The host of the first worker's servers, as it is now."""
        return self._hosts.present(self._posts[0].link.hosts[0])

    def losses(self) -> dict[str, float]:
        """What was lost since this was asked last."""
        lost = {"worker_restarts": float(self._replaced), **self._dropped}
        self._replaced, self._dropped = 0, dict.fromkeys(self._dropped, 0.0)
        return lost

    def closing(self) -> list[Any]:
        """References to the workers' disconnecting."""
        return [post.actor.close.remote() for post in self._posts]

    def _done(self, post: _Post, call: Callable[[Any], Any], answer: Any) -> Any:
        while True:
            try:
                # The last of several is the small one; a task's answers come or fail together.
                last = answer[-1] if isinstance(answer, list) else answer
                fetch(self._hosts.attended(last))
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
        streams = len(post.position["counters"])
        self._dropped["dropped_episodes"] += streams
        made = self._hosts.at_stake(post.number, post.link.hosts[0])
        # Where nobody is left who knows, up to a whole window was.
        whole = streams * self._config.decisions_per_stream
        self._dropped["dropped_decisions"] += whole if made is None else made
        logger.warning("%s is replaced (%d of %d): %s", name, post.restarts, limit, error)
        # If a learner is gone too, that is what there is to say.
        weights = self._weights()
        for actor, link, seconds in self._successors(post):
            if self._filled(post, actor, link, seconds, weights):
                return
        seat = self._placement.plan.workers[post.number]
        needed = f"{seat.cpus:g} CPUs{f' and {seat.gpus:g} GPU' if seat.gpus else ''}"
        raise RuntimeError(
            f"{name} died, and no node of the Ray cluster has room for another within "
            f"{PLACE_SECONDS:g} s: it needs {needed}. Add a node, then continue the run with "
            f"resume=auto. It died of: {error}"
        ) from error

    def _successors(self, post: _Post) -> Iterator[tuple[Any, Callable[[], EnvLink], float]]:
        """Processes that may take over, how to link each, and seconds in which it must begin.

        First in the seat, which Ray keeps free on a node that lives and moves from one that is
        lost, if another has room; then on the nodes that live, those with the fewest workers first.
        """
        seat = self._placement.plan.workers[post.number]
        moving = max(GRANT_SECONDS, self._config.cluster.wait_seconds)
        seconds = PLACE_SECONDS if self._placement.node_of(seat) else moving
        actor = self._placement.remote(RolloutActor, seat).remote()
        yield actor, lambda: self._hosts.links[post.number], seconds
        crowd = [other.node for other in self._posts]
        for node in sorted(living_nodes(), key=lambda node: (crowd.count(node), node)):
            actor = remote_beside(RolloutActor, seat, node).remote()
            yield actor, partial(self._hosts.link_beside, post.number, node), PLACE_SECONDS

    def _filled(
        self, post: _Post, actor: Any, link: Callable[[], EnvLink], seconds: float, weights: Any
    ) -> bool:
        """Whether this process took over."""
        there = actor.node.remote()
        if not ray.wait([there], timeout=seconds)[0]:
            ray.kill(actor)
            return False
        try:
            node = fetch(there)
            post.actor, post.link, post.node = actor, link(), node
            fetch(self._started(post, None))
            fetch(actor.continue_from.remote(post.position))
            fetch(actor.set_weights.remote(weights))
        except ProcessDied as error:
            logger.warning("a successor died as well: %s", error)
            return False
        return True

    def _started(self, post: _Post, checkpoint: Path | None) -> Any:
        return post.actor.start.remote(self._config, post.link, post.number, checkpoint)
