"""Which process of a run goes to which node, and what each is given: arithmetic, without Ray.

A plan is bundles, in Ray's word: what is asked of one node each, all of them of different nodes.
Ray finds the nodes (`actors/placement.py`); what no node can give is said here in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vlarl.config.cluster_rules import env_servers, together
from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError

_RESOLUTION = 10**4
"""Of Ray's resources: parts of a GPU."""
_OF_LEARNER = 0.6
"""Of a GPU, for each of several learners beside workers: more than half, so that no two share
one."""


@dataclass(frozen=True)
class Node:
    """One node of a cluster."""

    id: str
    address: str
    """IP address or name that other nodes reach it by."""
    cpus: float
    gpus: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seat:
    """One process: on the node of which bundle, with what."""

    bundle: int
    cpus: float = 0.0
    gpus: float = 0.0


@dataclass(frozen=True)
class EnvShare:
    """The env servers of one worker."""

    hosts: tuple[int, ...]
    """Numbers of the env hosts."""
    share: tuple[int, int] = (0, 1)
    """`(k, n)`: every n-th server of them from the k-th on."""


@dataclass(frozen=True)
class Bundle:
    """What is asked of one node."""

    who: str
    """Its processes, in words."""
    cpus: float
    gpus: float
    labels: Mapping[str, str]

    def fits(self, node: Node) -> bool:
        """Whether the node, with nothing else on it, could give this."""
        return self.cpus <= node.cpus and self.gpus <= node.gpus and selects(self.labels, node)


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    bundles: tuple[Bundle, ...]
    learners: tuple[Seat, ...]
    """All on one node."""
    workers: tuple[Seat, ...]
    """None where the learner acts itself."""
    hosts: tuple[Seat, ...]
    """Of env servers."""
    shares: tuple[EnvShare, ...]
    """Of each worker, or of the learner that acts."""
    hosts_apart: bool = False
    """Whether env servers live on other nodes than the workers."""


def plan(config: RunConfig, nodes: Sequence[Node]) -> Plan:
    """Where everything goes.

    Args:
        config: of the run.
        nodes: of the cluster; they count only where the config says "as many as there are".

    Raises:
        ConfigError: if the rollout workers do not divide among the nodes.
    """
    if together(config):
        return _planned(config, nodes, 1)
    found = _planned(config, nodes, config.cluster.rollout.nodes or _rollout_nodes(config, nodes))
    _refuse_uneven(config, found.shares)
    return found


def _planned(config: RunConfig, nodes: Sequence[Node], groups: int) -> Plan:
    """The plan for so many nodes with rollout workers."""
    cluster = config.cluster
    each = 0 if together(config) else -(-config.rollout.workers // groups)
    disaggregated = cluster.strategy == "disaggregated"
    first = 1 if disaggregated else 0
    apart = bool(cluster.envs.nodes)
    members = [_Members() for _ in range(first + groups + cluster.envs.nodes)]
    members[0].learners = config.runtime.learners
    for group in range(groups):
        members[first + group].workers = each
        members[first + group].envs = not apart
    for member in members[first + groups :]:
        member.envs = True
    learner_gpus = _gpus(config, "learner", members[0], nodes)
    worker_gpus = [_gpus(config, "rollout", member, nodes) for member in members]
    workers = tuple(
        Seat(first + w % groups, cluster.rollout.cpus, worker_gpus[first + w % groups])
        for w in range(each * groups)
    )
    hosts = tuple(Seat(n) for n, member in enumerate(members) if member.envs)
    bundles = tuple(
        _bundle(config, member, learner_gpus, gpus)
        for member, gpus in zip(members, worker_gpus, strict=True)
    )
    learners = (Seat(0, cluster.learner.cpus, learner_gpus),) * config.runtime.learners
    shares = _shares(config, groups, len(hosts), apart)
    return Plan(bundles, learners, workers, hosts, shares, apart)


def lacking(wanted: Sequence[Bundle], nodes: Sequence[Node]) -> str | None:
    """What the nodes cannot give, were nothing else on them, in words; None if they can.

    Every bundle takes a node of its own.
    """
    for bundle in wanted:
        if not any(bundle.fits(node) for node in nodes):
            return f"no node can give what {bundle.who} asks for: {_asked(bundle)}"
    taken: dict[int, int] = {}

    def seated(number: int, tried: set[int]) -> bool:
        """Whether bundle `number` finds a node, others making room for it if they can."""
        for n, node in enumerate(nodes):
            if n in tried or not wanted[number].fits(node):
                continue
            tried.add(n)
            if n not in taken or seated(taken[n], tried):
                taken[n] = number
                return True
        return False

    left = [bundle for number, bundle in enumerate(wanted) if not seated(number, set())]
    if not left:
        return None
    return (
        f"{len(wanted)} different nodes are asked for, and of those that are there none is left "
        f"for {left[0].who} ({_asked(left[0])})"
    )


def selects(labels: Mapping[str, str], node: Node) -> bool:
    """Whether a node has the labels, each a value or one of Ray's selectors.

    They are `value`, `in(a,b)`, and both with `!` in front for their opposite.
    """
    for name, text in labels.items():
        wanted = text.removeprefix("!")
        values = [wanted]
        if wanted.startswith("in(") and wanted.endswith(")"):
            values = [value.strip() for value in wanted[3:-1].split(",")]
        if (node.labels.get(name) in values) == text.startswith("!"):
            return False
    return True


def described(nodes: Sequence[Node]) -> str:
    """Nodes in words, those that are alike counted."""
    kinds: dict[str, int] = {}
    for node in nodes:
        own = {name: value for name, value in node.labels.items() if not name.startswith("ray.io/")}
        words = f"{node.cpus:g} CPUs, {node.gpus:g} GPUs{_labels(own)}"
        kinds[words] = kinds.get(words, 0) + 1
    return "; ".join(f"{count} x {words}" for words, count in kinds.items()) or "none"


@dataclass
class _Members:
    """Whose processes share a node."""

    learners: int = 0
    workers: int = 0
    envs: bool = False


def _bundle(config: RunConfig, member: _Members, learner: float, worker: float) -> Bundle:
    cluster = config.cluster
    cpus, shares, who = 0.0, [], []
    labels: dict[str, str] = {}
    if member.learners:
        cpus += cluster.learner.cpus * member.learners
        shares += [learner] * member.learners
        labels |= cluster.learner.labels
        who.append("the learner" if member.learners == 1 else f"{member.learners} learners")
    if member.workers:
        cpus += cluster.rollout.cpus * member.workers
        shares += [worker] * member.workers
        labels |= cluster.rollout.labels
        who.append(f"{member.workers} rollout worker{'s' * (member.workers > 1)}")
    if member.envs:
        cpus += cluster.envs.cpus
        labels |= cluster.envs.labels
        who.append("env servers")
    return Bundle(" with ".join(who), cpus, _whole_gpus(shares), labels)


def _whole_gpus(shares: Sequence[float]) -> float:
    """GPUs that hold processes with these shares, each on one GPU or on whole ones.

    Up to one GPU the sum; beyond, Ray gives whole ones only, and a process never parts of two.
    """
    if sum(shares) <= 1:
        return math.fsum(shares)
    left: list[float] = []
    whole = 0.0
    for share in sorted(filter(None, shares), reverse=True):
        if share >= 1:
            whole += share
            continue
        place = next((n for n, room in enumerate(left) if room >= share - 1 / _RESOLUTION), None)
        if place is None:
            left.append(1 - share)
        else:
            left[place] -= share
    return whole + len(left)


def _gpus(config: RunConfig, role: str, member: _Members, nodes: Sequence[Node]) -> float:
    """GPUs of a process of that role, on a node with these others.

    A process that is given none sees none, so that `runtime.device=auto` means the CPU there.
    """
    place = config.cluster.learner if role == "learner" else config.cluster.rollout
    if place.gpus is not None:
        return place.gpus
    if config.runtime.device == "cpu":
        return 0.0
    counts = [node.gpus for node in nodes if selects(place.labels, node) and node.gpus >= 1]
    if not counts:
        return 0.0
    gpus = int(min(counts))
    if config.runtime.learners > 1:
        share = _beside_several(config, role, member, gpus)
    else:
        actors = member.workers + member.learners
        share = 1 / -(-actors // gpus) if actors else 0.0
    return math.floor(share * _RESOLUTION) / _RESOLUTION


def _beside_several(config: RunConfig, role: str, member: _Members, gpus: int) -> float:
    """As `_gpus`, where several learners need a GPU each: workers of their node share the rest.

    Raises:
        ConfigError: if the learners' node has fewer GPUs than learners.
    """
    if role == "learner":
        if gpus < member.learners:
            raise ConfigError(
                f"runtime.learners = {member.learners}: each needs a GPU of its own, all on one "
                f"node, and nodes have {gpus}. Use runtime.learners={gpus} or less."
            )
        return _OF_LEARNER if member.workers else 1.0
    whole = 1 - _OF_LEARNER if member.learners else 1.0
    return whole / -(-member.workers // gpus) if member.workers else 0.0


def _rollout_nodes(config: RunConfig, nodes: Sequence[Node]) -> int:
    """As many nodes as there are for rollout workers, beside those that the others need."""
    workers = config.rollout.workers
    numbers = range(min(workers, len(nodes)), 0, -1)
    fit = (n for n in numbers if lacking(_planned(config, nodes, n).bundles, nodes) is None)
    count = next(fit, 1)
    if workers % count:
        raise ConfigError(
            f"rollout.workers = {workers}: does not divide among the {count} nodes for them. Use "
            f"rollout.workers={workers // count * count or count}, or say on how many they go: "
            "cluster.rollout.nodes."
        )
    return count


def _shares(config: RunConfig, groups: int, hosts: int, apart: bool) -> tuple[EnvShare, ...]:
    """Each worker's env servers: its node's, its share of a node's, or those of whole nodes."""
    workers = config.rollout.workers
    if config.env.mode == "connect":
        # All hosts tell the same addresses.
        return tuple(EnvShare((w % groups,), (w, workers)) for w in range(workers))
    if not apart:
        each = workers // groups
        return tuple(EnvShare((w % groups,), (w // groups, each)) for w in range(workers))
    if hosts >= workers:
        each = hosts // workers
        return tuple(EnvShare(tuple(range(w * each, (w + 1) * each))) for w in range(workers))
    each = workers // hosts
    return tuple(EnvShare((w % hosts,), (w // hosts, each)) for w in range(workers))


def _refuse_uneven(config: RunConfig, shares: Sequence[EnvShare]) -> None:
    """Workers with as many env servers as the others; the config's rules know it beforehand.

    Only `cluster.rollout.nodes: 0` of a cluster waits for its nodes to be counted.
    """
    most = max(share.share[1] for share in shares)
    for key, servers in env_servers(config).items():
        if servers % most:
            raise ConfigError(
                f"{key} = {servers}: {servers} env servers of a node do not divide among its "
                f"{most} rollout workers. Use {key}={most * max(1, servers // most)}, or another "
                "cluster.rollout.nodes."
            )


def _asked(bundle: Bundle) -> str:
    return f"{bundle.cpus:g} CPUs, {bundle.gpus:g} GPUs{_labels(bundle.labels)}"


def _labels(labels: Mapping[str, str]) -> str:
    words = ", ".join(f"{name}={value}" for name, value in labels.items())
    return f", labels {words}" if words else ""
