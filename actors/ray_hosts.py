"""The env hosts of a Ray run: one on each node with env servers, replaced when its process dies.

Ray starts a dead host's process again in its seat, behind the same handle; the new one starts its
servers when it is first asked for one. Servers end with their host, so that whoever acts on them
asks at once. A node that is lost takes its rollout workers along: `ray_workers.py` finds both a new
one.
"""

from __future__ import annotations

import os
from typing import Any

import ray

from actors.env_host import EnvHost
from actors.env_link import EnvLink, fetch
from actors.placement import Placement, address_of_this_node, remote_beside
from envservers.keys import Key, new_key
from vlarl.config.process_schema import EnvConfig
from vlarl.config.schema import RunConfig
from vlarl.errors import ProcessDied

_PID_SECONDS = 10.0
"""In which a host that lives has said its process id."""


class EnvServerActor:
    """An `EnvHost` in an actor, one on each node with env servers; needs no CPU of its own.

    Actors begin with `start`, not with a constructor that works: what a constructor raises reaches
    the caller as text only.
    """

    def __init__(self, config: EnvConfig, key: Key | None) -> None:
        """With a `key`, the servers listen to other nodes."""
        self._config, self._key = config, key
        self._opened: EnvHost | None = None
        self._played = 0

    def start(self) -> int:
        """Start the servers, see `EnvHost`; returns the process id."""
        self._host  # noqa: B018, opens it
        return os.getpid()

    @property
    def _host(self) -> EnvHost:
        if self._opened is None:
            # Another node than before, perhaps: a host may have moved with its seat.
            listen = None if self._key is None else address_of_this_node()
            self._opened = EnvHost(self._config, listen, self._key)
        return self._opened

    def addresses(self) -> list[str]:
        """See `EnvHost`."""
        return self._host.addresses()

    def restart(self, index: int, failed: str, suite: str | None = None) -> str:
        """See `EnvHost`; the server at `failed` may be replaced already, together with its host."""
        present = self._host.addresses()[index]
        replaced = present != failed and suite in (None, self._host.suites[index])
        return present if replaced else self._host.restart(index, suite)

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


class Hosts:
    """The hosts of a run, each in its seat.

    Args:
        config: of the run; each host's process may be replaced `runtime.restarts` times.
        placement: of the run.

    Attributes:
        links: of each worker, or of the learner that acts, to its servers.
    """

    def __init__(self, config: RunConfig, placement: Placement) -> None:
        self._config, self._plan = config, placement.plan
        # Servers listen to other nodes with a key alone.
        self._key = new_key() if placement.plan.hosts_apart else None
        options = self._options()
        self._seated = [
            placement.remote(EnvServerActor, seat, **options).remote(config.env, self._key)
            for seat in placement.plan.hosts
        ]
        self._beside: dict[tuple[int, str], Any] = {}
        self._starting = [actor.start.remote() for actor in self._seated]
        self._pids: dict[Any, int] = {}
        self.links = [
            EnvLink(tuple(self._seated[number] for number in each.hosts), each.share, self._key)
            for each in placement.plan.shares
        ]

    def link_beside(self, worker: int, node: str) -> EnvLink:
        """For a worker that had to leave its seat for `node`.

        A host there is started if there is none: servers have one client, so that workers that
        move to a node with workers of its own have a host of their own too.
        """
        link, planned = self.links[worker], self._plan.shares[worker]
        if self._plan.hosts_apart:
            return link
        (number,) = planned.hosts
        if (number, node) not in self._beside:
            seat = self._plan.hosts[number]
            made = remote_beside(EnvServerActor, seat, node, **self._options())
            actor = made.remote(self._config.env, self._key)
            self._beside[number, node] = actor
            self._pids[actor] = fetch(actor.start.remote())
        return EnvLink((self._beside[number, node],), link.share, link.key)

    def wait(self) -> None:
        """Until all servers are up.

        Raises:
            Exception: see `EnvHost`.
        """
        self._pids = dict(zip(self._seated, fetch(self._starting), strict=True))

    def restarted(self) -> int:
        """How many hosts are other processes than they were when this was asked last."""
        answers = {actor: actor.pid.remote() for actor in self._pids}
        there, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=_PID_SECONDS)
        changed = 0
        for actor, answer in answers.items():
            try:
                pid = fetch(answer) if answer in there else None
            except ProcessDied:
                pid = None
            if pid is None:
                # Lost with its node, and with it whoever asked it for servers.
                del self._pids[actor]
                continue
            changed += pid != self._pids[actor]
            self._pids[actor] = pid
        return changed

    def close(self, seconds: float) -> None:
        """End all servers, as far as that takes no longer than this."""
        closing = [actor.close.remote() for actor in (*self._seated, *self._beside.values())]
        ray.wait(closing, num_returns=len(closing), timeout=seconds)

    def _options(self) -> dict[str, int]:
        """Ray replaces the process, and repeats what it was asked when it died."""
        limit = self._config.runtime.restarts
        return {"max_restarts": limit, "max_task_retries": limit}
