"""A websocket server around a policy; what is said on a connection is its session's business.

The protocols that it speaks know neither keys nor encryption, so it listens on loopback alone
unless told otherwise. Even there a page in a browser could connect: browsers name the page that
does, and whoever names one is turned away.
"""

from __future__ import annotations

import http
import threading
from collections.abc import Callable

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from actors.harness.messages import MAX_MESSAGE_BYTES
from vlarl.addresses import stays_on_machine
from vlarl.errors import UserError

MAX_CONNECTIONS = 64
"""At the same time."""
_HEALTH = ("/healthz", "/health")
"""Where openpi's and vla-eval's clients ask whether a server is up."""

Session = Callable[[ServerConnection], None]
"""Speaks on one connection until its end."""


def check_host(host: str, port: int, insecure: bool) -> None:
    """Refuse an address beyond loopback that was not asked for in so many words.

    Raises:
        UserError: saying what it would mean.
    """
    if not stays_on_machine(f"tcp://{host}:{port}") and not insecure:
        raise UserError(
            f"host = {host!r}: other machines could reach it, and the protocol has neither "
            "keys nor encryption: whoever connects can use the policy, and whoever listens in "
            "reads what it is shown. "
            f"Listen at 127.0.0.1 and forward the port (ssh -L {port}:localhost:{port}), or "
            "say insecure=true."
        )


class PolicyServer:
    """Listens from the moment it is made, answers while `serve` runs.

    Args:
        session: of each connection, in a thread of its own.
        host: address to listen at.
        port: 0 picks a free one.
        insecure: whether `host` may be one that other machines can reach.

    Attributes:
        address: `ws://HOST:PORT`.
        connections: so far.

    Raises:
        UserError: for a host beyond loopback without `insecure`, or one that cannot be had.
    """

    def __init__(
        self, session: Session, host: str = "127.0.0.1", port: int = 8000, insecure: bool = False
    ) -> None:
        check_host(host, port, insecure)
        self._session = session
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: set[ServerConnection] = set()
        self._lock = threading.Lock()
        self._served = False
        self.connections = 0
        try:
            self._server: Server = serve(
                self._converse,
                host,
                port,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                # A simulator that computes answers no pings.
                ping_interval=None,
                close_timeout=1,
                origins=[None],
                process_request=_health,
                server_header=None,
            )
        except OSError as error:
            raise UserError(
                f"cannot listen at {host}:{port}: {error}. Choose another port=."
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.address = f"ws://{shown}:{self._server.socket.getsockname()[1]}"

    def serve(self) -> None:
        """Answer until `close` is called from another thread, or the process is interrupted."""
        self._served = True
        self._server.serve_forever()

    def close(self) -> None:
        """Hang up on everybody and listen no more."""
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            connection.close(CloseCode.GOING_AWAY)
        # `shutdown` waits for the end of `serve_forever`, also where that never began.
        if self._served:
            self._server.shutdown()
        else:
            self._server.socket.close()

    def _converse(self, connection: ServerConnection) -> None:
        if not self._free.acquire(blocking=False):
            connection.close(CloseCode.TRY_AGAIN_LATER, f"{MAX_CONNECTIONS} are connected")
            return
        with self._lock:
            self._open.add(connection)
            self.connections += 1
        try:
            self._session(connection)
        except ConnectionClosed:
            pass  # In the middle of an answer: the same as after it.
        finally:
            with self._lock:
                self._open.discard(connection)
            self._free.release()


def _health(connection: ServerConnection, request: Request) -> Response | None:
    if request.path in _HEALTH:
        return connection.respond(http.HTTPStatus.OK, "ok\n")
    return None
