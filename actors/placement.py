"""Which process of a Ray run goes to which node, and what share of its GPUs it is given."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError, UserError

PLACE_SECONDS = 180.0
"""What runs on no node by then, has room on none."""

_OF_LEARNER = 0.6
"""Of a GPU, for Ray, where there are several learners; workers share the rest."""


@dataclass(frozen=True)
class Place:
    """Where a rollout worker acts, and on which of its node's servers."""

    node: str
    share: tuple[int, int]


def start_ray(config: RunConfig) -> list[Place]:
    """Connect to Ray (starting it for `local`), and say where the rollout workers go.

    Raises:
        ConfigError: if some worker would have no env server.
    """
    workers = config.rollout.workers
    if config.runtime.address == "local":
        _refuse_idle_workers(config, nodes=1)
        # Threads that spin while they wait take the cores that simulation needs; Ray's processes
        # inherit this, and it must stand before they import torch.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, workers + config.runtime.learners),
            object_store_memory=config.runtime.object_store_mb * 10**6,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        ray.init(address=config.runtime.address, log_to_driver=False, logging_level=logging.ERROR)
    nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])[:workers]
    _refuse_idle_workers(config, len(nodes))
    here = [sum(w % len(nodes) == n for w in range(workers)) for n in range(len(nodes))]
    return [
        Place(nodes[w % len(nodes)], (w // len(nodes), here[w % len(nodes)]))
        for w in range(workers)
    ]


def _refuse_idle_workers(config: RunConfig, nodes: int) -> None:
    """Refuse more workers on a node than it has env servers."""
    servers = len(config.env.addresses) if config.env.mode == "connect" else config.env.servers
    most = -(-config.rollout.workers // nodes)
    if most > servers:
        raise ConfigError(
            f"rollout.workers = {config.rollout.workers}: {most} on a node with {servers} env "
            f"servers. Use rollout.workers={servers * nodes} or less, or more env.servers."
        )


def gpu_share(config: RunConfig, node: str, actors: int) -> float:
    """GPUs of each of a node's `actors`: alike, each on a single one; 0 where there is none.

    An actor that is given none sees none, so that `auto` means the CPU there.
    """
    if config.runtime.device == "cpu":
        return 0
    found = next(each for each in ray.nodes() if each["NodeID"] == node)
    gpus = int(found["Resources"].get("GPU", 0))
    whole = 1 if config.runtime.learners == 1 else 1 - _OF_LEARNER
    return whole / -(-actors // gpus) if gpus else 0


def learner_share(config: RunConfig) -> float:
    """GPUs of each of several learners: more than half of one, so that no two share it.

    Raises:
        ConfigError: if there are GPUs, but fewer than learners.
    """
    gpus = 0 if config.runtime.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    if gpus and gpus < config.runtime.learners:
        raise ConfigError(
            f"runtime.learners = {config.runtime.learners}: each needs a GPU of its own, and Ray "
            f"has {gpus}. Use runtime.learners={gpus} or less."
        )
    return _OF_LEARNER if gpus else 0


def remote(plain: type, cpus: int, node: str | None = None, gpus: float = 0, **further: Any) -> Any:
    """A plain class as an actor on a node; `further` options are Ray's."""
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, **further}
    if node is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(plain).options(**options)


def wait_for_places(processes: Mapping[str, Any]) -> None:
    """Until all of these run.

    Args:
        processes: what each is -> a reference that is done once it runs.

    Raises:
        UserError: naming those that no node has room for.
    """
    references = list(processes.values())
    running, _ = ray.wait(references, num_returns=len(references), timeout=PLACE_SECONDS)
    late = [name for name, reference in processes.items() if reference not in running]
    if late:
        cpus = sum(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        raise UserError(
            f"the Ray cluster has had no room for {', '.join(late)} for {PLACE_SECONDS:g} s. Each "
            f"needs 1 CPU, and a share of a GPU where there are any; its nodes have {cpus:g} CPUs "
            "in all. Free some, add a node, or use fewer rollout.workers"
        )


def node_of_this_process() -> str:
    """Ray node id."""
    node: str = ray.get_runtime_context().get_node_id()
    return node
