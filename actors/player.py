"""Plays a fixed list of episodes on all clients' slots, each episode once, deterministically.

Slot `s` of all slots plays episodes `s, s + N, s + 2N ...` of the list, the policy always sees all
slots of a client (a slot without an episode shows its last observation), and the noise of a
decision depends on the episode's seed and the decision's number alone. So the outcome does not
depend on which server answers first. What the outcomes mean is in `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from actors.arena import Arena
from actors.lane import Phase, replace_rows
from actors.rollout import Restart
from envservers.client import wait_ready
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvServerError
from vlarl.history import FrameMemory
from vlarl.observations import Observations
from vlarl.policy import EvaluatedPolicy
from vlarl.types import EpisodeStart, TimeStep

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass(frozen=True)
class EpisodeRecord:
    """One played episode."""

    start: EpisodeStart
    success: bool
    """Of the start's task, when the episode ended."""
    steps: int
    """Control steps."""
    achieved: NDArray[np.bool_]
    """[tasks] which tasks' goals held at the end of some chunk."""
    frames: NDArray[np.uint8] | None = None
    """[steps, height, width, 3] of the first camera, if asked for."""
    info: dict[str, float] = field(default_factory=dict)
    """The simulator's `TimeStep.info` when the episode ended."""


def play(
    policy: EvaluatedPolicy,
    clients: Sequence[EnvClient],
    starts: Sequence[EpisodeStart],
    *,
    record: int = 0,
    restart: Restart | None = None,
    max_restarts: int = 3,
    progress: Progress | None = None,
) -> list[EpisodeRecord]:
    """Play every start once with the ODE sampler at evaluation temperature.

    Args:
        policy: asked for one client's slots at a time, always all of them.
        clients: whose episodes are all ended or of no further use: every slot is reset.
        starts: the episodes; records come back in this order.
        record: how many of the first episodes to film.
        restart: as for a rollout; episodes under way are played again from their start.
        max_restarts: for each client.
        progress: told of every batch of episodes that ended.

    Raises:
        EnvServerError: naming a server that failed more often than allowed.
    """
    arena = Arena(policy, dict(enumerate(clients)), ())
    return play_together(
        [arena],
        starts,
        [range(len(starts))],
        record=record,
        restart=restart,
        max_restarts=max_restarts,
        progress=progress,
    )


def play_together(
    arenas: Sequence[Arena],
    starts: Sequence[EpisodeStart],
    own: Sequence[Sequence[int]],
    *,
    record: int = 0,
    restart: Restart | None = None,
    max_restarts: int = 3,
    progress: Progress | None = None,
) -> list[EpisodeRecord]:
    """As `play`, in several suites at the same time.

    Args:
        arenas: who plays what.
        starts: the episodes of all.
        own: places in `starts` of each arena's; an arena without any is left alone.
        record: as for `play`.
        restart: as for `play`.
        max_restarts: as for `play`.
        progress: as for `play`.
    """
    players: list[_Player] = []
    for arena, places in zip(arenas, own, strict=True):
        if not places:
            continue
        total = sum(client.num_envs for client in arena.clients.values())
        first = 0
        for number, client in arena.clients.items():
            slots = range(first, first + client.num_envs)
            queues = [list(places[slot::total]) for slot in slots]
            spare = starts[places[0]]
            players.append(
                _Player(
                    number, client, arena.policy, queues, starts, spare, record, restart,
                    max_restarts,
                )
            )  # fmt: skip
            first += client.num_envs
    for player in players:
        player.guarded(player.begin)
    while any(not player.done for player in players):
        ready = [player for player in players if not player.done and player.phase is Phase.READY]
        if ready:
            ready[0].guarded(ready[0].decide)
        asked = [player for player in players if player.waiting]
        answered = wait_ready([player.client for player in asked], 0.0 if ready else None)
        for player in asked:
            if player.client in answered:
                player.guarded(player.receive)
        if progress is not None and answered:
            progress(sum(len(player.finished) for player in players), len(starts))
    for player in players:
        player.settle()
    finished = {index: r for player in players for index, r in player.finished.items()}
    return [finished[index] for index in range(len(starts))]


@dataclass
class _Playing:
    """The episode that a slot is playing."""

    index: int
    """In the list of starts."""
    achieved: NDArray[np.bool_]
    decisions: int = 0
    film: list[NDArray[np.uint8]] = field(default_factory=list)


class _Player:
    """One client's slots, each with its own queue of episodes."""

    def __init__(
        self,
        index: int,
        client: EnvClient,
        policy: EvaluatedPolicy,
        queues: list[list[int]],
        starts: Sequence[EpisodeStart],
        spare: EpisodeStart,
        record: int,
        restart: Restart | None,
        max_restarts: int,
    ) -> None:
        self.client = client
        self._policy = policy
        self._index = index
        self._restart = restart
        self._max_restarts = self._restarts_left = max_restarts
        self.phase = Phase.IDLE
        self.finished: dict[int, EpisodeRecord] = {}
        self._queues = queues
        self._starts = starts
        self._record = record
        self._playing: list[_Playing | None] = [None] * len(queues)
        self._spare = spare
        past = policy.past_frames
        self._memory = None if past is None else FrameMemory(past, len(queues))
        self._observation: TimeStep | None = None

    @property
    def done(self) -> bool:
        """Whether every queue is empty and no slot plays."""
        return not any(self._queues) and not any(self._playing)

    @property
    def waiting(self) -> bool:
        """Whether the client owes an answer."""
        return self.phase in (Phase.STEPPING, Phase.RESETTING)

    def guarded(self, work: Callable[[], None]) -> None:
        """Do some of this player's work; if its server fails, replace it and begin anew."""
        try:
            work()
        except EnvServerError as error:
            self._replace(error)

    def _replace(self, error: EnvServerError) -> None:
        """Play on a new server; one that does not come up is one of the restarts."""
        while True:
            if self._restart is None or not self._restarts_left:
                raise type(error)(
                    f"env server {self._index} failed once more than its restarts "
                    f"({self._max_restarts}) allow: {error}"
                ) from error
            self._restarts_left -= 1
            try:
                self.client = self._restart(self._index)
                self.begin()
                return
            except EnvServerError as next_error:
                error = next_error

    def begin(self) -> None:
        """(Re)start: what was being played is played again from its start.

        Slots without an episode are reset too, so that the policy always sees a full batch.
        """
        for queue, playing in zip(self._queues, self._playing, strict=True):
            if playing is not None:
                queue.insert(0, playing.index)
        self._playing = [None] * len(self._queues)
        self._observation = None
        slots = np.arange(len(self._queues))
        self._deal(slots)
        self._submit_reset(slots, [self._start_of(int(slot)) or self._spare for slot in slots])

    def decide(self) -> None:
        """One policy call for all slots; those with an episode execute its answer."""
        assert self._observation is not None
        policy = self._policy
        noise = torch.zeros(len(self._playing), *policy.noise_shape)
        playing = [(slot, episode) for slot, episode in enumerate(self._playing) if episode]
        for slot, episode in playing:
            noise[slot] = decision_noise(
                self._starts[episode.index].seed, episode.decisions, policy.noise_shape
            )
        history = None if self._memory is None else self._memory.frames()
        seen = Observations.of(self._observation, self.client.spec.max_steps, history)
        decisions = policy.act(seen, None, explore=False, noise=noise)
        slots = np.array([slot for slot, _ in playing])
        film = any(episode.index < self._record for _, episode in playing)
        record = film or self._memory is not None
        self.client.submit_step(slots, decisions.actions[slots], record)
        self.phase = Phase.STEPPING

    def receive(self) -> None:
        """Take in the answer; an ended episode makes room for the slot's next."""
        answer = self.client.receive()
        whole = len(answer) == len(self._playing)
        if self._observation is None:
            assert whole
            self._observation = answer
        else:
            self._observation = replace_rows(self._observation, answer)
        was_step, self.phase = self.phase is Phase.STEPPING, Phase.READY
        self._remember(answer, was_step)
        if not was_step:
            return
        for row in range(len(answer)):
            self._take(answer, row)
        free = answer.env_ids[answer.done]
        self._deal(free)
        refilled = np.array([slot for slot in free if self._playing[slot]], np.int64)
        if len(refilled):
            self._submit_reset(refilled, [self._start_of(int(slot)) for slot in refilled])

    def settle(self) -> None:
        """Leave no request unanswered."""
        while self.waiting:
            self.receive()

    def _remember(self, answer: TimeStep, was_step: bool) -> None:
        """Take the answer's frames into the history, if there is one."""
        if self._memory is None:
            return
        if was_step:
            assert answer.frames is not None
            self._memory.advance(answer.env_ids, answer.frames)
        else:
            self._memory.reset(answer.env_ids, answer.images[self._memory.past.camera])

    def _take(self, answer: TimeStep, row: int) -> None:
        """What one slot's chunk came to."""
        slot = int(answer.env_ids[row])
        playing = self._playing[slot]
        assert playing is not None
        playing.decisions += 1
        playing.achieved = playing.achieved | answer.task_success[row]
        if answer.frames is not None and playing.index < self._record:
            playing.film.append(answer.frames[row])
        if answer.done[row]:
            self.finished[playing.index] = EpisodeRecord(
                start=self._starts[playing.index],
                success=bool(answer.success[row]),
                steps=int(answer.step[row]),
                achieved=playing.achieved,
                frames=np.concatenate(playing.film) if playing.film else None,
                info={name: float(values[row]) for name, values in answer.info.items()},
            )
            self._playing[slot] = None

    def _deal(self, slots: NDArray[np.int64]) -> None:
        """Give each of these slots the next episode of its queue, if there is one."""
        nothing = np.zeros(len(self.client.spec.tasks), np.bool_)
        for slot in slots:
            if self._queues[slot]:
                self._playing[slot] = _Playing(self._queues[slot].pop(0), nothing)

    def _start_of(self, slot: int) -> EpisodeStart | None:
        playing = self._playing[slot]
        return None if playing is None else self._starts[playing.index]

    def _submit_reset(
        self, slots: NDArray[np.int64], starts: Sequence[EpisodeStart | None]
    ) -> None:
        self.client.submit_reset(slots, [start for start in starts if start is not None])
        self.phase = Phase.RESETTING


def decision_noise(episode_seed: int, decision: int, shape: tuple[int, int]) -> torch.Tensor:
    """[H, K] initial noise of one decision of one episode."""
    mixed = np.random.SeedSequence([episode_seed, decision]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
    return torch.randn(*shape, generator=generator)
