"""vla-eval's protocol, the policy's side: hello, then one action for each control step.

The harness is the client. It names each episode as it begins, shows what it sees at every control
step and executes the one action that it is answered; chunks are the server's own business.
"""

from __future__ import annotations

import json
import time
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.sync.server import ServerConnection

from actors.harness.messages import pack, unpack
from actors.harness.served_policy import ServedPolicy
from vlarl import __version__
from vlarl.history import FrameMemory
from vlarl.observations import Observations
from vlarl.wire_limits import WireError

PROTOCOL_VERSION = 1
_KINDS = ("hello", "observation", "action", "episode_start", "episode_end", "error")
_ONLY_SLOT = np.zeros(1, np.int64)


@dataclass
class _Episode:
    """Of one connection."""

    seed: int
    memory: FrameMemory | None
    decisions: int = 0
    chunk: deque[NDArray[np.float32]] = field(default_factory=deque)


class VlaEvalSession:
    """What is said on each connection; errors are sent as such, and it goes on.

    An episode's noise depends on what it is called and on the number of the decision, so that its
    outcome does not depend on which others were played before it, or on another connection.

    Args:
        policy: that decides.
        seed: of the noise.
    """

    def __init__(self, policy: ServedPolicy, seed: int = 0) -> None:
        self._policy = policy
        self._seed = seed

    def __call__(self, connection: ServerConnection) -> None:
        """Speak until the client hangs up."""
        episode = self._begun({})
        for data in connection:
            number = 0
            try:
                kind, payload, number = _parts(data)
                answer = None
                if kind == "hello":
                    answer = self._hello()
                elif kind == "episode_start":
                    episode = self._begun(payload)
                elif kind == "observation":
                    kind, answer = "action", {"actions": self._action(episode, payload)}
            except WireError as error:
                kind, answer = "error", {"error": str(error)}
            if answer is not None:
                message = {"type": kind, "payload": answer, "seq": number, "timestamp": time.time()}
                connection.send(pack(message, text_keys=True))

    def _hello(self) -> dict[str, Any]:
        """Who answers, and what the benchmark is asked to show, by the names of vla-eval's own."""
        contract = self._policy.contract
        asked = {}
        if any(camera.name == "cam_right_wrist" for camera in contract.cameras):
            asked["send_wrist_image"] = True
        if contract.shows_state:
            asked["send_state"] = True
        return {
            "harness_version": f"vlarl {__version__}",
            "protocol_version": PROTOCOL_VERSION,
            "model_server": "vlarl",
            "capabilities": {},
            "observation_params": asked,
        }

    def _begun(self, start: Mapping[str, Any]) -> _Episode:
        name = json.dumps(start.get("task", {}), sort_keys=True, default=str)
        past = self._policy.contract.past_frames
        memory = None if past is None else FrameMemory(past, 1)
        return _Episode((zlib.crc32(name.encode()) << 32) + self._seed, memory)

    def _action(self, episode: _Episode, payload: Mapping[str, Any]) -> NDArray[np.float32]:
        """[c] to execute now."""
        policy, memory = self._policy, episode.memory
        seen: Observations | None = None
        if memory is not None:
            seen = policy.read(payload)
            frame = seen.images[memory.past.camera]
            if episode.decisions:
                memory.advance(_ONLY_SLOT, [frame])
            else:
                memory.reset(_ONLY_SLOT, frame)
        if not episode.chunk:
            seen = seen or policy.read(payload)
            if memory is not None:
                history = memory.frames()
                seen = Observations(seen.images, seen.instructions, None, seen.state, None, history)
            actions = policy.chunk(seen, None, (episode.seed, episode.decisions))
            episode.chunk.extend(actions[: policy.execute_steps])
            episode.decisions += 1
        return episode.chunk.popleft()


def _parts(data: bytes | str) -> tuple[str, Mapping[str, Any], int]:
    """Kind, payload and number of a message."""
    if isinstance(data, str):
        raise WireError("text, not a message")
    message = unpack(data)
    kind, payload, number = (message.get(key) for key in ("type", "payload", "seq"))
    if kind not in _KINDS:
        raise WireError(f"a message of type {kind!r:.40}; there are {', '.join(_KINDS)}")
    if not isinstance(payload, dict) or type(number) is not int:
        raise WireError(f"a message of type {kind!r} without payload or seq")
    return str(kind), payload, number
