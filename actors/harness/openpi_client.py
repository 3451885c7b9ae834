"""A client of openpi's policy server: its metadata first, then an answer to each observation."""

from __future__ import annotations

import logging
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from actors.harness.messages import MAX_MESSAGE_BYTES, pack, unpack
from vlarl.errors import PolicyServerError, UserError
from vlarl.wire_limits import WireError

logger = logging.getLogger(__name__)

_OPEN_SECONDS = 10.0
"""For a connection to be accepted, at most."""
_SHOWN = 2000
"""Characters of an error of the server's that are passed on."""


class OpenpiClient:
    """One connection, in which questions are answered in turn.

    Args:
        address: `ws://HOST:PORT`.
        deadline_seconds: for each answer. A policy may compile itself before its first one.

    Attributes:
        metadata: what the server says of itself.

    Raises:
        UserError: if no policy server answers there.
    """

    def __init__(self, address: str, deadline_seconds: float) -> None:
        self.address = address
        self._deadline = deadline_seconds
        self._connection, self.metadata = self._open()

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The server's answer; a connection that ends meanwhile is made once more.

        Raises:
            PolicyServerError: if the server reports an error, misses the deadline, hangs up again
                or answers what is no message.
        """
        data = pack(observation)
        try:
            return self._ask(data)
        except ConnectionClosed as error:
            self._refuse_final(error)
            logger.warning(
                "the policy server %s hung up (%s): connecting again", self.address, error
            )
        try:
            self._connection, self.metadata = self._open()
            return self._ask(data)
        except (ConnectionClosed, UserError) as error:
            raise PolicyServerError(
                f"the policy server {self.address} hung up twice over one observation: {error}. "
                "Look at what it printed, and start it again"
            ) from error

    def close(self) -> None:
        """Hang up; safe to call twice."""
        self._connection.close()

    def _open(self) -> tuple[ClientConnection, dict[str, Any]]:
        """A new connection and the metadata that it begins with."""
        remedy = "Start one there (`vlarl serve CHECKPOINT`, or openpi's), or name another address."
        try:
            connection = connect(
                self.address,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=min(_OPEN_SECONDS, self._deadline),
                # A policy that computes answers no pings; the deadline watches over it.
                ping_interval=None,
                close_timeout=1,
                proxy=None,
            )
        except InvalidURI as error:
            raise UserError(f"{self.address!r} is no address; use ws://HOST:PORT.") from error
        except (OSError, InvalidHandshake) as error:
            why = str(error) or "no answer in time"
            raise UserError(
                f"no policy server answers at {self.address}: {why}. {remedy}"
            ) from error
        try:
            data = connection.recv(timeout=self._deadline)
            if isinstance(data, str):
                raise WireError("text, not a message")
            return connection, unpack(data)
        except (TimeoutError, ConnectionClosed, WireError) as error:
            connection.close()
            late = isinstance(error, TimeoutError)
            why = f"nothing within {self._deadline:g} seconds" if late else str(error)
            raise UserError(
                f"{self.address} does not speak openpi's protocol, which begins with metadata; "
                f"it sent: {why}. {remedy}"
            ) from error

    def _ask(self, data: bytes) -> dict[str, Any]:
        self._connection.send(data)
        try:
            answer = self._connection.recv(timeout=self._deadline)
        except TimeoutError as error:
            raise PolicyServerError(
                f"the policy server {self.address} did not answer within "
                f"{self._deadline:g} seconds. If it is only slow, raise ws.deadline_seconds"
            ) from error
        if isinstance(answer, str):
            raise PolicyServerError(
                f"the policy server {self.address} reports:\n{answer[-_SHOWN:].strip()}"
            )
        try:
            return unpack(answer)
        except WireError as error:
            raise PolicyServerError(
                f"the policy server {self.address} answered what is refused: {error}"
            ) from error

    def _refuse_final(self, error: ConnectionClosed) -> None:
        """Raise what another connection would not mend."""
        # Each side repeats the other's reason: whoever gave it first has the limit.
        ours = error.sent if error.rcvd is None or not error.rcvd_then_sent else None
        first = ours or error.rcvd
        if first is not None and first.code == CloseCode.MESSAGE_TOO_BIG:
            did = "answered" if ours else "was shown"
            raise PolicyServerError(
                f"the policy server {self.address} {did} more than a message may hold ({error}). "
                "Lower env.image_size, or what the server sends"
            ) from error
