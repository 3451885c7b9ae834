"""One client's environments in lockstep: what they show, what they are asked, what they answered.

A lane is ready to be decided for, or waits for one answer (of a step, or of the resets that follow
it). It keeps the decisions of the current window. Choosing actions is the collector's business.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict

from actors.arena import named
from actors.episodes import Episodes
from vlarl import wire
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvServerDied, EnvServerError
from vlarl.history import FrameMemory
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.types import TimeStep


class Phase(Enum):
    """What a lane waits for."""

    IDLE = "no episode was started yet"
    READY = "every slot shows an observation that wants a decision"
    STEPPING = "a chunk is being executed"
    RESETTING = "ended episodes are being replaced"


@dataclass(frozen=True)
class FinishedEpisode:
    """One episode that ended in the window."""

    task: str
    success: bool
    length: int
    """Control steps."""


class Lane:
    """The slots of one client.

    Args:
        client: whose slots, all of them.
        streams: [n] stream ids, one for each slot.
        source: where the next episodes come from.
        seed: of the exploration noise: a generator of its own keeps the noise independent of the
            order in which lanes are served.
        policy: acts here.
        suite: name of the client's suite, where the run has several.
        now: the time.
    """

    def __init__(
        self,
        client: EnvClient,
        streams: NDArray[np.int64],
        source: Episodes,
        seed: list[int],
        policy: Policy,
        suite: str = "",
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.streams = streams
        self.generator = torch.Generator()
        self.generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self.restarts = 0
        self.window: list[TensorDict] = []
        """Decisions of this window whose outcome is known, in order of time."""
        self.finished: list[FinishedEpisode] = []
        self.control_steps = 0
        self._source = source
        self._now = now
        self.move(client, policy, suite)

    def move(self, client: EnvClient, policy: Policy, suite: str) -> None:
        """Begin anew with as many environments of another suite; the noise goes on.

        What the lane has of its window is not touched: move it between two windows.
        """
        assert client.num_envs == len(self.streams)
        self.client, self.policy, self.suite = client, policy, suite
        self.phase = Phase.IDLE
        self.ready_since = 0.0
        """When it last came to want a decision."""
        past = policy.past_frames
        self._memory = None if past is None else FrameMemory(past, client.num_envs)
        self._observation: TimeStep | None = None
        self._actions: NDArray[np.float32] | None = None

    @property
    def observation(self) -> TimeStep:
        """What all slots show, in the order of their numbers."""
        assert self._observation is not None
        return self._observation

    @property
    def between_windows(self) -> bool:
        """Whether nothing of a window was begun."""
        return not self.window and self.phase is not Phase.STEPPING

    def shown(self, seen: TimeStep) -> Observations:
        """What the policy is shown of `seen`, of all slots."""
        return Observations.of(seen, self.client.spec.max_steps, self.history())

    def history(self) -> NDArray[np.uint8] | None:
        """Past frames of all slots, before what was answered last; None if nobody wants them."""
        return None if self._memory is None else self._memory.frames()

    def begin_window(self) -> None:
        """Forget the last window's decisions; running episodes go on."""
        self.window, self.finished, self.control_steps = [], [], 0
        if self.phase is Phase.IDLE:
            self.start()

    def start(self) -> None:
        """Ask for a fresh episode in every slot, and drop the window so far."""
        self.window, self.finished, self.control_steps = [], [], 0
        self._observation = None
        self._submit_reset(np.arange(self.client.num_envs))

    def submit_step(self, actions: NDArray[np.float32]) -> None:
        """Have every slot execute its chunk of `actions` [n, h, c]."""
        assert self.phase is Phase.READY
        self._actions = actions
        record = self._memory is not None
        self.client.submit_step(np.arange(self.client.num_envs), actions, record)
        self.phase = Phase.STEPPING

    def receive(self) -> tuple[TimeStep, NDArray[np.float32], TimeStep] | None:
        """Take in the answer; after a step, ended episodes are replaced at once.

        Returns:
            For a step: what was seen, the actions, and what came of it; None for a reset.
        """
        answer = self.client.receive()
        if self.phase is Phase.RESETTING:
            self._take_reset(answer)
            return None
        assert self.phase is Phase.STEPPING
        assert self._actions is not None
        if self._memory is not None:
            assert answer.frames is not None
            self._memory.advance(answer.env_ids, answer.frames)
            answer = dataclasses.replace(answer, frames=None)
        before, actions = self.observation, self._actions
        self._observation, self._actions = answer, None
        self.control_steps += int(answer.executed.sum())
        ended = np.flatnonzero(answer.done)
        self.finished += [
            FinishedEpisode(
                named(self.suite, answer.task[row]),
                bool(answer.success[row]),
                int(answer.step[row]),
            )
            for row in ended
        ]
        self._become_ready()
        if len(ended):
            self._submit_reset(answer.env_ids[ended])
        return before, actions, answer

    def settle(self) -> None:
        """Wait for resets that are under way."""
        if self.phase is Phase.RESETTING:
            self.receive()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next window depends on, as plain values and tensors.

        `environments` is empty where the suite can take no snapshot: episodes then start anew.
        """
        self.settle()
        state = self.position()
        blob = b"" if self.phase is Phase.IDLE else _snapshot(self.client)
        if blob:
            frames = wire.encode(wire.time_step_to_body(self.observation))
            state["environments"] = _as_tensor(blob)
            state["observation"] = [_as_tensor(bytes(frame)) for frame in frames]
            if self._memory is not None:
                state["memory"] = torch.from_numpy(self._memory.state())
        return state

    def position(self) -> dict[str, Any]:
        """A `state_dict` without the running episodes."""
        return {
            "generator": self.generator.get_state(),
            "restarts": self.restarts,
            "environments": torch.empty(0, dtype=torch.uint8),
            "observation": [],
            "memory": torch.empty(0, dtype=torch.uint8),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, for a lane that was not started yet."""
        assert self.phase is Phase.IDLE
        self.generator.set_state(state["generator"])
        self.restarts = state["restarts"]
        if len(state["environments"]):
            self.client.restore(state["environments"].numpy().tobytes())  # type: ignore[attr-defined]
            frames = [frame.numpy().tobytes() for frame in state["observation"]]
            self._observation = wire.time_step_from_body(wire.decode(frames))
            if self._memory is not None:
                self._memory.load_state(state["memory"].numpy())
            self._become_ready()

    def _submit_reset(self, slots: NDArray[np.int64]) -> None:
        starts = [self._source.next(int(self.streams[slot])) for slot in slots]
        self.client.submit_reset(slots, starts)
        self.phase = Phase.RESETTING

    def _take_reset(self, answer: TimeStep) -> None:
        if self._memory is not None:
            self._memory.reset(answer.env_ids, answer.images[self._memory.past.camera])
        whole = len(answer) == self.client.num_envs
        self._observation = answer if whole else replace_rows(self.observation, answer)
        self._become_ready()

    def _become_ready(self) -> None:
        self.phase = Phase.READY
        self.ready_since = self._now()


def replace_rows(whole: TimeStep, part: TimeStep) -> TimeStep:
    """`whole`, in which row `i` is slot `i`, with the rows of `part`'s slots exchanged."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(TimeStep):
        old, new = getattr(whole, field.name), getattr(part, field.name)
        if field.name == "frames":
            values[field.name] = None
        elif isinstance(old, dict):
            values[field.name] = {
                key: _exchange(array, part.env_ids, new[key]) for key, array in old.items()
            }
        elif isinstance(old, tuple):
            words = list(old)
            for slot, word in zip(part.env_ids.tolist(), new, strict=True):
                words[slot] = word
            values[field.name] = tuple(words)
        else:
            values[field.name] = _exchange(old, part.env_ids, new)
    return TimeStep(**values)


def _exchange(
    whole: NDArray[np.generic], slots: NDArray[np.int64], rows: NDArray[np.generic]
) -> NDArray[np.generic]:
    changed = whole.copy()
    changed[slots] = rows
    return changed


def _snapshot(client: EnvClient) -> bytes:
    """The environments' state, or nothing if the suite has no snapshots."""
    try:
        return client.snapshot()  # type: ignore[attr-defined]
    except NotImplementedError:
        return b""
    except EnvServerDied:
        raise
    except EnvServerError as error:
        # The remote traceback is all that crosses a process boundary.
        if "NotImplementedError" in str(error):
            return b""
        raise


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
