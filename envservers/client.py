"""Suites seen from outside: in a child process, or on another machine.

All clients implement `EnvClient`: requests and answers apart, answers first in first out. A server
that dies, hangs or raises is an error with its name; restarting it is the caller's decision. The
client of a suite in this very process is in `inprocess.py`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from envservers.answers import check_answer
from envservers.connection import GONE, close_connection, end_of, open_connection
from envservers.keys import Key
from envservers.shared_memory import SLOTS, ImageRing, create_ring_file
from envservers.spawn import ServerProcess
from vlarl import wire
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvContractError, EnvKeyRefused, EnvServerDied, EnvServerError
from vlarl.types import EpisodeStart, TimeStep

_ERRORS = ("error", "broken_contract")
"""What an answer holds instead of a result."""


class ServerClient:
    """A suite in another process, reached by its address.

    Args:
        address: `ipc://PATH` (images then travel in shared memory) or `tcp://HOST:PORT`.
        deadline: seconds within which every request must be answered.
        process: the process, if this client started it and is to end it.
        key: the server's, if it demands one.

    Raises:
        UserError: for a malformed address.
        EnvKeyRefused: if the server has another key, or only one side has one.
        EnvServerDied: if no server answers within the deadline.
        EnvServerError: if the server speaks another version.
    """

    def __init__(
        self,
        address: str,
        deadline: float = 60.0,
        process: ServerProcess | None = None,
        key: Key | None = None,
    ) -> None:
        self.address = address
        self.deadline = deadline
        self._process = process
        self._pid: int | None = None if process is None else process.pid
        self._has_key = key is not None
        self._dead: EnvServerDied | None = None
        self._closed = False
        self._next_id = 0
        self._waiting: deque[tuple[int, NDArray[np.int64]]] = deque()
        """Number and `env_ids` of every request not yet answered."""
        self._overdue_at = 0.0
        self._answers: dict[int, dict[str, Any]] = {}
        self._stats_asked: int | None = None
        self._ring: ImageRing | None = None
        self.socket, self.death_watch = open_connection(address, key)
        try:
            self._greet()
        except EnvServerError:
            self._disconnect()
            raise

    def submit_reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """See `EnvClient`."""
        self._submit("reset", env_ids=_ids(env_ids), starts=wire.starts_to_body(starts))

    def submit_step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> None:
        """See `EnvClient`."""
        actions = np.asarray(actions, np.float32)
        self._submit("step", env_ids=_ids(env_ids), actions=actions, record=record)

    def ready(self) -> bool:
        """Whether `receive` would answer, or raise, without waiting."""
        if self._waiting:
            self._pump(0.0)
        return self.has_answer()

    def has_answer(self) -> bool:
        """As `ready`, by what was taken in so far; no look at the connection."""
        return bool(self._waiting) and (
            self._waiting[0][0] in self._answers
            or self._dead is not None
            or time.monotonic() >= self._overdue_at
        )

    def take_in(self) -> None:
        """Read what has come, without waiting."""
        self._pump(0.0)

    def receive(self, timeout: float | None = None) -> TimeStep:
        """See `EnvClient`; after EnvServerDied this client is of no further use."""
        if not self._waiting:
            raise ValueError("receive() without an unanswered request")
        until = self._overdue_at if timeout is None else time.monotonic() + timeout
        number, env_ids = self._waiting[0]
        answer = self._await(number, until)
        self._waiting.popleft()
        self._overdue_at = time.monotonic() + self.deadline
        return self._time_step(self._result(answer), env_ids)

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """See `EnvClient`."""
        self._refuse_overtaking()
        self.submit_reset(env_ids, starts)
        return self.receive()

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """See `EnvClient`."""
        self._refuse_overtaking()
        self.submit_step(env_ids, actions, record)
        return self.receive()

    def stats(self) -> dict[str, float]:
        """See `EnvClient`; answered after the requests before it."""
        return self._call("stats")

    def expert_actions(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `SuiteService`; answered after the requests before it."""
        actions = self._call("expert_actions", env_ids=_ids(env_ids))
        shape = (len(env_ids), len(self.spec.channels))
        if not isinstance(actions, np.ndarray) or actions.shape != shape:
            self._dead = EnvServerDied(self._obituary("sent what is no action of an expert"))
            raise self._dead
        return actions.astype(np.float32)

    def submit_stats(self) -> None:
        """See `EnvClient`."""
        if self._stats_asked is None:
            self._stats_asked = self._send("stats")

    def told_stats(self) -> dict[str, float] | None:
        """See `EnvClient`; does not look at the connection."""
        if self._stats_asked not in self._answers:
            return None
        answer, self._stats_asked = self._answers.pop(self._stats_asked), None
        told: dict[str, float] = self._result(answer)
        return told

    def snapshot(self) -> bytes:
        """See `Suite`; taken after the requests before it."""
        blob: bytes = self._call("snapshot").tobytes()
        return blob

    def restore(self, blob: bytes) -> None:
        """See `Suite`."""
        self._call("restore", blob=np.frombuffer(blob, np.uint8))

    @property
    def seconds_left(self) -> float:
        """Until the oldest request is overdue; infinite without one."""
        return self._overdue_at - time.monotonic() if self._waiting else float("inf")

    @property
    def waiting(self) -> int:
        """Requests not yet answered."""
        return len(self._waiting)

    @property
    def pid(self) -> int | None:
        """The server's process id, on its own machine."""
        return self._pid

    def close(self) -> None:
        """See `EnvClient`."""
        if self._closed:
            return
        if self._dead is None:
            with contextlib.suppress(EnvServerDied):
                self._send("close" if self._process is not None else "detach")
        self._disconnect()
        if self._process is not None:
            self._process.close()

    def _disconnect(self) -> None:
        self._closed = True
        close_connection(self.socket, self.death_watch)
        if self._ring is not None:
            self._ring.close()

    def _greet(self) -> None:
        hello = self._call("hello")
        self.spec = wire.spec_from_body(hello["spec"])
        self.num_envs: int = hello["num_envs"]
        self._pid = hello["pid"]
        if self.address.startswith("ipc://"):
            path = create_ring_file(self.spec, self.num_envs)
            try:
                self._call("attach", path=path)
                self._ring = ImageRing(path, self.spec, self.num_envs)
            finally:
                os.unlink(path)

    def _refuse_overtaking(self) -> None:
        if self._waiting:
            raise ValueError(f"{len(self._waiting)} requests are unanswered: receive() them first")

    def _submit(self, call: str, **body: Any) -> None:
        if len(self._waiting) == SLOTS:
            raise ValueError(f"{SLOTS} requests are unanswered: receive() one first")
        if self._dead is not None:
            raise self._dead
        if not self._waiting:
            self._overdue_at = time.monotonic() + self.deadline
        self._waiting.append((self._send(call, **body), body["env_ids"]))

    def _call(self, call: str, **body: Any) -> Any:
        number = self._send(call, **body)
        return self._result(self._await(number, time.monotonic() + self.deadline))

    def _send(self, call: str, **body: Any) -> int:
        number = self._next_id
        self._next_id += 1
        try:
            # A peer that was turned away has no queue: waiting for one would never end.
            self.socket.send_multipart(
                wire.encode({"id": number, "call": call, **body}), zmq.NOBLOCK
            )
        except zmq.Again:
            self._pump(0.0)
            raise self._dead or EnvServerDied(self._obituary("takes no more requests")) from None
        return number

    def _await(self, number: int, until: float) -> dict[str, Any]:
        while True:
            self._pump(0.0)
            if number in self._answers:
                return self._answers.pop(number)
            if self._dead is None and time.monotonic() >= until:
                late = f"did not answer in time (deadline {self.deadline:g} s)"
                self._dead = EnvServerDied(self._obituary(late))
            if self._dead is not None:
                raise self._dead
            self._pump(max(0.0, until - time.monotonic()))

    def _pump(self, seconds: float) -> None:
        """Take in what has come, waiting up to `seconds` for the first of it."""
        if self._closed:
            raise ValueError(f"the client of {self.address} is closed")
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(self.death_watch, zmq.POLLIN)
        poller.poll(seconds * 1000)
        # Read the death before the answers: what came before it is still to be taken in.
        end = end_of(self.death_watch, self._has_key) if self._dead is None else None
        while self._dead is None and self.socket.poll(0):
            self._take(self.socket.recv_multipart())
        if end == GONE:
            self._dead = self._dead or EnvServerDied(self._obituary(GONE))
        elif end is not None:
            self._dead = EnvKeyRefused(
                f"env server {self.address} {end}. Give both sides the same file: key=FILE to "
                "`vlarl envserver`, env.key_file=FILE to the run; `vlarl key FILE` makes one"
            )

    def _take(self, frames: list[bytes]) -> None:
        """Keep an answer; whoever sends something else is of no further use."""
        try:
            answer = wire.decode(frames)
            number = answer.get("id")
            if type(number) is not int or not answer.keys() & {"result", *_ERRORS}:
                raise wire.WireError("an answer needs an id and a result or an error")
        except wire.WireError as error:
            self._dead = EnvServerDied(self._obituary(f"sent what is no answer: {error}"))
            return
        if number == -1:
            raise EnvServerError(f"{self.address} could not read a request:\n{answer.get('error')}")
        self._answers[number] = answer

    def _time_step(self, result: Any, env_ids: NDArray[np.int64]) -> TimeStep:
        """What the server says of `env_ids`, held against its spec."""
        try:
            body = result["time_step"]
            if "slot" in result and self._ring is not None:
                body["images"] = self._ring.read(result["slot"], len(env_ids))
            time_step: TimeStep = wire.time_step_from_body(body)
            check_answer(self.spec, time_step, env_ids)
        except EnvContractError as error:
            raise EnvContractError(
                f"env server {self.address} (pid {self._pid}): {error}"
            ) from None
        # Whatever a stranger's answer lacks, or has of another type, shows as one of these.
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._dead = EnvServerDied(self._obituary(f"sent what is no answer: {error!r}"))
            raise self._dead from error
        return time_step

    def _obituary(self, what: str) -> str:
        text = f"env server {self.address} (pid {self._pid or 'unknown'}) {what}"
        if self._process is None:
            return text
        code = self._process.exit_code
        if code is not None:
            text += f", exit code {code}"
        log = self._process.log_tail().strip()
        return f"{text}\n{log}" if log else text

    def _result(self, answer: dict[str, Any]) -> Any:
        server = f"env server {self.address} (pid {self._pid})"
        if "broken_contract" in answer:
            raise EnvContractError(f"{server}: {answer['broken_contract']}")
        if "error" in answer:
            raise EnvServerError(f"{server} raised:\n{answer['error']}")
        return answer["result"]


def connect(address: str, deadline: float = 60.0, key: Key | None = None) -> ServerClient:
    """A client of a running server; its death or `close` leaves the server running."""
    return ServerClient(address, deadline, key=key)


def spawn_server(
    suite: str,
    num_envs: int,
    options: Mapping[str, Any] | None = None,
    deadline: float = 60.0,
    *,
    python: str | None = None,
    threads: int = 1,
    lease_seconds: float = 60.0,
    start_seconds: float | None = None,
) -> ServerClient:
    """Start a server as a child process and connect to it; arguments as `ServerProcess`."""
    process = ServerProcess(
        suite,
        num_envs,
        options,
        python=python,
        threads=threads,
        lease_seconds=lease_seconds,
        start_seconds=start_seconds,
    )
    try:
        return ServerClient(process.address, deadline, process)
    except EnvServerError:
        process.close()
        raise


def wait_ready(clients: Sequence[EnvClient], timeout: float | None = None) -> list[EnvClient]:
    """The clients whose `receive` would return or raise at once; waits until there is one.

    Empty when `timeout` seconds passed, or when no client has an unanswered request.
    """
    until = float("inf") if timeout is None else time.monotonic() + timeout
    servers = [client for client in clients if isinstance(client, ServerClient) and client.waiting]
    others = [client for client in clients if not isinstance(client, ServerClient)]
    # One look at all connections: a look at each would take longer than most waits.
    poller = zmq.Poller()
    owners: dict[zmq.Socket[bytes], ServerClient] = {}
    for client in servers:
        for socket in (client.socket, client.death_watch):
            poller.register(socket, zmq.POLLIN)
            owners[socket] = client
    seconds = 0.0
    while True:
        for client in {owners[socket] for socket, _ in poller.poll(seconds * 1000)}:
            client.take_in()
        done: set[EnvClient] = {client for client in servers if client.has_answer()}
        done |= {client for client in others if client.ready()}
        left = until - time.monotonic()
        if done or not servers or left <= 0:
            return [client for client in clients if client in done]
        seconds = max(0.001, min(left, *(client.seconds_left for client in servers)))


def _ids(env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(env_ids, np.int64)
