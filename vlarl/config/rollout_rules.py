"""Rules of `rollout` and `env.allocation`: who acts for how long, and on which tasks."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.allocation import KINDS
from vlarl.config.checks import (
    at_least,
    choice,
    fraction,
    sections_without_effect,
    without_effect,
)
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig

_ALLOCATION = "env.allocation"


def rollout_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of the windows that are collected and of the tasks in them."""
    yield from at_least(config, 1, ["rollout.workers", "rollout.threads"])
    yield from _mode(config)
    yield from _joined_servers(config)
    yield from _window(config)
    yield from _allocation(config)


def _mode(config: RunConfig) -> Iterator[Problem]:
    """Synchronous, or asynchronous with its bounds."""
    yield from choice(config, "rollout.mode", ("sync", "async"))
    yield from at_least(config, 0, ["rollout.max_staleness"])
    # Below 1 it would hold back decisions of the very policy that learns, too.
    yield from at_least(config, 1, ["ppo.behavior_weight_cap"])
    if config.rollout.mode == "sync":
        unused = ["rollout.max_staleness", "ppo.behavior_weight_cap"]
        yield from without_effect(config, unused, "rollout.mode=sync")


def _joined_servers(config: RunConfig) -> Iterator[Problem]:
    """A bound of the policy's batch that two servers fit into."""
    key, env = "rollout.batch_environments", config.env
    yield from at_least(config, 0, [key, "rollout.batch_deadline_seconds"])
    if not config.rollout.batch_environments:
        yield from without_effect(config, ["rollout.batch_deadline_seconds"], f"{key}=0")
        return
    # How many environments others' servers have, and how many a worker has, is known later.
    if env.mode == "connect":
        return
    sizes = sorted(size for g in env.groups.values() for size in [g.envs_per_server] * g.servers)
    if len(sizes) == 1:
        yield from without_effect(config, [key], "env.servers=1")
    elif config.rollout.batch_environments < sum(sizes[:2]):
        fewest = " and ".join(map(str, sizes[:2]))
        yield Problem(
            key,
            f"joins no two servers: those with the fewest environments have {fewest}",
            f"Use {sum(sizes[:2])} or more, or 0.",
        )


def _window(config: RunConfig) -> Iterator[Problem]:
    """Rollout epochs and their control steps, or decisions, but not both."""
    yield from at_least(config, 0, ["rollout.epochs", "rollout.control_steps"])
    if not config.rollout.epochs:
        yield from without_effect(config, ["rollout.control_steps"], "rollout.epochs=0")
        return
    yield from without_effect(config, ["ppo.decisions_per_stream"], "rollout.epochs")
    chunk = config.sampling.execute_steps
    if config.rollout.control_steps < chunk:
        yield Problem(
            "rollout.control_steps",
            f"holds no chunk of sampling.execute_steps={chunk}",
            f"Use {chunk} or more.",
        )


def _allocation(config: RunConfig) -> Iterator[Problem]:
    """Environments by difficulty: bounds that can be met.

    Whether there are enough environments for the tasks is `actors.suite_checks`' to say: a name may
    stand for a group of them.
    """
    allocation = config.env.allocation
    yield from choice(config, f"{_ALLOCATION}.kind", KINDS)
    yield from fraction(config, [f"{_ALLOCATION}.{key}" for key in ("floor", "smoothing")])
    yield from at_least(config, 1, [f"{_ALLOCATION}.ceiling"])
    if not 0 <= allocation.margin < 1:
        yield Problem(f"{_ALLOCATION}.margin", "must lie in [0, 1)", "The default is 0.05.")
    if config.stage != "rl":
        yield from sections_without_effect(config, _ALLOCATION, f"stage={config.stage}")
    if allocation.kind == "uniform":
        unused = [f"{_ALLOCATION}.{key}" for key in ("floor", "ceiling", "smoothing", "margin")]
        unused.append(f"{_ALLOCATION}.suites")
        yield from without_effect(config, unused, f"{_ALLOCATION}.kind=uniform")
        return
    yield from _servers(config)


def _servers(config: RunConfig) -> Iterator[Problem]:
    """Servers that change their suite, their streams keeping their numbers."""
    key, groups = f"{_ALLOCATION}.suites", config.env.groups
    if not config.env.allocation.suites:
        return
    if len(groups) < 2:
        yield Problem(key, "has no effect with a single suite", "Name several in env.suites.")
    if config.env.mode == "connect":
        remedy = "Use env.mode=spawn, or leave it out."
        yield Problem(key, "needs servers that the run can start and end", remedy)
    if len({group.envs_per_server for group in groups.values()}) > 1:
        remedy = "Give all suites the same envs_per_server."
        yield Problem(key, "needs servers with as many environments each", remedy)
