"""The part of the schema that says which processes a run has: simulation, acting, learning."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class AllocationConfig:
    """How many environments work on each task (paper section 4.2, rollout infrastructure)."""

    kind: str = "uniform"
    """`uniform`: every environment meets all tasks in turn. `failure`: tasks have environments of
    their own, in proportion to 1 - running success rate (the paper's). `variance`: in proportion
    to rate * (1 - rate), which gives few to tasks that never succeed: they have no gradient."""
    floor: float = 0.25
    """Fewest environments of a task, as a multiple of the equal share; never fewer than one."""
    ceiling: float = 4.0
    """Most environments of a task, as a multiple of the equal share."""
    smoothing: float = 0.9
    """Of the running success rates: what older episodes count for, with every iteration again."""
    margin: float = 0.05
    """Share of the environments that would have to change their tasks for them to do so. They do
    so at the end of an episode."""
    suites: bool = False
    """Whether the suites of `env.suites` have servers by the same rule: between two windows, a
    server of an easier suite is ended and one of a harder suite started, as soon as some suite is
    due at least one server more or less. `floor` and `ceiling` are kept here too."""


@dataclass(frozen=True)
class SuiteConfig:
    """One suite of several in a run: fields as those of `EnvConfig`, which say what they mean."""

    suite: str = "tabletop"
    tasks: tuple[str, ...] = ()
    servers: int = 2
    envs_per_server: int = 16
    addresses: tuple[str, ...] = ()
    image_size: int = 64
    max_steps: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    embodiment: str = ""


SUITE_FIELDS = tuple(each.name for each in fields(SuiteConfig))
"""What `EnvConfig` says of its one suite, and each of `env.suites` of its own."""


@dataclass(frozen=True)
class EnvConfig:
    """Where episodes come from."""

    suite: str = "tabletop"
    """`tabletop`, `navigation`, `counting`, or `gym:ID`: any Gymnasium environment with images."""
    tasks: tuple[str, ...] = ()
    """Task names; empty means every task of the suite."""
    servers: int = 2
    """Env server processes on each node."""
    envs_per_server: int = 16
    mode: str = "spawn"
    """`spawn` (child processes), `connect` (addresses below) or `inprocess` (debugging)."""
    addresses: tuple[str, ...] = ()
    """`tcp://HOST:PORT` of running servers, for `mode: connect`; or `@FILE`, where a server keeps
    its present address (`vlarl envserver address_file=FILE`)."""
    key_file: str = ""
    """The servers' key (`vlarl key`), for `mode: connect`; needed beyond this machine."""
    deadline_seconds: float = 60.0
    """A server that does not answer for this long is restarted."""
    restarts: int = 3
    """How often one server may be restarted within a run before the run gives up."""
    image_size: int = 64
    max_steps: int = 0
    """Control steps of an episode; 0 means the suite's own limit."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the suite's constructor."""
    embodiment: str = ""
    """Name or YAML file of the robot that the prompt names; empty: what the environments say they
    are. It must have their channels (paper section 4.2, out-of-domain)."""
    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    suites: dict[str, SuiteConfig] = field(default_factory=dict)
    """Name -> suite, where a run has several: each has its own `suite`, `tasks`, `servers`,
    `envs_per_server`, `addresses`, `image_size`, `max_steps`, `options` and `embodiment`, and those
    above are unused. Tasks are then called `NAME/TASK`."""

    @property
    def groups(self) -> dict[str, EnvConfig]:
        """Name -> what the run's servers of that suite are, as if it were the only one.

        One without a name, where there are no `suites`.
        """
        if not self.suites:
            return {"": self}
        return {
            name: replace(self, suites={}, **{key: getattr(suite, key) for key in SUITE_FIELDS})
            for name, suite in self.suites.items()
        }

    @property
    def environments(self) -> int:
        """`N` of one node, unless the servers are others'."""
        return sum(group.servers * group.envs_per_server for group in self.groups.values())


@dataclass(frozen=True)
class RolloutConfig:
    """Who acts, on what, for how long, and who waits for whom."""

    mode: str = "sync"
    """`sync`: rollout and learning take turns, so that every decision of a batch is made by the
    weights that then learn from it. `async`: rollout never waits for learning; each decision knows
    the weights that made it (decoupled PPO)."""
    max_staleness: int = 4
    """Updates of the weights since a decision was made, at most, where it is learned from; older
    ones are dropped and counted. For `mode: async`."""
    batch_environments: int = 0
    """Most environments in one call of the policy: servers that are ready are joined while they
    fit. 0: one server at a time; batches then have a fixed shape, so that a run can be repeated."""
    batch_deadline_seconds: float = 0.005
    """How long a ready server waits, at most, for others to join it."""
    workers: int = 1
    threads: int = 1
    """Torch threads while acting."""
    epochs: int = 0
    """Rollout epochs of an iteration (paper section 4.2); 0: `ppo.decisions_per_stream` instead."""
    control_steps: int = 0
    """Of every environment in a rollout epoch; the whole chunks among them are decided."""


@dataclass(frozen=True)
class RuntimeConfig:
    """Processes of the run."""

    kind: str = "ray"
    """`ray` or `inprocess` (the same classes without Ray, for debugging)."""
    device: str = "auto"
    """Where the model lives: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if torch finds one."""
    cuda_graphs: bool = True
    """On a GPU, whether acting replays the denoising step as one graph; not where a learner uses
    the same model meanwhile (`rollout.mode: async` in one process)."""
    threads: int = 2
    """Torch threads of the process that learns."""
    learners: int = 1
    """Processes that learn together, each a share of every minibatch. Supervised stages are told
    by `torchrun` instead."""
    shard: str = "none"
    """`none`: every process that learns holds the whole model. `full`: each holds a part of its
    weights, gradients and optimizer (FSDP2)."""
    offload: str = "none"
    """`none`, or `optimizer`: on a GPU, whether the optimizer and what it remembers are kept in the
    CPU's memory and stepped there."""
    restarts: int = 3
    """How often the learner, each rollout worker and each host of env servers may be replaced
    before the run gives up, with `kind: ray`; `env.restarts` is of the servers themselves."""
    object_store_mb: int = 100
    """Ray's shared memory, with `cluster.address: local`."""
