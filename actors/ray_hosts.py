"""The env hosts of a Ray run: one on each node with env servers, replaced when its process dies.

Ray starts a dead host's process again in its seat, behind the same handle; the new one starts its
servers when it is first asked for one. Servers end with their host, so that whoever acts on them
asks at once. A node that is lost takes its rollout workers along: `ray_workers.py` finds both a new
one. A node with env servers alone takes no worker along: where Ray has no other node for its seat,
an heir takes the host's place, whom workers find by name (`env_link.py`).
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import ray

from actors.env_host import EnvHost
from actors.env_link import HOST_SECONDS, EnvLink, fetch, heir_of
from actors.placement import (
    GRANT_SECONDS,
    PLACE_SECONDS,
    Placement,
    address_of_this_node,
    living_nodes,
    node_of_this_process,
    remote_anywhere,
    remote_beside,
)
from envservers.keys import Key, new_key
from vlarl.config.process_schema import EnvConfig
from vlarl.config.schema import RunConfig
from vlarl.errors import ProcessDied

_PID_SECONDS = 10.0
"""In which a host that lives has said its process id."""
_LOOK_SECONDS = 2.0
"""Between two looks whether the nodes of the hosts live."""

logger = logging.getLogger(__name__)


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
        self._at_stake: dict[int, int] = {}

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

    def note_at_stake(self, worker: int, decisions: int) -> None:
        """What would be lost with a worker, who tells it."""
        self._at_stake[worker] = decisions

    def at_stake(self, worker: int) -> int:
        """What was noted last; nothing from then on, as it is lost."""
        return self._at_stake.pop(worker, 0)

    def node(self) -> str:
        """Where this process runs."""
        return node_of_this_process()

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
    """

    def __init__(self, config: RunConfig, placement: Placement) -> None:
        self._config, self._placement, self._plan = config, placement, placement.plan
        # Servers listen to other nodes with a key alone.
        self._key = new_key() if placement.plan.hosts_apart else None
        options = self._options()
        self._seated = [
            placement.remote(EnvServerActor, seat, **options).remote(config.env, self._key)
            for seat in placement.plan.hosts
        ]
        self._names = [f"env host {number}" for number in range(len(self._seated))]
        self._nodes: list[str | None] = [None] * len(self._seated)
        """Where each lived when that was looked at last."""
        self._lost: dict[int, float] = {}
        """Host without a node -> since when."""
        self._heirs: dict[Any, Any] = {}
        """Host -> who took its place."""
        self._looked = 0.0
        self._moved = 0
        self._beside: dict[tuple[int, str], Any] = {}
        self._starting = [actor.start.remote() for actor in self._seated]
        self._pids: dict[Any, int] = {}

    @property
    def links(self) -> list[EnvLink]:
        """Of each worker, or of the learner that acts, to its servers as they are now."""
        apart = self._plan.hosts_apart
        return [
            EnvLink(
                tuple(self._seated[number] for number in each.hosts),
                each.share,
                self._key,
                tuple(self._names[number] for number in each.hosts) if apart else (),
                HOST_SECONDS + (self._moving_seconds + PLACE_SECONDS if apart else 0.0),
            )
            for each in self._plan.shares
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
        self._nodes = [self._placement.node_of(seat) for seat in self._plan.hosts]

    def attended(self, reference: Any) -> Any:
        """`reference`, once it is done; until then hosts are looked after, who may be waited for.

        Raises:
            Exception: see `look_after`.
        """
        while not ray.wait([reference], timeout=_LOOK_SECONDS)[0]:
            self.look_after()
        return reference

    def look_after(self) -> None:
        """Find a new place for a host apart whose node is lost, unless Ray moves its seat in time.

        Raises:
            RuntimeError: if no node has room for it.
            Exception: see `EnvHost`.
        """
        now = time.monotonic()
        if not self._plan.hosts_apart or now - self._looked < _LOOK_SECONDS:
            return
        self._looked, alive = now, living_nodes()
        for number, seat in enumerate(self._plan.hosts):
            if self._nodes[number] in alive:
                continue
            since = self._lost.setdefault(number, now)
            # An heir has no seat.
            moved = None if "/" in self._names[number] else self._placement.node_of(seat)
            if moved is not None:
                self._nodes[number] = moved
            elif now - since >= self._moving_seconds:
                self._nodes[number] = self._inherited(number)
            if self._nodes[number] in alive:
                del self._lost[number]
                logger.warning("%s lost its node, and goes on on another", self._names[number])

    def _inherited(self, number: int) -> str:
        """Have an heir take a host's place; the heir's node."""
        lost, asked = self._seated[number], self._config.cluster.envs
        name = heir_of(self._names[number])
        made = remote_anywhere(
            EnvServerActor, asked.cpus, asked.labels, name=name, **self._options()
        )
        heir = made.remote(self._config.env, self._key)
        starting = heir.start.remote()
        if not ray.wait([starting], timeout=PLACE_SECONDS)[0]:
            ray.kill(heir)
            labels = f" and labels {dict(asked.labels)}" if asked.labels else ""
            raise RuntimeError(
                f"{self._names[number]} was lost with its node, and no node of the Ray cluster has "
                f"room for another within {PLACE_SECONDS:g} s: it needs {asked.cpus:g} CPUs"
                f"{labels}. Add a node, then continue the run with resume=auto."
            )
        self._pids.pop(lost, None)
        self._pids[heir] = fetch(starting)
        node: str = fetch(heir.node.remote())
        self._seated[number], self._names[number], self._heirs[lost] = heir, name, heir
        self._moved += 1
        # Who waits for the one that is lost hears of its end, and asks the heir.
        ray.kill(lost)
        return node

    def present(self, host: Any) -> Any:
        """The host, or who has taken its place."""
        while host in self._heirs:
            host = self._heirs[host]
        return host

    def played(self, host: Any) -> int | None:
        """How far an evaluation on a host's servers is; None if it does not say at once."""
        return self._said(self.present(host).played.remote())

    def at_stake(self, worker: int, host: Any) -> int | None:
        """Decisions lost with a worker, as its host was told; None if that is lost too."""
        return self._said(self.present(host).at_stake.remote(worker))

    def _said(self, answer: Any) -> int | None:
        if not ray.wait([answer], timeout=_LOOK_SECONDS)[0]:
            return None
        try:
            said: int = fetch(answer)
        except ProcessDied:
            return None
        return said

    def restarted(self) -> int:
        """How many hosts are other processes than they were when this was asked last."""
        answers = {actor: actor.pid.remote() for actor in self._pids}
        there, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=_PID_SECONDS)
        changed, self._moved = self._moved, 0
        for actor, answer in answers.items():
            try:
                pid = fetch(answer) if answer in there else None
            except ProcessDied:
                pid = None
            if pid is None:
                # Lost with its node, and with it whoever asked it for servers; or these will ask.
                if not self._plan.hosts_apart:
                    del self._pids[actor]
                continue
            changed += pid != self._pids[actor]
            self._pids[actor] = pid
        return changed

    def close(self, seconds: float) -> None:
        """End all servers, as far as that takes no longer than this."""
        closing = [actor.close.remote() for actor in (*self._seated, *self._beside.values())]
        ray.wait(closing, num_returns=len(closing), timeout=seconds)

    @property
    def _moving_seconds(self) -> float:
        """In which Ray has found another node for a seat, if there is one."""
        return max(GRANT_SECONDS, self._config.cluster.wait_seconds)

    def _options(self) -> dict[str, int]:
        """Ray replaces the process, and repeats what it was asked when it died."""
        limit = self._config.runtime.restarts
        return {"max_restarts": limit, "max_task_retries": limit}
