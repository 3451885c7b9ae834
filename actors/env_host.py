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
from envservers.registry import check_memory, config_options, make_suite, memory_needed
from envservers.spawn import ServerProcess
from envservers.usable import check_usable
from vlarl.addresses import present_address
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvKeyRefused, EnvServerDied, UserError
from vlarl.types import EnvSpec

_LOOK_AGAIN_SECONDS = 5.0
"""How long one address of an `@FILE` is tried before the file is read again."""
_POLL_SECONDS = 0.2


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class EnvHost:
    """The env servers of one node (`env.mode: spawn`), or the way to others' (`connect`).

    Args:
        config: suites, numbers of servers, deadline.
        listen: address of this node (IP or name) at which servers listen to rollout workers on
            other nodes, by TCP, instead of private sockets.
        key: what those must have.

    Raises:
        UserError: for a mistake in suite, options, tasks or key, a suite that is not installed or
            cannot draw here, or more environments than memory.
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
        servers = _servers(config)
        self._groups = [group for _, group in servers]
        self.suites = [name for name, _ in servers]
        """Of each server, by name; empty for the only one."""
        if config.mode == "spawn":
            for group in config.groups.values():
                check_usable(group.suite)
            _check_memory(config)
            # More at a time would make each of them late.
            with ThreadPoolExecutor(min(len(self._groups), 2 * _cores())) as pool:
                futures = [pool.submit(self._start, group) for group in self._groups]
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
            return _addresses(self._config)
        return [process.address for process in self._processes]

    def restart(self, index: int, suite: str | None = None) -> str:
        """End server `index`, whatever state it is in, and start another; returns its address.

        With `connect` the servers are others' to restart: the address is the same.

        Args:
            index: number of the server.
            suite: of `env.suites`, which the new one is to simulate; None: as before.
        """
        if self._config.mode == "connect":
            return _addresses(self._config)[index]
        with self._lock:
            if suite is not None:
                self.suites[index], self._groups[index] = suite, self._config.groups[suite]
            self._processes[index].close()
            self._processes[index] = self._start(self._groups[index])
            return self._processes[index].address

    def pids(self) -> list[int]:
        """Process ids of the servers."""
        return [process.pid for process in self._processes]

    def close(self) -> None:
        """End all servers; safe to call twice."""
        for process in self._processes:
            process.close()

    def _start(self, group: EnvConfig) -> ServerProcess:
        with nullcontext("") if self._key is None else key_in_memory(self._key) as key_file:
            return ServerProcess(
                group.suite,
                group.envs_per_server,
                config_options(group),
                bind=self._bind,
                key_file=key_file,
            )


def _servers(config: EnvConfig) -> list[tuple[str, EnvConfig]]:
    """Suite of each server of a node, by name and as it is alone, in the order of their numbers."""
    return [
        (name, group)
        for name, group in config.groups.items()
        for _ in range(len(group.addresses) if config.mode == "connect" else group.servers)
    ]


def _addresses(config: EnvConfig) -> list[str]:
    return [address for group in config.groups.values() for address in group.addresses]


def _check_memory(config: EnvConfig) -> None:
    """Refuse more environments than memory: of each suite, then of all, as they run together."""
    taken = 0
    for group in config.groups.values():
        size = group.suite, group.envs_per_server, group.servers, config_options(group)
        check_memory(*size, taken=taken)
        taken += memory_needed(*size)


class Host(Protocol):
    """What an `EnvAccess` asks of a host, be it an object or a Ray actor."""

    def addresses(self) -> list[str]:
        """Where the servers are, in the order of their numbers."""
        ...

    def restart(self, index: int, suite: str | None = None) -> str:
        """Replace a server; returns the new one's address."""
        ...


class EnvAccess:
    """The clients of a host's servers, and how to replace one that failed.

    Args:
        config: of the run.
        host: an `EnvHost`, or what answers like one; None for `env.mode: inprocess`.
        share: `(k, n)`: every n-th server of each suite from the k-th on, where workers share
            hosts.
        key: of the hosts' servers, if they listen to other nodes.

    Attributes:
        clients: in the order of the hosts, of each in the order of the suites.
        suites: name of each client's suite; empty for the only one.

    Raises:
        UserError: if no server, or one of another suite, answers at one of the addresses of
            `env.mode: connect`.
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
        servers = _servers(config)
        addresses = [] if host is None else host.addresses()
        # Several hosts have the same servers, one after the other.
        servers *= max(1, len(addresses) // len(servers))
        self._numbers = _shared([name for name, _ in servers], share)
        self.suites = [servers[number][0] for number in self._numbers]
        self._groups = [servers[number][1] for number in self._numbers]
        self.clients: list[EnvClient] = []
        for number, group in zip(self._numbers, self._groups, strict=True):
            if host is None:
                self.clients.append(_named(_inprocess(group), group))
            else:
                self._connect(addresses[number], group, servers[number][0])

    @property
    def specs(self) -> dict[str, EnvSpec]:
        """Suite -> what its servers simulate."""
        return {name: self.clients[self.suites.index(name)].spec for name in self._config.groups}

    def restart(self, index: int, suite: str | None = None) -> EnvClient:
        """A client of a new server in place of client `index`, of another suite if one is named."""
        self.clients[index].close()
        if suite is not None:
            self.suites[index], self._groups[index] = suite, self._config.groups[suite]
        group = self._groups[index]
        if self._host is None:
            client = _inprocess(group)
        else:
            # Named in any case: a host that was itself replaced knows of no moves.
            address = self._host.restart(self._numbers[index], self.suites[index] or None)
            client = self._opened(address)
        self.clients[index] = _named(client, group)
        return self.clients[index]

    def close(self) -> None:
        """Disconnect; servers are the host's to end."""
        for client in self.clients:
            client.close()

    def _connect(self, address: str, config: EnvConfig, suite: str) -> None:
        """Add a client of the server at `address`, or disconnect from all."""
        key = f"env.suites.{suite}" if suite else "env"
        try:
            self.clients.append(_named(self._opened(address), config))
        except EnvServerDied as error:
            self.close()
            if config.mode != "connect" or isinstance(error, EnvKeyRefused):
                raise
            file = address.removeprefix("@")
            where = f"bind={address}" if file == address else f"address_file={file} bind=..."
            raise UserError(
                f"{key}.addresses: no env server answers at {address} within env.deadline_seconds="
                f"{config.deadline_seconds:g}. Start one: vlarl envserver {config.suite} "
                f"num_envs={config.envs_per_server} {where}"
            ) from error
        found = self.clients[-1].spec.suite
        if suite and found != config.suite:
            self.close()
            raise UserError(
                f"{key}.addresses: the env server at {address} simulates {found}, not "
                f"{config.suite}; name the servers of this suite, or {key}.suite={found}"
            )

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


def _shared(suites: list[str], share: tuple[int, int]) -> list[int]:
    """Numbers of the servers of a share `(k, n)`: every n-th of each suite from the k-th on."""
    first, every = share
    ranks = [suites[:number].count(name) for number, name in enumerate(suites)]
    return [number for number, rank in enumerate(ranks) if rank % every == first]


def _named(client: EnvClient, config: EnvConfig) -> EnvClient:
    """The client, whose environments are the robot that the config says they are."""
    if config.embodiment:
        client.spec = dataclasses.replace(client.spec, embodiment=config.embodiment)
    return client


def _inprocess(config: EnvConfig) -> EnvClient:
    suite = make_suite(config.suite, config.envs_per_server, **config_options(config))
    return InprocessClient(suite)
