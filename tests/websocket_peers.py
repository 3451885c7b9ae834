"""Websocket servers for tests: a policy of ours, and others' that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.sync.server import ServerConnection, serve

from actors.harness.policy_server import PolicyServer


@contextmanager
def serving(session: Callable[[ServerConnection], None]) -> Iterator[str]:
    """A `PolicyServer` of ours on a free port; its address."""
    server = PolicyServer(session, port=0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.address
    finally:
        server.close()
        thread.join()


@contextmanager
def foreign(talk: Callable[[ServerConnection], None], **options: object) -> Iterator[str]:
    """Another's websocket server on a free port, which speaks by `talk`; its address."""
    with serve(talk, "127.0.0.1", 0, close_timeout=1, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()
