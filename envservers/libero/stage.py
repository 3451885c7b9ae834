"""The scenes of a process, and whose episode is in each now."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from envservers.libero.scene import EpisodeState, Scene


@dataclass
class Actor:
    """One slot's episode: of which task, and its state while it is not in the scene."""

    task: str = ""
    state: EpisodeState | None = None


@dataclass
class _Set:
    scene: Any
    occupant: Actor | None = None


class Stage:
    """Keeps the most recently used scenes.

    Args:
        make: a task's scene.
        most: scenes kept at once; another one closes the one that was not used for longest.
    """

    def __init__(self, make: Callable[[str], Scene], most: int) -> None:
        self._make, self._most = make, most
        self._sets: OrderedDict[str, _Set] = OrderedDict()

    def scene(self, task: str) -> Scene:
        """The scene of a task, empty or not: for what does not depend on the episode."""
        return self._set(task).scene

    def cleared(self, actor: Actor, task: str) -> Scene:
        """The scene of `task`, for an episode of `actor` that is about to begin."""
        self.leave(actor)
        actor.task, actor.state = task, None
        place = self._set(task)
        self._vacate(place)
        place.occupant = actor
        return place.scene

    def with_episode_of(self, actor: Actor) -> Scene:
        """The scene with the actor's episode in it."""
        place = self._set(actor.task)
        if place.occupant is not actor:
            self._vacate(place)
            assert actor.state is not None
            place.scene.load(actor.state)
            place.occupant = actor
        return place.scene

    def put(self, actor: Actor, task: str, state: EpisodeState) -> None:
        """The actor's episode is from now on this one."""
        self.leave(actor)
        actor.task, actor.state = task, state

    def leave(self, actor: Actor) -> None:
        """Forget the actor's episode."""
        for place in self._sets.values():
            if place.occupant is actor:
                place.occupant = None

    def close(self) -> None:
        """Close every scene."""
        for place in self._sets.values():
            self._vacate(place)
            place.scene.close()
        self._sets.clear()

    def _set(self, task: str) -> _Set:
        if task not in self._sets:
            while len(self._sets) >= self._most:
                _, oldest = self._sets.popitem(last=False)
                self._vacate(oldest)
                oldest.scene.close()
            self._sets[task] = _Set(self._make(task))
        self._sets.move_to_end(task)
        return self._sets[task]

    def _vacate(self, place: _Set) -> None:
        if place.occupant is not None:
            place.occupant.state = place.scene.save()
            place.occupant = None
