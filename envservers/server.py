"""One process, one suite, many environments: the env server.

    python -m envservers.server tabletop --num-envs 16 --bind tcp://127.0.0.1:5555

It prints `ready ADDRESS` and answers requests over ZeroMQ in the order in which they come; frames
are those of `vlarl/wire.py`. A request is `{id, call, ...}`; an answer `{id, result}` or
`{id, error}` with the traceback as text, or `{id, broken_contract}` with what the suite answered
that it may not, such as NaN. Calls: `hello`, `attach`, `detach`, `reset`, `step`,
`expert_actions`, `stats`, `snapshot`, `restore`, `close`. Beyond this machine it listens with a key
alone (`--key-file`); whoever lacks it is turned away (`guard.py`).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import numpy as np
import zmq

from envservers.guard import Guard
from envservers.keys import Key, read_key
from envservers.registry import find_suite, make_suite
from envservers.service import SuiteService
from envservers.shared_memory import SLOTS, ImageRing
from envservers.socket_folder import remove_socket_folder
from vlarl import wire
from vlarl.addresses import stays_on_machine, write_address
from vlarl.errors import EnvContractError, UserError
from vlarl.types import TimeStep
from vlarl.wire_limits import MAX_FRAME_BYTES

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 1.0
_LONGEST_ERROR = 100_000
"""Characters; what a client sent may be quoted in it, and the header of an answer is bounded."""


class _Connection:
    """What the server keeps for one client: the ring its images go to, and the next slot."""

    def __init__(self, ring: ImageRing) -> None:
        self.ring = ring
        self.answers = 0


class EnvServer:
    """Answers the requests of any number of clients, one at a time."""

    def __init__(self, service: SuiteService, socket: zmq.Socket[bytes], local: bool) -> None:
        self._service = service
        self._socket = socket
        self._local = local
        self._connections: dict[bytes, _Connection] = {}
        self._open = True
        self._calls: dict[str, Callable[[bytes, dict[str, Any]], Any]] = {
            "hello": self._hello,
            "attach": self._attach,
            "detach": self._detach,
            "reset": self._reset,
            "step": self._step,
            "expert_actions": lambda _client, request: service.expert_actions(request["env_ids"]),
            "stats": lambda _client, _request: service.stats(),
            "snapshot": lambda _client, _request: np.frombuffer(service.suite.snapshot(), np.uint8),
            "restore": lambda _client, request: service.suite.restore(request["blob"].tobytes()),
            "close": self._close,
        }

    def serve(self) -> None:
        """Answer until a client closes the server."""
        while self._open:
            client, *frames = self._socket.recv_multipart()
            self._socket.send_multipart([client, *self._answer(client, frames)])

    def close(self) -> None:
        """Unmap what was shared and close the suite."""
        for connection in self._connections.values():
            connection.ring.close()
        self._service.suite.close()

    def _answer(self, client: bytes, frames: list[bytes]) -> list[bytes | memoryview]:
        number = -1
        try:
            request = wire.decode(frames)
            if type(request.get("id")) is not int:
                raise wire.WireError("a request needs a whole number as its id")
            number = request["id"]
            result = self._calls[request["call"]](client, request)
            return wire.encode({"id": number, "result": result})
        except EnvContractError as error:
            return wire.encode({"id": number, "broken_contract": str(error)[:_LONGEST_ERROR]})
        # The boundary at which every error of a suite turns into text for the client.
        except Exception:  # noqa: BLE001
            return wire.encode({"id": number, "error": traceback.format_exc()[-_LONGEST_ERROR:]})

    def _hello(self, _client: bytes, _request: dict[str, Any]) -> dict[str, Any]:
        return {
            "spec": wire.spec_to_body(self._service.spec),
            "num_envs": self._service.num_envs,
            "pid": os.getpid(),
        }

    def _attach(self, client: bytes, request: dict[str, Any]) -> None:
        if not self._local:
            raise ValueError("shared memory is for clients on the server's machine")
        ring = ImageRing(request["path"], self._service.spec, self._service.num_envs)
        self._connections[client] = _Connection(ring)

    def _detach(self, client: bytes, _request: dict[str, Any]) -> None:
        if client in self._connections:
            self._connections.pop(client).ring.close()

    def _reset(self, client: bytes, request: dict[str, Any]) -> dict[str, Any]:
        starts = wire.starts_from_body(request["starts"])
        return self._time_step(client, self._service.reset(request["env_ids"], starts))

    def _step(self, client: bytes, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._service.step(request["env_ids"], request["actions"], request["record"])
        return self._time_step(client, answer)

    def _time_step(self, client: bytes, time_step: TimeStep) -> dict[str, Any]:
        body = wire.time_step_to_body(time_step)
        connection = self._connections.get(client)
        if connection is None:
            return {"time_step": body}
        slot = connection.answers % SLOTS
        connection.answers += 1
        connection.ring.write(slot, time_step.images)
        return {"time_step": {**body, "images": {}}, "slot": slot}

    def _close(self, _client: bytes, _request: dict[str, Any]) -> None:
        self._open = False


def bind(address: str, key: Key | None = None) -> tuple[zmq.Socket[bytes], str]:
    """A bound socket and its address, with the port filled in.

    Raises:
        UserError: if the address is malformed or taken, or reaches beyond this machine without a
            key.
    """
    if not address.startswith(("tcp://", "ipc://")):
        raise UserError(f"cannot bind to {address}: use tcp://HOST:PORT or ipc://PATH")
    if key is None and not stays_on_machine(address):
        raise UserError(
            f"{address} can be reached from other machines, and no key is given, so that anybody "
            "could use the server. `vlarl key FILE` makes a key: give the same file to both sides, "
            "key=FILE to `vlarl envserver` (--key-file FILE to `python -m envservers.server`) and "
            "env.key_file=FILE to the run. Or bind to tcp://127.0.0.1:PORT"
        )
    is_path = address.startswith("ipc://")
    if is_path and Path(address.removeprefix("ipc://")).exists():
        raise UserError(f"{address} exists: another server uses it, or remove the file")
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    socket.linger = 1000
    socket.maxmsgsize = MAX_FRAME_BYTES
    if key is not None:
        Guard(socket, key)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        if error.errno == zmq.EADDRINUSE:
            raise UserError(
                f"{address} is in use: choose another port, with bind=tcp://HOST:PORT for "
                "`vlarl envserver`, --bind tcp://HOST:PORT for `python -m envservers.server`"
            ) from error
        raise UserError(
            f"cannot bind to {address}: {error}; use tcp://HOST:PORT or ipc://PATH"
        ) from error
    return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def end_with_host(parent_pid: int, lease_seconds: float, folder: Path | None) -> None:
    """End this process when its host dies or is silent for longer than the lease.

    The host holds the other end of standard input and writes to it; the watching thread ends the
    process even while the suite hangs.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        sys.exit(0)

    def watch() -> None:
        # Unblocks only on news, silence, or the end of the host.
        while select.select([0], [], [], lease_seconds)[0] and os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        if folder is not None:
            remove_socket_folder(folder)
        os._exit(1)

    threading.Thread(target=watch, name="lease", daemon=True).start()


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    # A host's death is told twice, by the kernel and by the lease: the second would break off the
    # cleaning up after the first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m envservers.server", description=__doc__)
    parser.add_argument("suite", help="tabletop, counting or gym:ID")
    parser.add_argument("--num-envs", type=int, required=True)
    parser.add_argument("--bind", default="tcp://127.0.0.1:*", help="tcp://HOST:PORT or ipc://PATH")
    parser.add_argument("--key-file", help="of `vlarl key`; clients need the same")
    parser.add_argument("--address-file", help="is given the address; a run names it as @FILE")
    parser.add_argument("--options-json", default="{}", help="the suite's options, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="simulation threads")
    parser.add_argument("--lease-seconds", type=float, default=60.0, help="with --parent-pid")
    parser.add_argument("--parent-pid", type=int, help="end with this process (spawned servers)")
    return parser.parse_args()


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--options-json {text!r}: not JSON: {error}") from error
    if not isinstance(options, dict):
        raise UserError(f'--options-json {text!r}: not a mapping such as {{"max_steps": 80}}')
    return options


def _serve(arguments: argparse.Namespace) -> None:
    find_suite(arguments.suite)
    options = _options(arguments.options_json)
    key = None if arguments.key_file is None else read_key(arguments.key_file)
    socket, address = bind(arguments.bind, key)
    # A simulator may print as it is imported, and go on: the host reads one line, `ready`, and then
    # nothing, so that the pipe would fill.
    with os.fdopen(os.dup(1), "w") as host:
        os.dup2(2, 1)
        _ready(arguments, options, socket, address, host)


def _ready(
    arguments: argparse.Namespace,
    options: dict[str, Any],
    socket: zmq.Socket[bytes],
    address: str,
    host: TextIO,
) -> None:
    """Make the suite, tell the host, answer until a client closes the server."""
    try:
        suite = make_suite(
            arguments.suite, arguments.num_envs, **{"threads": arguments.threads, **options}
        )
        server = EnvServer(SuiteService(suite), socket, local=address.startswith("ipc://"))
        if arguments.address_file is not None:
            _publish(arguments.address_file, address)
        print(f"ready {address}", file=host, flush=True)
        try:
            server.serve()
        finally:
            server.close()
    finally:
        socket.close()


def _publish(file: str, address: str) -> None:
    """Write the address where runs look for it.

    Raises:
        UserError: if the file cannot be written, or the address names no host.
    """
    if address.startswith(("tcp://0.0.0.0:", "tcp://[::]:")):
        raise UserError(
            f"{address} is every interface, which tells nobody where to go: name the one that runs "
            f"reach, such as bind=tcp://10.0.0.5:*, for the address in {file}"
        )
    try:
        write_address(file, address)
    except OSError as error:
        raise UserError(f"cannot write the address file: {error}") from error


def main() -> None:
    """Entry point; a user's mistake is one line and exit code 2."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _terminate)
    # Interrupting a run from the keyboard signals the whole group; the host decides when we end.
    spawned = arguments.parent_pid is not None
    folder = None
    if spawned:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if arguments.bind.startswith("ipc://"):
            folder = Path(arguments.bind.removeprefix("ipc://")).parent
        end_with_host(arguments.parent_pid, arguments.lease_seconds, folder)
    try:
        _serve(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if folder is not None:
            remove_socket_folder(folder)


if __name__ == "__main__":
    main()
