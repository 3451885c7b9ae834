"""Connects to Ray and reserves what a run needs of its nodes: one placement group, or an error.

The group is Ray's promise that everything fits before anything starts; what is asked of which node
is said in `placement_plan.py`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from actors.placement_plan import Bundle, Node, Plan, Seat, described, lacking, plan
from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError

GRANT_SECONDS = 10.0
"""How long a reservation may take that the nodes could give at once."""
PLACE_SECONDS = 180.0
"""A process that runs nowhere by then has room nowhere."""
_LEAST_CPU = 0.001
"""Ray refuses to reserve nothing."""


@dataclass(frozen=True)
class Placement:
    """What was reserved."""

    plan: Plan
    group: PlacementGroup

    def remote(self, plain: type, seat: Seat, **further: Any) -> Any:
        """A plain class as an actor in its seat; `further` options are Ray's."""
        strategy = PlacementGroupSchedulingStrategy(self.group, seat.bundle)
        return ray.remote(plain).options(
            num_cpus=seat.cpus, num_gpus=seat.gpus, scheduling_strategy=strategy, **further
        )

    def node_of(self, seat: Seat) -> str | None:
        """The seat's node, if it lives; Ray moves the seats of one that does not, if it can."""
        node = placement_group_table(self.group)["bundles_to_node_id"].get(seat.bundle)
        return node if node in living_nodes() else None

    def remove(self) -> None:
        """Give back what was reserved; actors in seats end."""
        remove_placement_group(self.group)


def remote_beside(plain: type, seat: Seat, node: str, **further: Any) -> Any:
    """A plain class as an actor on a node, with what its seat had, but not from the reservation."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(plain).options(
        num_cpus=seat.cpus, num_gpus=seat.gpus, scheduling_strategy=strategy, **further
    )


def remote_anywhere(plain: type, cpus: float, labels: Mapping[str, str], **further: Any) -> Any:
    """A plain class as an actor on whichever node has room and the labels, unreserved."""
    return ray.remote(plain).options(
        num_cpus=cpus, label_selector=dict(labels), scheduling_strategy="SPREAD", **further
    )


def living_nodes() -> list[str]:
    """Ray node ids."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def node_of_this_process() -> str:
    """Ray node id."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def address_of_this_node() -> str:
    """IP address by which Ray knows the node of this process."""
    here = node_of_this_process()
    address: str = next(n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == here)
    return address


def start_ray(config: RunConfig) -> Placement:
    """Connect to Ray (starting it for `local`) and reserve the run's places.

    Raises:
        ConfigError: if the cluster is not reached, or cannot give what is asked; Ray is left then.
    """
    if config.cluster.private:
        _start_private(config)
    else:
        _connect(config)
    try:
        return _reserve(config)
    except BaseException:
        ray.shutdown()
        raise


def _start_private(config: RunConfig) -> None:
    """An instance of our own, on this machine alone."""
    # Threads that spin while they wait take the cores that simulation needs; Ray's processes
    # inherit this, and it must stand before they import torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, config.rollout.workers + config.runtime.learners),
        object_store_memory=config.runtime.object_store_mb * 10**6,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _connect(config: RunConfig) -> None:
    """Join the cluster at the configured address.

    Raises:
        ConfigError: if nothing answers there, or Ray does not let us in.
    """
    address, seconds = config.cluster.address, config.cluster.connect_seconds
    host, _, port = address.rpartition(":")
    if host:
        # Ray itself tries for minutes.
        try:
            socket.create_connection((host.strip("[]"), int(port)), seconds).close()
        except OSError as error:
            raise ConfigError(
                f"cluster.address = {address!r}: nothing answers there within "
                f"cluster.connect_seconds={seconds:g} ({error}). Start Ray on the head node with "
                f"`ray start --head --port={port}`, or give the address that it printed"
            ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(
            f"cluster.address = {address!r}: Ray does not let us in: {reason}. Start the run on a "
            "node of the cluster, with the cluster's token (RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH, docs/cluster.md)"
        ) from error


def _reserve(config: RunConfig) -> Placement:
    """The run's placement group, granted.

    Raises:
        ConfigError: saying what was asked, what the nodes have, and what to change.
    """
    seconds = config.cluster.wait_seconds
    wanted = plan(config, _nodes())
    if not seconds:
        _refuse_lacking(config, wanted)
    group = placement_group(
        [_resources(bundle) for bundle in wanted.bundles],
        strategy="STRICT_SPREAD" if len(wanted.bundles) > 1 else "STRICT_PACK",
        bundle_label_selector=[dict(bundle.labels) for bundle in wanted.bundles],
    )
    until = time.monotonic() + max(seconds, GRANT_SECONDS)
    # In short waits, so that Ctrl-C is heard.
    while not group.wait(1):
        if time.monotonic() > until:
            remove_placement_group(group)
            _refuse_lacking(config, wanted)
            _refuse_taken(config, wanted)
    return Placement(wanted, group)


def _refuse_lacking(config: RunConfig, wanted: Plan) -> None:
    nodes = _nodes()
    problem = lacking(wanted.bundles, nodes)
    if problem is not None:
        raise ConfigError(
            f"cluster.address = {config.cluster.address!r}: {problem}. Nodes: {described(nodes)}. "
            "Ask for less (cpus, gpus, labels and nodes of cluster.learner, cluster.rollout and "
            "cluster.envs), or add nodes and wait for them with cluster.wait_seconds"
        )


def _refuse_taken(config: RunConfig, wanted: Plan) -> None:
    free = ray.available_resources()
    asked = "; ".join(f"{bundle.who}: {_resources(bundle)}" for bundle in wanted.bundles)
    raise ConfigError(
        f"cluster.address = {config.cluster.address!r}: its nodes would do, but others are using "
        f"them. Asked: {asked}. Free in all: {free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} "
        f"GPUs. Wait for them with cluster.wait_seconds (now {config.cluster.wait_seconds:g})"
    )


def _resources(bundle: Bundle) -> dict[str, float]:
    gpus = {"GPU": bundle.gpus} if bundle.gpus else {}
    return {"CPU": max(bundle.cpus, _LEAST_CPU), **gpus}


def _nodes() -> list[Node]:
    """The nodes that are there, in a fixed order."""
    return sorted(
        (
            Node(
                node["NodeID"],
                node["NodeManagerAddress"],
                node["Resources"].get("CPU", 0.0),
                node["Resources"].get("GPU", 0.0),
                node.get("Labels", {}),
            )
            for node in ray.nodes()
            if node["Alive"]
        ),
        key=lambda node: node.id,
    )
