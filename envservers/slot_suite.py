"""A suite of single simulators: one instance for each slot, made when it is first needed.

Owns the episodes' books: which slot runs what, how long, how it ended. An episode's chunk is
executed here and one image is drawn at its end.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.requests import checked_chunk, checked_slots, checked_task
from envservers.simulator import Outcome, Simulator
from vlarl.types import EnvSpec, EpisodeStart, TimeStep


@dataclass
class _Episode:
    """Of one slot."""

    start: EpisodeStart
    instruction: str
    step: int = 0
    success: bool = False
    terminated: bool = False
    truncated: bool = False

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


class SlotSuite:
    """`num_envs` simulators; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: slots.
        spec: what they simulate.
        make: a new simulator.
        terminate_on_success: whether achieving the goal ends the episode, and the chunk.
        limits: task -> control steps of its episodes, where fewer than the spec's.

    Raises:
        ValueError: if `num_envs` is not positive.
    """

    def __init__(
        self,
        num_envs: int,
        spec: EnvSpec,
        make: Callable[[], Simulator],
        terminate_on_success: bool = True,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs, self.spec = num_envs, spec
        self.terminate_on_success = terminate_on_success
        self.limits = dict.fromkeys(spec.tasks, spec.max_steps) | dict(limits or {})
        self.render_seconds = 0.0
        """Spent drawing so far."""
        self.renders = 0
        """Environments drawn so far, all cameras of one at a time."""
        self._make = make
        self._simulators: list[Simulator | None] = [None] * num_envs
        self._episodes: list[_Episode | None] = [None] * num_envs

    def load(self) -> None:
        """Make the first simulator now, so that what is missing shows before anybody waits."""
        self._simulator(0)

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """Start episodes in these slots; rows come back in the order of `env_ids`.

        Raises:
            ValueError: for an unknown task, a start that there is none of, a slot that does not
                exist or is named twice, or lists of different lengths.
        """
        ids = checked_slots(env_ids, self.num_envs)
        if len(starts) != len(ids):
            raise ValueError(f"{len(ids)} env ids but {len(starts)} episode starts")
        for start in starts:
            checked_task(start.task, self.spec.tasks)
        for slot, start in zip(ids.tolist(), starts, strict=True):
            self._episodes[slot] = None
            words = self._simulator(slot).reset(start)
            self._episodes[slot] = _Episode(start, start.instruction or words)
        rows = len(ids)
        return self._observe(ids, np.zeros(rows, np.int32), np.zeros(rows, np.float32), None)

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """Execute `actions` [n, h, c] until the chunk or the episode ends.

        Raises:
            ValueError: for a slot that was never reset or whose episode has ended, for values that
                are not finite or for a wrong shape.
        """
        ids = checked_slots(env_ids, self.num_envs)
        episodes = [self._episodes[slot] for slot in ids.tolist()]
        running = np.array([episode is not None and not episode.ended for episode in episodes])
        chunk = checked_chunk(actions, ids, len(self.spec.channels), running)
        low = np.array([channel.low for channel in self.spec.channels])
        high = np.array([channel.high for channel in self.spec.channels])
        chunk = np.clip(chunk, low, high).astype(np.float32)
        executed, reward = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
        films: list[list[NDArray[np.uint8]]] = [[] for _ in ids]
        row_of = {slot: row for row, slot in enumerate(ids.tolist())}
        for slot, received in self._play(dict(zip(row_of, chunk, strict=True))):
            reward[row_of[slot]] += received
            executed[row_of[slot]] += 1
            if record:
                films[row_of[slot]].append(self._images(slot)[self.spec.cameras[0].name])
        recorded = tuple(np.stack(film) for film in films) if record else None
        return self._observe(ids, executed, reward, recorded)

    def expert_actions(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, c] what the scripted expert would do now in these slots.

        Raises:
            ValueError: for a slot without a running episode.
            NotImplementedError: if the suite has no expert.
        """
        ids = checked_slots(env_ids, self.num_envs)
        for slot in ids.tolist():
            self._episode(slot)
        actions = [self._simulator(slot).expert_action() for slot in ids.tolist()]
        return np.stack(actions).astype(np.float32)

    def snapshot(self) -> bytes:
        """Simulators and books of all slots."""
        stream = io.BytesIO()
        running = [slot for slot in range(self.num_envs) if self._episodes[slot] is not None]
        books = {slot: asdict(self._episode(slot)) for slot in running}
        blobs = {f"slot_{slot}": _bytes(self._simulator(slot).snapshot()) for slot in running}
        np.savez(stream, books=_bytes(json.dumps(books).encode()), **blobs)  # type: ignore[arg-type]
        return stream.getvalue()

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`.

        Raises:
            ValueError: for the snapshot of a suite with more slots or other tasks.
        """
        with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
            books = {int(slot): book for slot, book in json.loads(_text(stored["books"])).items()}
            if books and max(books) >= self.num_envs:
                raise ValueError(
                    f"the snapshot has slot {max(books)}, this suite has {self.num_envs}: restore "
                    "into a suite with the same num_envs"
                )
            begun = {slot: EpisodeStart(**book.pop("start")) for slot, book in books.items()}
            for start in begun.values():
                checked_task(start.task, self.spec.tasks)
            self._episodes = [None] * self.num_envs
            for slot, book in books.items():
                self._simulator(slot).restore(stored[f"slot_{slot}"].tobytes())
                self._episodes[slot] = _Episode(start=begun[slot], **book)

    def close(self) -> None:
        """Close every simulator."""
        for simulator in self._simulators:
            if simulator is not None:
                simulator.close()
        self._simulators = [None] * self.num_envs
        self._episodes = [None] * self.num_envs

    def _simulator(self, slot: int) -> Simulator:
        found = self._simulators[slot]
        if found is None:
            found = self._simulators[slot] = self._make()
        return found

    def _episode(self, slot: int) -> _Episode:
        episode = self._episodes[slot]
        if episode is None:
            raise ValueError(f"environment {slot} has no running episode: reset it first")
        return episode

    def _play(self, chunks: Mapping[int, NDArray[np.float32]]) -> Iterator[tuple[int, float]]:
        """Slot and reward of each control step, taken until chunk or episode ends.

        One slot after the other, so that slots that take turns in a scene take few.
        """
        for slot, chunk in chunks.items():
            for action in chunk:
                yield slot, self._booked(slot, self._simulator(slot).step(action))
                if self._episode(slot).ended:
                    break

    def _booked(self, slot: int, outcome: Outcome) -> float:
        """Enter what a control step of the slot led to; returns its reward."""
        episode = self._episode(slot)
        episode.step += 1
        episode.success = outcome.success
        episode.terminated = outcome.failed or (outcome.success and self.terminate_on_success)
        late = outcome.expired or episode.step >= self.limits[episode.start.task]
        episode.truncated = late and not episode.terminated
        if outcome.instruction and episode.start.instruction is None:
            episode.instruction = outcome.instruction
        return outcome.reward

    def _images(self, slot: int) -> dict[str, NDArray[np.uint8]]:
        started = time.perf_counter()
        images = self._simulator(slot).images()
        self.render_seconds += time.perf_counter() - started
        self.renders += 1
        return images

    def _observe(
        self,
        ids: NDArray[np.int64],
        executed: NDArray[np.int32],
        reward: NDArray[np.float32],
        films: tuple[NDArray[np.uint8], ...] | None,
    ) -> TimeStep:
        slots = ids.tolist()
        episodes = [self._episode(slot) for slot in slots]
        # All of one slot together: slots may take turns in a scene that they share.
        pictures, infos, states = [], [], []
        for slot in slots:
            pictures.append(self._images(slot))
            infos.append(self._simulator(slot).info())
            states.append(self._simulator(slot).state())
        success = np.array([episode.success for episode in episodes], bool)
        own = [self.spec.tasks.index(episode.start.task) for episode in episodes]
        return TimeStep(
            env_ids=ids.copy(),
            images={
                camera.name: np.stack([images[camera.name] for images in pictures])
                for camera in self.spec.cameras
            },
            state=np.stack(states).astype(np.float32),
            instruction=tuple(episode.instruction for episode in episodes),
            task=tuple(episode.start.task for episode in episodes),
            seed=np.array([episode.start.seed for episode in episodes], np.int64),
            step=np.array([episode.step for episode in episodes], np.int32),
            executed=executed,
            reward=reward,
            success=success,
            # Of another task's goal the scene knows nothing.
            task_success=success[:, None] & (np.arange(len(self.spec.tasks)) == np.c_[own]),
            terminated=np.array([episode.terminated for episode in episodes], bool),
            truncated=np.array([episode.truncated for episode in episodes], bool),
            info={name: np.array([info[name] for info in infos], np.float32) for name in infos[0]},
            frames=films,
        )


def _bytes(blob: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(blob, np.uint8)


def _text(stored: NDArray[np.uint8]) -> str:
    return stored.tobytes().decode()
