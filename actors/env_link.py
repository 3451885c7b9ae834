"""From a rollout worker's actor to its env servers: which hosts, which share, with what key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.env_host import EnvAccess
from actors.player import Progress
from envservers.keys import Key
from vlarl.config.process_schema import EnvConfig


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
    """Remote `EnvHost`s that answer like a single local one."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors
        self._counts: list[int] = []

    def addresses(self) -> list[str]:
        """See `EnvHost`."""
        found: list[list[str]] = fetch([actor.addresses.remote() for actor in self._actors])
        self._counts = [len(addresses) for addresses in found]
        return [address for addresses in found for address in addresses]

    def restart(self, index: int) -> str:
        """See `EnvHost`."""
        number = 0
        while index >= self._counts[number]:
            index -= self._counts[number]
            number += 1
        address: str = fetch(self._actors[number].restart.remote(index))
        return address


def fetch(reference: Any) -> Any:
    """The value of a Ray reference, or of a list of them.

    Raises:
        Exception: what the remote call raised, as itself; RuntimeError if its actor died.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except RayActorError as error:
        raise RuntimeError(f"a process of the run died: {error}") from error
