"""Lets in to an env server whoever has its key, turns the others away and tells of them.

ZeroMQ asks it over its authentication protocol (ZAP, RFC 27) about every peer that knows the
server's public half. A peer with another key, or with none, fails before that: the socket's monitor
says so. One thread serves both; a server without a key has no guard.
"""

from __future__ import annotations

import os
import socket as tcp
import sys
import threading
import time
from pathlib import Path

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from envservers.keys import Key

_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_HANDSHAKE_MS = 10_000
"""Who has not shown a key by then is turned away."""
_SECONDS_BETWEEN_LINES = 1.0
"""Of the log: a peer that keeps trying does not fill it."""
_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_ENDED_HERE = {"04", "05", "06", "0B"}
"""States of the kernel's table of connections: this side ended it first, as a refusal does."""


class Guard:
    """Of one socket, which is not bound yet; works from then on.

    Attributes:
        refused: connections that were turned away.
    """

    def __init__(self, socket: zmq.Socket[bytes], key: Key) -> None:
        self._key = key
        self.refused = 0
        key.protect_server(socket)
        socket.handshake_ivl = _HANDSHAKE_MS
        self._zap: zmq.Socket[bytes] = socket.context.socket(zmq.REP)
        self._zap.bind(_ZAP_ADDRESS)
        self._monitor = socket.get_monitor_socket(
            zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _FAILURES
        )
        self._ports: set[int] = set()
        self._peers: dict[int, str] = {}
        self._failed = False
        self._ended: set[str] = set()
        self._untold = 0
        self._last_line = float("-inf")
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    def _watch(self) -> None:
        poller = zmq.Poller()
        poller.register(self._zap, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._monitor in ready:
                self._take_event()
            if self._zap in ready:
                self._judge()

    def _judge(self) -> None:
        """Answer one question of ZeroMQ's: may the peer with this public key come in?"""
        version, request, _domain, _address, _identity, mechanism, *rest = (
            self._zap.recv_multipart()
        )
        known = mechanism == b"CURVE" and z85.encode(rest[0]) == self._key.public
        status, text = (b"200", b"OK") if known else (b"400", b"another key")
        self._zap.send_multipart([version, request, status, text, b"", b""])

    def _take_event(self) -> None:
        event = recv_monitor_message(self._monitor)
        kind, value = event["event"], event["value"]
        if kind == zmq.EVENT_LISTENING:
            port = event["endpoint"].decode().rpartition(":")[2]
            self._ports |= {int(port)} if port.isdigit() else set()
        elif kind == zmq.EVENT_ACCEPTED:
            self._peers[value] = _peer_of(value)
        elif kind == zmq.EVENT_DISCONNECTED:
            peer = self._peers.pop(value, "")
            if self._failed:
                self._failed = False
                self._tell(peer)
        else:
            # The connection's own end is the event that follows.
            self._failed = True

    def _tell(self, peer: str) -> None:
        """Count a refusal; log it, unless another was logged just now, with all since that line.

        A refusal often takes less time than this thread needs to ask who it was: `peer` is empty.
        But the kernel knows for a while whose connections were ended.
        """
        self.refused += 1
        if time.monotonic() < self._last_line + _SECONDS_BETWEEN_LINES:
            self._untold += 1
            return
        ended = _ended_peers(self._ports) | ({peer} if peer else set())
        hosts = {each.rpartition(":")[0] for each in ended - self._ended}
        where = ", ".join(sorted(hosts)) or "a peer that had hung up"
        more = f" ({self._untold} more before it)" if self._untold else ""
        self._ended, self._untold, self._last_line = ended, 0, time.monotonic()
        print(f"refused {where}: no key, or another one{more}", file=sys.stderr, flush=True)


def _peer_of(descriptor: int) -> str:
    """`HOST:PORT` at the other end of a TCP connection; empty if it has ended, or is none."""
    try:
        with tcp.socket(fileno=os.dup(descriptor)) as connection:
            name = connection.getpeername()
    except OSError:
        return ""
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""


def _ended_peers(ports: set[int]) -> set[str]:
    """`HOST:PORT` of peers whose connections to `ports` were ended from here lately (Linux)."""
    peers = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if state in _ENDED_HERE and int(local.partition(":")[2], 16) in ports:
            host, _, port = remote.partition(":")
            number = int(host, 16).to_bytes(4, sys.byteorder)
            peers.add(f"{tcp.inet_ntoa(number)}:{int(port, 16)}")
    return peers
