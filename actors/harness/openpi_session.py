"""openpi's protocol, the server's side: metadata first, then a chunk for each observation."""

from __future__ import annotations

import time

from websockets.sync.server import ServerConnection

from actors.harness.messages import pack, unpack
from actors.harness.remote_policy import OURS
from actors.harness.served_policy import ServedPolicy
from vlarl.wire_limits import WireError


class OpenpiSession:
    """What is said on each connection; errors are sent as text, as openpi does, and it goes on.

    The protocol knows no episodes. Unless a client sends the noise of its decisions, they are
    numbered from the connection's beginning.

    Args:
        policy: that decides.
        seed: of the noise.
    """

    def __init__(self, policy: ServedPolicy, seed: int = 0) -> None:
        self._policy = policy
        self._seed = seed

    def __call__(self, connection: ServerConnection) -> None:
        """Speak until the client hangs up."""
        policy, decisions = self._policy, 0
        about = {"contract": policy.contract.to_dict(), "noise": list(policy.noise_shape)}
        connection.send(pack({OURS: about}))
        for data in connection:
            began = time.monotonic()
            try:
                if isinstance(data, str):
                    raise WireError("text, not a message")
                message = unpack(data)
                extra = message.pop(OURS, None) or {}
                noise = extra.get("noise") if isinstance(extra, dict) else None
                seen = policy.read(message)
                actions = policy.chunk(seen, noise, (self._seed, decisions))
            except WireError as error:
                connection.send(str(error))
                continue
            decisions += 1
            spent = {"infer_ms": 1000 * (time.monotonic() - began)}
            connection.send(pack({"actions": actions, "server_timing": spent}))
