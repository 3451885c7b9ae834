"""The env hosts of a Ray run: one on each node that acts, replaced when its process dies.

Ray starts a dead host's process again on its node, behind the same handle; the new one starts its
servers when it is first asked for one. Servers end with their host, so that whoever acts on them
asks at once. A node that is lost takes its rollout workers along: `ray_workers.py` finds both a new
one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.env_host import EnvHost
from actors.placement import remote
from actors.player import Progress
from vlarl.config.process_schema import EnvConfig
from vlarl.config.schema import RunConfig
from vlarl.errors import EnvServerError, ProcessDied


class EnvServerActor:
    """An `EnvHost` in an actor, one on each node that acts; needs no CPU of its own.

    Actors begin with `start`, not with a constructor that works: what a constructor raises reaches
    the caller as text only.
    """

    def __init__(self, config: EnvConfig) -> None:
        self._config = config
        self._opened: EnvHost | None = None
        self._played = 0

    def start(self) -> int:
        """Start the servers, see `EnvHost`; returns the process id."""
        self._host  # noqa: B018, opens it
        return os.getpid()

    @property
    def _host(self) -> EnvHost:
        if self._opened is None:
            self._opened = EnvHost(self._config)
        return self._opened

    def addresses(self) -> list[str]:
        """See `EnvHost`."""
        return self._host.addresses()

    def restart(self, index: int, failed: str) -> str:
        """See `EnvHost`; the server at `failed` may be replaced already, together with its host."""
        present = self._host.addresses()[index]
        return self._host.restart(index) if present == failed else present

    def note_played(self, episodes: int) -> None:
        """How far an evaluation on these servers is: told by whoever plays, who is busy then."""
        self._played = episodes

    def played(self) -> int:
        """What was noted last."""
        return self._played

    def pid(self) -> int:
        """Of this process: another one after it was replaced."""
        return os.getpid()

    def close(self) -> None:
        """End the servers."""
        if self._opened is not None:
            self._opened.close()


class RemoteHost:
    """A remote `EnvHost` that answers like a local one.

    Raises:
        EnvServerError: in place of Ray's own, if the host was lost more often than allowed.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._known: list[str] = []

    def addresses(self) -> list[str]:
        """See `EnvHost`."""
        self._known = self._asked(self._actor.addresses.remote())
        return list(self._known)

    def restart(self, index: int) -> str:
        """See `EnvHost`."""
        address: str = self._asked(self._actor.restart.remote(index, self._known[index]))
        self._known[index] = address
        return address

    def _asked(self, reference: Any) -> Any:
        try:
            return fetch(reference)
        except ProcessDied as error:
            raise EnvServerError(
                "the host of the env servers died more often than runtime.restarts allows, or with "
                f"its node: {error}"
            ) from error


class Hosts:
    """The hosts of a run, each on its node.

    Args:
        config: of the run; each host's process may be replaced `runtime.restarts` times.
        nodes: Ray node ids.
    """

    def __init__(self, config: RunConfig, nodes: Iterable[str]) -> None:
        self._config = config
        # Of a planned node and the present one, which differ where the planned one was lost.
        self._actors: dict[tuple[str, str], Any] = {}
        self._pids: dict[tuple[str, str], int] = {}
        for node in nodes:
            self._actors.setdefault((node, node), self._made(node))
        self._starting = {place: actor.start.remote() for place, actor in self._actors.items()}

    def of(self, home: str, node: str) -> Any:
        """The host of the workers that were planned on `home` and live on `node`.

        Started if it is not there: servers have one client, so that workers that move to a node
        with workers of its own have a host of their own too.
        """
        place = (home, node)
        if place not in self._actors:
            self._actors[place] = self._made(node)
            self._pids[place] = fetch(self._actors[place].start.remote())
        return self._actors[place]

    def wait(self) -> None:
        """Until all servers are up.

        Raises:
            Exception: see `EnvHost`.
        """
        self._pids = {place: fetch(started) for place, started in self._starting.items()}

    def restarted(self) -> int:
        """How many hosts are other processes than they were when this was asked last."""
        answers = {place: actor.pid.remote() for place, actor in self._actors.items()}
        changed = 0
        for place, answer in answers.items():
            try:
                pid = fetch(answer)
            except ProcessDied:
                # Lost with its node, and with it whoever asked it for servers.
                del self._actors[place]
                continue
            changed += pid != self._pids[place]
            self._pids[place] = pid
        return changed

    def close(self, seconds: float) -> None:
        """End all servers, as far as that takes no longer than this."""
        closing = [actor.close.remote() for actor in self._actors.values()]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=seconds)

    def _made(self, node: str) -> Any:
        # Ray replaces the process, and repeats what it was asked when it died.
        limit = self._config.runtime.restarts
        actor = remote(EnvServerActor, 0, node, max_restarts=limit, max_task_retries=limit)
        return actor.remote(self._config.env)


def noting(host: Any) -> Progress:
    """Tells an `EnvServerActor`, without waiting for it, how many episodes were played."""

    def note(done: int, _total: int) -> None:
        host.note_played.remote(done)

    return note


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
