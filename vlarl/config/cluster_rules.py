"""Rules of `cluster`: placements that no cluster could give, and shares that do not divide.

What the nodes have is seen at the start of a run (`actors/placement.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.config.checks import (
    above_zero,
    at_least,
    choice,
    sections_without_effect,
    value_at,
    without_effect,
)
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig

STRATEGIES = ("collocated", "disaggregated")
_ROLES = ("learner", "rollout", "envs")


def cluster_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of where processes go."""
    yield from choice(config, "cluster.strategy", STRATEGIES)
    yield from _numbers(config)
    yield from _address(config)
    if config.stage != "rl":
        yield from sections_without_effect(config, "cluster", f"stage={config.stage}")
        return
    if config.runtime.kind == "inprocess":
        yield from sections_without_effect(config, "cluster", "runtime.kind=inprocess")
        return
    if config.cluster.private:
        yield from _private(config)
    else:
        yield from without_effect(config, ["runtime.object_store_mb"], "cluster.address")
    if together(config):
        because = "one worker, one learner, cluster.strategy=collocated: the learner acts"
        yield from sections_without_effect(config, "cluster.rollout", because)
    yield from _waiting(config)
    yield from _labels(config)
    yield from _apart(config)
    yield from _division(config)


def together(config: RunConfig) -> bool:
    """Whether one process acts and learns, with one model."""
    alone = config.rollout.workers == config.runtime.learners == 1
    return alone and config.cluster.strategy == "collocated"


def env_servers(config: RunConfig) -> dict[str, int]:
    """Key -> env servers of one node, or all of them where they are others'; for each suite."""
    found = {}
    for name, group in config.env.groups.items():
        at = f"env.suites.{name}" if name else "env"
        if config.env.mode == "connect":
            found[f"{at}.addresses"] = len(group.addresses)
        else:
            found[f"{at}.servers"] = group.servers
    return found


def _numbers(config: RunConfig) -> Iterator[Problem]:
    zero = ["cluster.wait_seconds", "cluster.rollout.nodes", "cluster.envs.nodes"]
    yield from at_least(config, 0, [*zero, *(f"cluster.{role}.cpus" for role in _ROLES)])
    yield from above_zero(config, ["cluster.connect_seconds"])
    for key in ("cluster.learner.gpus", "cluster.rollout.gpus"):
        gpus = value_at(config, key)
        if gpus is None:
            continue
        if not gpus >= 0:
            yield Problem(key, "must be at least 0", f"Try {key}=1, or null for an equal share.")
        elif gpus > 1 and gpus % 1:
            problem = "is more than one GPU and not a whole number, which Ray cannot give"
            yield Problem(key, problem, f"Try {key}={int(gpus)}.")
        elif gpus and config.runtime.device == "cpu":
            yield Problem(key, "has no effect with runtime.device=cpu", f"Set {key}=null.")
        elif not gpus and config.runtime.device == "cuda":
            problem = "gives no GPU to a process that runtime.device=cuda sends to one"
            yield Problem(key, problem, f"Set {key}=null, or runtime.device=auto.")


def _address(config: RunConfig) -> Iterator[Problem]:
    address = config.cluster.address
    host, _, port = address.rpartition(":")
    if address in ("local", "auto") or (host and "/" not in host and port.isdigit()):
        return
    remedy = "Use local, auto, or HOST:PORT of the head node, such as 10.0.0.1:6379."
    if address.startswith("ray://"):
        remedy = f"Ray Client is not supported: start the run on the cluster. {remedy}"
    yield Problem("cluster.address", "is no address of a Ray cluster", remedy)


def _private(config: RunConfig) -> Iterator[Problem]:
    """One machine, which is one node without labels."""
    because = "cluster.address=local"
    yield from without_effect(config, ["cluster.connect_seconds", "cluster.wait_seconds"], because)
    remedy = "Remove it, or name a cluster: cluster.address=HOST:PORT."
    several = "needs a second node, and cluster.address=local is this machine alone"
    if config.cluster.strategy == "disaggregated":
        yield Problem("cluster.strategy", several, remedy)
    if config.cluster.rollout.nodes > 1:
        yield Problem("cluster.rollout.nodes", several, remedy)
    if config.cluster.envs.nodes:
        yield Problem("cluster.envs.nodes", several, remedy)
    for role in _ROLES:
        if value_at(config, f"cluster.{role}.labels"):
            problem = "names labels, and cluster.address=local starts a node without any"
            yield Problem(f"cluster.{role}.labels", problem, remedy)


def _waiting(config: RunConfig) -> Iterator[Problem]:
    """What is counted on the nodes that are there must be said where they may yet come."""
    if not config.cluster.wait_seconds:
        return
    acting = not together(config)
    if acting and not config.cluster.rollout.nodes:
        problem = "means as many as there are, and cluster.wait_seconds waits for others"
        remedy = f"Say how many: cluster.rollout.nodes={config.rollout.workers} or a divisor."
        yield Problem("cluster.rollout.nodes", problem, remedy)
    for role in ("learner", *(("rollout",) if acting else ())):
        key = f"cluster.{role}.gpus"
        if value_at(config, key) is None and config.runtime.device != "cpu":
            problem = "is an equal share of the GPUs of nodes that may not be there yet"
            yield Problem(key, problem, f"Say how many: {key}=1; or runtime.device=cpu.")


def _labels(config: RunConfig) -> Iterator[Problem]:
    """Two processes that share a node cannot ask for different ones."""
    for first, second in _sharing(config):
        ours = value_at(config, f"cluster.{first}.labels")
        theirs = value_at(config, f"cluster.{second}.labels")
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name]:
                yield Problem(
                    f"cluster.{second}.labels.{name}",
                    f"is asked of a node that cluster.{first}.labels wants to be {ours[name]!r}",
                    "Use one value, or have them on different nodes: "
                    "cluster.strategy=disaggregated, cluster.envs.nodes.",
                )


def _sharing(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Roles that share a node."""
    if config.cluster.strategy == "collocated" and not together(config):
        yield "learner", "rollout"
    if not config.cluster.envs.nodes:
        yield ("learner" if together(config) else "rollout"), "envs"
        if config.cluster.strategy == "collocated" and not together(config):
            yield "learner", "envs"


def _apart(config: RunConfig) -> Iterator[Problem]:
    """Nodes with env servers alone."""
    if config.env.mode == "connect":
        because = "env.mode=connect, whose servers are started by hand"
        yield from sections_without_effect(config, "cluster.envs", because)
    elif config.cluster.envs.nodes and not config.cluster.envs.cpus:
        yield Problem(
            "cluster.envs.cpus",
            "reserves nothing on nodes that have nothing but env servers",
            f"Say how many cores they use: cluster.envs.cpus={sum(env_servers(config).values())}.",
        )


def _division(config: RunConfig) -> Iterator[Problem]:
    """Every worker has as many env servers as every other."""
    workers, nodes = config.rollout.workers, config.cluster.rollout.nodes
    if config.cluster.private:
        nodes = 1
    if nodes and workers % nodes:
        problem = f"does not divide rollout.workers={workers}"
        yield Problem("cluster.rollout.nodes", problem, _divisors(workers, nodes, "nodes"))
        return
    if config.env.mode == "connect":
        yield from _servers_divide(config, workers)
    elif config.cluster.envs.nodes:
        hosts = config.cluster.envs.nodes
        if hosts % workers and workers % hosts:
            problem = f"neither divides rollout.workers={workers} nor is a multiple of it"
            yield Problem("cluster.envs.nodes", problem, _divisors(workers, hosts, "nodes"))
        elif workers > hosts:
            yield from _servers_divide(config, workers // hosts)
    elif nodes:
        yield from _servers_divide(config, workers // nodes)


def _servers_divide(config: RunConfig, workers: int) -> Iterator[Problem]:
    """So many workers share a node's servers, or all of them; those of each suite alike."""
    for key, servers in env_servers(config).items():
        if servers % workers:
            problem = f"{servers} env servers do not divide among {workers} rollout workers"
            remedy = (
                f"Use {workers * max(1, servers // workers)} of them, or other rollout.workers."
            )
            yield Problem(key, problem, remedy)


def _divisors(workers: int, near: int, what: str) -> str:
    choices = [str(n) for n in range(1, workers + 1) if workers % n == 0 and n <= max(near, 1)]
    return f"Use {', '.join(choices)} {what}, or other rollout.workers."
