"""From a rollout worker's actor to its env servers: which hosts, which share, with what key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.env_host import EnvAccess
from actors.player import Progress
from envservers.keys import Key
from vlarl.config.process_schema import EnvConfig
from vlarl.errors import EnvServerError, ProcessDied

_TELL_SECONDS = 0.05
"""What a worker makes in this time may be lost without being counted."""
HOST_SECONDS = 180.0
"""A host that does not answer by then has no node any more, and none has room for another."""


def heir_of(name: str) -> str:
    """The name in Ray of whoever takes a host's place on another node: `env host 2/1`, then /2."""
    host, _, heirs = name.partition("/")
    return f"{host}/{int(heirs or 0) + 1}"


@dataclass(frozen=True)
class EnvLink:
    """What an actor needs to reach its env servers."""

    hosts: tuple[Any, ...]
    """`EnvServerActor`s, in Ray."""
    share: tuple[int, int]
    """See `EnvAccess`; of the servers of all these hosts."""
    key: Key | None = None
    """Of the run, where the servers are on other nodes."""
    names: tuple[str, ...] = ()
    """Of the hosts, where one that loses its node has an heir (`heir_of`)."""
    patience: float = HOST_SECONDS
    """Seconds in which a host answers, or has an heir."""

    def open(self, config: EnvConfig) -> EnvAccess:
        """Connect to the servers; see `EnvAccess`."""
        return EnvAccess(config, RemoteHosts(self), self.share, self.key)

    def noting(self) -> Progress:
        """Tells the first host, without waiting for it, how many episodes were played."""

        def note(done: int, _total: int) -> None:
            self.hosts[0].note_played.remote(done)

        return note

    def tell_at_stake(self, worker: int, asked: Callable[[], int]) -> threading.Event:
        """Tells the first host now and then, from a thread, what `asked` says of a worker.

        Returns:
            What ends it.
        """
        stopping = threading.Event()

        def tell() -> None:
            told = 0
            while not stopping.wait(_TELL_SECONDS):
                if (now := asked()) != told:
                    self.hosts[0].note_at_stake.remote(worker, now)
                    told = now

        threading.Thread(target=tell, name="at stake", daemon=True).start()
        return stopping


class RemoteHosts:
    """Remote `EnvHost`s that answer like a single local one.

    Raises:
        EnvServerError: in place of Ray's own, if a host was lost more often than allowed.
    """

    def __init__(self, link: EnvLink) -> None:
        self._actors, self._names = list(link.hosts), list(link.names)
        self._patience = link.patience
        self._known: list[list[str]] = []

    def addresses(self) -> list[str]:
        """See `EnvHost`."""
        numbers = range(len(self._actors))
        self._known = [list(self._asked(number, _addresses)) for number in numbers]
        return [address for addresses in self._known for address in addresses]

    def restart(self, index: int, suite: str | None = None) -> str:
        """See `EnvHost`."""
        number = 0
        while index >= len(self._known[number]):
            index -= len(self._known[number])
            number += 1
        known = self._known[number]
        address: str = self._asked(
            number, lambda host: host.restart.remote(index, known[index], suite)
        )
        known[index] = address
        return address

    def _asked(self, number: int, call: Callable[[Any], Any]) -> Any:
        """What a host answers, or its heir."""
        reference = call(self._actors[number])
        if not ray.wait([reference], timeout=self._patience)[0]:
            raise EnvServerError(
                f"the host of the env servers has not answered for {self._patience:g} s"
            )
        try:
            return fetch(reference)
        except ProcessDied as error:
            if self._inherited(number):
                return self._asked(number, call)
            raise EnvServerError(
                "the host of the env servers died more often than runtime.restarts allows, or with "
                f"its node: {error}"
            ) from error

    def _inherited(self, number: int) -> bool:
        """Whether somebody has taken the host's place: the one to ask from now on."""
        if not self._names:
            return False
        heir = heir_of(self._names[number])
        try:
            self._actors[number] = ray.get_actor(heir)
        except ValueError:
            return False
        self._names[number] = heir
        return True


def _addresses(host: Any) -> Any:
    return host.addresses.remote()


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
