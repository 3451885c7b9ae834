"""Suites seen from outside: in this process, in a child process, or on another machine.

All clients implement `EnvClient`: requests and answers apart, answers first in first out. A server
that dies, hangs or raises is an error with its name; restarting it is the caller's decision.
"""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from envservers.service import SuiteService
from envservers.shared_memory import SLOTS, ImageRing, create_ring_file
from envservers.spawn import ServerProcess
from vlarl import wire
from vlarl.env_protocol import EnvClient, Suite
from vlarl.errors import EnvContractError, EnvServerDied, EnvServerError, UserError
from vlarl.types import EpisodeStart, TimeStep


class InprocessClient:
    """A suite in this very process, for tests and debugging: `submit_*` does the work."""

    def __init__(self, suite: Suite) -> None:
        self._service = SuiteService(suite)
        self.spec = suite.spec
        self.num_envs = suite.num_envs
        self._answers: deque[TimeStep | EnvServerError] = deque()

    def submit_reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """See `EnvClient`."""
        self._run(lambda: self._service.reset(_ids(env_ids), starts))

    def submit_step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> None:
        """See `EnvClient`."""
        actions = np.asarray(actions, np.float32)
        self._run(lambda: self._service.step(_ids(env_ids), actions, record))

    def ready(self) -> bool:
        """See `EnvClient`."""
        return bool(self._answers)

    def receive(self, timeout: float | None = None) -> TimeStep:
        """See `EnvClient`; never waits."""
        answer = self._answers.popleft()
        if isinstance(answer, EnvServerError):
            raise answer
        return answer

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """See `EnvClient`."""
        self.submit_reset(env_ids, starts)
        return self.receive()

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """See `EnvClient`."""
        self.submit_step(env_ids, actions, record)
        return self.receive()

    def stats(self) -> dict[str, float]:
        """See `EnvClient`."""
        return self._service.stats()

    def snapshot(self) -> bytes:
        """See `Suite`."""
        return self._service.suite.snapshot()

    def restore(self, blob: bytes) -> None:
        """See `Suite`."""
        self._service.suite.restore(blob)

    def close(self) -> None:
        """See `EnvClient`."""
        self._service.suite.close()

    def _run(self, call: Callable[[], TimeStep]) -> None:
        try:
            self._answers.append(call())
        except EnvContractError as error:
            self._answers.append(error)
        # The same boundary as in the server: an error of the suite is text from here on.
        except Exception:  # noqa: BLE001
            self._answers.append(
                EnvServerError(
                    f"the suite {self.spec.suite!r} in this process raised:\n"
                    f"{traceback.format_exc()}"
                )
            )


class ServerClient:
    """A suite in another process, reached by its address.

    Args:
        address: `ipc://PATH` (images then travel in shared memory) or `tcp://HOST:PORT`.
        deadline: seconds within which every request must be answered.
        process: the process, if this client started it and is to end it.

    Raises:
        UserError: for a malformed address.
        EnvServerDied: if no server answers within the deadline.
        EnvServerError: if the server speaks another version.
    """

    def __init__(
        self, address: str, deadline: float = 60.0, process: ServerProcess | None = None
    ) -> None:
        self.address = address
        self.deadline = deadline
        self._process = process
        self._pid: int | None = None if process is None else process.pid
        self._dead: str | None = None
        self._closed = False
        self._next_id = 0
        self._waiting: deque[int] = deque()
        self._overdue_at = 0.0
        self._answers: dict[int, dict[str, Any]] = {}
        self._ring: ImageRing | None = None
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 1000
        # Answers are few and bounded by SLOTS, so no queue of ZeroMQ's can drop one.
        self.death_watch = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self._disconnect()
            raise UserError(
                f"cannot connect to {address!r}: {error}; use tcp://HOST:PORT or ipc://PATH"
            ) from error
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
        if not self._waiting:
            return False
        self._pump(0.0)
        return (
            self._waiting[0] in self._answers
            or self._dead is not None
            or time.monotonic() >= self._overdue_at
        )

    def receive(self, timeout: float | None = None) -> TimeStep:
        """See `EnvClient`; after EnvServerDied this client is of no further use."""
        if not self._waiting:
            raise ValueError("receive() without an unanswered request")
        until = self._overdue_at if timeout is None else time.monotonic() + timeout
        number = self._waiting[0]
        answer = self._await(number, until)
        self._waiting.popleft()
        self._overdue_at = time.monotonic() + self.deadline
        result = self._result(answer)
        body = result["time_step"]
        if "slot" in result:
            assert self._ring is not None
            body["images"] = self._ring.read(result["slot"], len(body["env_ids"]))
        return wire.time_step_from_body(body)

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

    def snapshot(self) -> bytes:
        """See `Suite`; taken after the requests before it."""
        return self._call("snapshot")

    def restore(self, blob: bytes) -> None:
        """See `Suite`."""
        self._call("restore", blob=blob)

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
            self._send("close" if self._process is not None else "detach")
        self._disconnect()
        if self._process is not None:
            self._process.close()

    def _disconnect(self) -> None:
        self._closed = True
        self.socket.disable_monitor()
        self.death_watch.close(linger=0)
        self.socket.close()
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
            raise EnvServerDied(self._dead)
        if not self._waiting:
            self._overdue_at = time.monotonic() + self.deadline
        self._waiting.append(self._send(call, **body))

    def _call(self, call: str, **body: Any) -> Any:
        number = self._send(call, **body)
        return self._result(self._await(number, time.monotonic() + self.deadline))

    def _send(self, call: str, **body: Any) -> int:
        number = self._next_id
        self._next_id += 1
        self.socket.send_multipart(wire.encode({"id": number, "call": call, **body}))
        return number

    def _await(self, number: int, until: float) -> dict[str, Any]:
        while True:
            self._pump(0.0)
            if number in self._answers:
                return self._answers.pop(number)
            if self._dead is None and time.monotonic() >= until:
                self._dead = self._obituary("did not answer in time")
            if self._dead is not None:
                raise EnvServerDied(self._dead)
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
        died = self._dead is None and bool(self.death_watch.poll(0))
        while self.socket.poll(0):
            answer = wire.decode(self.socket.recv_multipart())
            if answer["id"] == -1:
                raise EnvServerError(f"{self.address} could not read a request:\n{answer['error']}")
            self._answers[answer["id"]] = answer
        if died:
            self._dead = self._obituary("is gone")

    def _obituary(self, what: str) -> str:
        text = f"env server {self.address} (pid {self._pid or 'unknown'}) {what}"
        if what != "is gone":
            text += f" (deadline {self.deadline:g} s)"
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


def connect(address: str, deadline: float = 60.0) -> ServerClient:
    """A client of a running server; its death or `close` leaves the server running."""
    return ServerClient(address, deadline)


def spawn_server(
    suite: str,
    num_envs: int,
    options: Mapping[str, Any] | None = None,
    deadline: float = 60.0,
    *,
    python: str | None = None,
    threads: int = 1,
    lease_seconds: float = 60.0,
    start_seconds: float = 60.0,
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
    servers = [client for client in clients if isinstance(client, ServerClient)]
    while True:
        ready = [client for client in clients if client.ready()]
        waiting = [client for client in servers if client.waiting]
        seconds = until - time.monotonic()
        if ready or not waiting or seconds <= 0:
            return ready
        poller = zmq.Poller()
        for client in waiting:
            poller.register(client.socket, zmq.POLLIN)
            poller.register(client.death_watch, zmq.POLLIN)
        seconds = min(seconds, *(client.seconds_left for client in waiting))
        poller.poll(max(1.0, seconds * 1000))


def _ids(env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(env_ids, np.int64)
