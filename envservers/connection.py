"""A client's socket to an env server, and what became of it: gone, or never let in."""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message

from envservers.keys import Key
from vlarl.errors import UserError
from vlarl.wire_limits import MAX_FRAME_BYTES

GONE = "is gone"
_REFUSALS = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: ("has another key", "has another key"),
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: ("demands a key", "has no key, or another one"),
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: (
        "hung up during the handshake: it demands a key, or is no env server",
        "hung up during the handshake: it has no key or another one, or is no env server",
    ),
}
"""Event -> what it says of the server, to a client without a key and to one with a key."""


def open_connection(address: str, key: Key | None) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """A socket that connects to `address`, and the monitor that tells of its end.

    Raises:
        UserError: for a malformed address.
    """
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 1000
    socket.maxmsgsize = MAX_FRAME_BYTES
    if key is not None:
        key.protect_client(socket)
    # Answers are few and bounded by SLOTS, so no queue of ZeroMQ's can drop one.
    events = zmq.EVENT_DISCONNECTED
    for event in _REFUSALS:
        events |= event
    monitor = socket.get_monitor_socket(events)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        close_connection(socket, monitor)
        raise UserError(
            f"cannot connect to {address!r}: {error}; use tcp://HOST:PORT or ipc://PATH"
        ) from error
    return socket, monitor


def close_connection(socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
    """Close both."""
    socket.disable_monitor()
    monitor.close(linger=0)
    socket.close()


def end_of(monitor: zmq.Socket[bytes], has_key: bool) -> str | None:
    """What the monitor has told so far: `GONE`, why the client was not let in, or nothing."""
    found = None
    while monitor.poll(0):
        event = recv_monitor_message(monitor)["event"]
        if event in _REFUSALS:
            return _REFUSALS[event][has_key]
        found = GONE
    return found
