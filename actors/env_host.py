"""Hosts one node's env servers: starts them, watches them, replaces those that fail.

It hands out addresses. Observations never pass through here: whoever acts connects to the servers
itself (shared memory on the same node). Imports neither torch nor Ray: an actor of it stays light
(`ray_hosts.py`).
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Protocol

from envservers.client import connect
from envservers.inprocess import InprocessClient
from envservers.keys import Key, key_in_memory, read_key
from envservers.registry import check_memory, config_options, make_suite
from envservers.spawn import ServerProcess
from vlarl.addresses import present_address
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvKeyRefused, EnvServerDied, UserError

_LOOK_AGAIN_SECONDS = 5.0
"""How long one address of an `@FILE` is tried before the file is read again."""
_POLL_SECONDS = 0.2


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class EnvHost:
    """The env servers of one node (`env.mode: spawn`), or the way to others' (`connect`).

    Args:
        config: suite, number of servers, deadline.
        listen: address of this node (IP or name) at which servers listen to rollout workers on
            other nodes, by TCP, instead of private sockets.
        key: what those must have.

    Raises:
        UserError: for a mistake in suite, options, tasks or key, or more environments than memory.
        EnvServerDied: if a server did not start.
    """

    def __init__(
        self, config: EnvConfig, listen: str | None = None, key: Key | None = None
    ) -> None:
        assert (listen is None) == (key is None)
        self._config = config
        self._key = key
        self._bind = None if listen is None else f"tcp://{listen}:*"
        if config.key_file:
            read_key(config.key_file)
        self._lock = threading.Lock()
        self._processes: list[ServerProcess] = []
        if config.mode == "spawn":
            options = config_options(config)
            check_memory(config.suite, config.envs_per_server, config.servers, options)
            # More at a time would make each of them late.
            with ThreadPoolExecutor(min(config.servers, 2 * _cores())) as pool:
                futures = [pool.submit(self._start) for _ in range(config.servers)]
            # Whoever did start is ended again if another failed.
            self._processes = [f.result() for f in futures if f.exception() is None]
            for future in futures:
                error = future.exception()
                if error is not None:
                    self.close()
                    raise error

    def addresses(self) -> list[str]:
        """Where the servers are, in the order of their numbers."""
        if self._config.mode == "connect":
            return list(self._config.addresses)
        return [process.address for process in self._processes]

    def restart(self, index: int) -> str:
        """End server `index`, whatever state it is in, and start another; returns its address.

        With `connect` the servers are others' to restart: the address is the same.
        """
        if self._config.mode == "connect":
            return self._config.addresses[index]
        with self._lock:
            self._processes[index].close()
            self._processes[index] = self._start()
            return self._processes[index].address

    def pids(self) -> list[int]:
        """Process ids of the servers."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """End all servers; safe to call twice."""
        for process in self._processes:
            process.close()

    def _start(self) -> ServerProcess:
        config = self._config
        with nullcontext("") if self._key is None else key_in_memory(self._key) as key_file:
            return ServerProcess(
                config.suite,
                config.envs_per_server,
                config_options(config),
                bind=self._bind,
                key_file=key_file,
            )


class Host(Protocol):
    """What an `EnvAccess` asks of a host, be it an object or a Ray actor."""

    def addresses(self) -> list[str]:
        """Where the servers are, in the order of their numbers."""
        ...

    def restart(self, index: int) -> str:
        """Replace a server; returns the new one's address."""
        ...


class EnvAccess:
    """The clients of a host's servers, and how to replace one that failed.

    Args:
        config: of the run.
        host: an `EnvHost`, or what answers like one; None for `env.mode: inprocess`.
        share: `(k, n)`: every n-th server from the k-th on, where workers share a host.
        key: of the host's servers, if they listen to other nodes.

    Raises:
        UserError: if no server answers at one of the addresses of `env.mode: connect`.
        EnvServerDied: if a server of the host's own does not answer.
    """

    def __init__(
        self,
        config: EnvConfig,
        host: Host | None,
        share: tuple[int, int] = (0, 1),
        key: Key | None = None,
    ) -> None:
        self._config = config
        self._host = host
        self._key = key
        first, every = share
        self.clients: list[EnvClient] = []
        if host is None:
            self._numbers = list(range(first, config.servers, every))
            self.clients = [self._named(self._inprocess()) for _ in self._numbers]
        else:
            addresses = host.addresses()
            self._numbers = list(range(first, len(addresses), every))
            for number in self._numbers:
                self._connect(addresses[number])

    def restart(self, index: int) -> EnvClient:
        """A client of a new server in place of client `index`."""
        self.clients[index].close()
        if self._host is None:
            client = self._inprocess()
        else:
            address = self._host.restart(self._numbers[index])
            client = self._opened(address)
        self.clients[index] = self._named(client)
        return self.clients[index]

    def close(self) -> None:
        """Disconnect; servers are the host's to end."""
        for client in self.clients:
            client.close()

    def _connect(self, address: str) -> None:
        """Add a client of the server at `address`, or disconnect from all."""
        config = self._config
        try:
            self.clients.append(self._named(self._opened(address)))
        except EnvServerDied as error:
            self.close()
            if config.mode != "connect" or isinstance(error, EnvKeyRefused):
                raise
            file = address.removeprefix("@")
            where = f"bind={address}" if file == address else f"address_file={file} bind=..."
            raise UserError(
                f"env.addresses: no env server answers at {address} within env.deadline_seconds="
                f"{config.deadline_seconds:g}. Start one: vlarl envserver {config.suite} "
                f"num_envs={config.envs_per_server} {where}"
            ) from error

    def _opened(self, entry: str) -> EnvClient:
        """A client of the server there; of `@FILE`, wherever the file says until the deadline."""
        deadline = self._config.deadline_seconds
        until = time.monotonic() + deadline
        while True:
            try:
                address = present_address(entry)
                patience = min(deadline, _LOOK_AGAIN_SECONDS) if entry != address else deadline
                return self._connected(address, patience)
            except EnvKeyRefused:
                raise
            except EnvServerDied:
                if not entry.startswith("@") or time.monotonic() >= until:
                    raise
                time.sleep(_POLL_SECONDS)

    def _connected(self, address: str, patience: float) -> EnvClient:
        """A client of the server there, if it answers at once; private sockets have no key."""
        path = self._config.key_file
        key = self._key
        if path and address.startswith("tcp://"):
            key = read_key(path)
        client = connect(address, patience, key)
        client.deadline = self._config.deadline_seconds
        return client

    def _named(self, client: EnvClient) -> EnvClient:
        """The client, whose environments are the robot that the config says they are."""
        if self._config.embodiment:
            client.spec = dataclasses.replace(client.spec, embodiment=self._config.embodiment)
        return client

    def _inprocess(self) -> EnvClient:
        config = self._config
        suite = make_suite(config.suite, config.envs_per_server, **config_options(config))
        return InprocessClient(suite)
