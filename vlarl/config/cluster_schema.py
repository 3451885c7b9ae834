"""The part of the schema that says where the processes of a Ray run go, and what each is given.

How many rollout workers and env servers there are is said by `rollout` and `env`: that decides what
is computed. Nothing here does, but for which worker meets which env server.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LearnerPlaceConfig:
    """Of each process that learns, all on one node; one with one collocated worker acts too."""

    cpus: float = 1.0
    """Cores that Ray reserves for it."""
    gpus: float | None = None
    """GPUs, or a fraction of one; null: an equal share of its node's among the processes there that
    compute, 0 where there are none."""
    labels: dict[str, str] = field(default_factory=dict)
    """Ray's node labels, name -> value, that its node must have. A value may be one of Ray's
    selectors, such as `in(h100,h200)` or `!spot`."""


@dataclass(frozen=True)
class RolloutPlaceConfig:
    """Of each rollout worker, where workers are processes of their own."""

    nodes: int = 0
    """Nodes that the workers share evenly, each with env servers of its own; 0: as many as there
    are, never more than workers."""
    cpus: float = 1.0
    gpus: float | None = None
    """As of the learner."""
    labels: dict[str, str] = field(default_factory=dict)
    """As of the learner."""


@dataclass(frozen=True)
class EnvsPlaceConfig:
    """Of a node's env servers together."""

    nodes: int = 0
    """Nodes with env servers alone, which the workers reach over TCP with a key made for the run;
    0: env servers live beside the workers that use them, who reach them by shared memory."""
    cpus: float = 0.0
    """Cores that Ray reserves on each node with env servers."""
    labels: dict[str, str] = field(default_factory=dict)
    """As of the learner."""


@dataclass(frozen=True)
class ClusterConfig:
    """Which Ray cluster, and which of its nodes."""

    address: str = "local"
    """`local` starts a private instance; `auto` is the cluster that this machine is part of;
    `HOST:PORT` is that of its head node."""
    connect_seconds: float = 30.0
    """A cluster that does not answer within it is an error."""
    wait_seconds: float = 0.0
    """How long to wait for nodes that are not there yet, as where an autoscaler adds them."""
    strategy: str = "collocated"
    """`collocated`: the learner on a node with rollout workers; `disaggregated`: on one without."""
    learner: LearnerPlaceConfig = field(default_factory=LearnerPlaceConfig)
    rollout: RolloutPlaceConfig = field(default_factory=RolloutPlaceConfig)
    envs: EnvsPlaceConfig = field(default_factory=EnvsPlaceConfig)

    @property
    def private(self) -> bool:
        """Whether the run starts an instance of its own, on this machine alone."""
        return self.address == "local"
