"""From a rollout worker's actor to its env servers: which hosts, which share, with what key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.env_host import EnvAccess
from actors.player import Progress
from envservers.keys import Key
from vlarl.config.process_schema import EnvConfig
from vlarl.errors import EnvServerError, ProcessDied

HOST_SECONDS = 180.0
"""A host that does not answer by then has no node any more, and none has room for another."""


@dataclass(frozen=True)
class EnvLink:
    """What an actor needs to reach its env servers."""

    hosts: tuple[Any, ...]
    """`EnvServerActor`s, in Ray."""
    share: tuple[int, int]
    """See `EnvAccess`; of the servers of all these hosts."""
    key: Key | None = None
    """Of the run, where the servers are on other nodes."""

    def open(self, config: EnvConfig) -> EnvAccess:
        """Connect to the servers; see `EnvAccess`."""
        return EnvAccess(config, RemoteHosts(self.hosts), self.share, self.key)

    def noting(self) -> Progress:
        """Tells the first host, without waiting for it, how many episodes were played."""

        def note(done: int, _total: int) -> None:
            self.hosts[0].note_played.remote(done)

        return note


class RemoteHosts:
    """Remote `EnvHost`s that answer like a single local one.

    Raises:
        EnvServerError: in place of Ray's own, if a host was lost more often than allowed.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors
        self._known: list[list[str]] = []

    def addresses(self) -> list[str]:
        """See `EnvHost`."""
        self._known = [list(_asked(each.addresses.remote())) for each in self._actors]
        return [address for addresses in self._known for address in addresses]

    def restart(self, index: int, suite: str | None = None) -> str:
        """See `EnvHost`."""
        number = 0
        while index >= len(self._known[number]):
            index -= len(self._known[number])
            number += 1
        known = self._known[number]
        address: str = _asked(self._actors[number].restart.remote(index, known[index], suite))
        known[index] = address
        return address


def _asked(reference: Any) -> Any:
    if not ray.wait([reference], timeout=HOST_SECONDS)[0]:
        raise EnvServerError(f"the host of the env servers has not answered for {HOST_SECONDS:g} s")
    try:
        return fetch(reference)
    except ProcessDied as error:
        raise EnvServerError(
            "the host of the env servers died more often than runtime.restarts allows, or with "
            f"its node: {error}"
        ) from error


def fetch(reference: Any) -> Any:
    """The value of a Ray reference, or of a list of them.

    Raises:
        Exception: what the remote call raised, as itself.
        ProcessDied: if its process or its node is gone, or what it had made with it.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RayError):
            raise ProcessDied(f"a process of the run died: {error.cause}") from error
        raise error.cause from error
    except RayError as error:
        raise ProcessDied(f"a process of the run died: {error}") from error
