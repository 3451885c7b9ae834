"""The processes of a Ray run that learn, each an actor: one, or several that learn together.

None of them is replaced by itself: the weights of one that dies are gone, and the others wait for
it. The controller opens all anew at the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from tensordict import TensorDict
from torch.distributed import TCPStore

from actors.env_link import EnvLink, fetch
from actors.evaluation import EvalResult, EvaluationRequest
from actors.learner import Learner
from actors.learner_group import Address, join, leave, listen, reach
from actors.placement import node_of_this_process
from actors.weights import WeightsUpdate
from vlarl.config.schema import RunConfig
from vlarl.errors import ProcessDied
from vlarl.timeline import Span
from vlarl.types import EnvSpec

_GRACE_SECONDS = 5.0
"""In which whoever died is known, so that the error names it and not one who missed it."""


class LearnerActor:
    """A `Learner` in an actor; it acts too if it is given env servers. Begins with `start`."""

    def __init__(self) -> None:
        self._opened: Learner | None = None
        self._link: EnvLink | None = None
        self._store: TCPStore | None = None

    def listen(self, world: int) -> Address:
        """As the first of several learners, see `learner_group`."""
        self._store, address = listen(world, ray.util.get_node_ip_address())
        return address

    def join(self, rank: int, world: int, address: Address) -> None:
        """As `rank` of several learners, see `learner_group`; before `start`."""
        join(rank, world, reach(world, address) if self._store is None else self._store)

    def start(
        self,
        config: RunConfig,
        link: EnvLink | None,
        specs: dict[str, EnvSpec] | None,
        checkpoint: Path | None,
    ) -> None:
        """See `Learner`."""
        access = None if link is None else link.open(config.env)
        self._opened, self._link = Learner(config, access, specs, checkpoint), link

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
        assert self._link is not None
        return self._learner.evaluate(request, self._link.noting())

    def weights(self) -> tuple[WeightsUpdate, int]:
        """See `Learner`; and their version as an object of its own, for those who only wait."""
        update = self._learner.weights(ray.put)
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


class Learners:
    """All of them, in the order of their ranks.

    Args:
        actors: `LearnerActor`s in Ray.

    Raises:
        ProcessDied: from each method that waits, naming the one of several that died.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        self.actors = tuple(actors)

    @property
    def first(self) -> Any:
        """The one that acts, where learning and acting are one process."""
        return self.actors[0]

    def start(
        self,
        config: RunConfig,
        link: EnvLink | None,
        specs: dict[str, EnvSpec] | None,
        checkpoint: Path | None,
    ) -> None:
        """Make one group of several, then see `LearnerActor.start`."""
        world = len(self.actors)
        if world > 1:
            address = fetch(self.first.listen.remote(world))
            joining = enumerate(self.actors)
            fetch_all([each.join.remote(rank, world, address) for rank, each in joining])
        self.all("start", config, link, specs, checkpoint)

    def all(self, method: str, *arguments: Any) -> Any:
        """The same call of each; what the first one answers."""
        return fetch_all([getattr(each, method).remote(*arguments) for each in self.actors])[0]

    def weights(self) -> Any:
        """A reference to the present weights, which are there: all gather, the first one tells."""
        calls = [each.weights.options(num_returns=2).remote() for each in self.actors]
        fetch_all([version for _, version in calls])
        return calls[0][0]

    def recorded(self) -> list[Span]:
        """What all of them recorded."""
        found = fetch_all([each.recorded.remote() for each in self.actors])
        return [span for spans in found for span in spans]

    def closing(self) -> list[Any]:
        """References to their ends."""
        return [each.close.remote() for each in self.actors]


def fetch_all(references: Sequence[Any]) -> list[Any]:
    """What the learners answer, who wait for one another: if one fails, no other need answer.

    When one of several dies, the others fail for the want of it, perhaps long before Ray sees the
    death: what `torch.distributed` then raises is told from no other RuntimeError. Any of these is
    the group's end, therefore. One that is a mistake of ours comes again with the next group, until
    no restart is left.

    Raises:
        ProcessDied: of several, naming the first that died, else the first that failed.
        Exception: as `fetch`, of one that learns alone, and of what is no RuntimeError, such as a
            user's mistake or a full disk.
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
        if isinstance(error, RayActorError) and len(references) > 1:
            raise ProcessDied(
                f"learner {rank} of {len(references)}, a process of the run, died: {error}"
            ) from error
    for rank in sorted(failed):
        try:
            fetch(references[rank])
        except RuntimeError as error:
            if len(references) == 1:
                raise
            raise ProcessDied(
                f"learner {rank} of {len(references)} failed, and all of them with it: {error}"
            ) from error
    return [fetch(reference) for reference in references]


def _failures(references: Sequence[Any], done: Sequence[Any]) -> dict[int, Exception]:
    """Place -> error of those that are done and have failed."""
    failed: dict[int, Exception] = {}
    for reference in done:
        try:
            ray.get(reference)
        except RayError as error:
            failed[references.index(reference)] = error
    return failed
