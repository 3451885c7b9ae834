"""What can be wrong with a run's suites, found out before any of its processes is started.

Suites of this project's own environment are judged where they are built; those of others' are
described here, by data alone, whether or not they are installed.
"""

from __future__ import annotations

from dataclasses import replace

from actors.experts import is_served, make_tabletop
from envservers.registry import config_options, describe_suite, find_suite, make_suite
from envservers.task_groups import expand
from envservers.usable import check_usable
from vlarl.config.embodiments import load_embodiment
from vlarl.config.process_schema import EnvConfig
from vlarl.config.schema import ModelConfig, RunConfig
from vlarl.contract import Contract
from vlarl.embodiment import UNNAMED, embodiment_name
from vlarl.errors import ConfigError
from vlarl.model.checkpoint import load_contract
from vlarl.runs import checkpoint_of
from vlarl.types import EnvSpec


def described(config: EnvConfig) -> EnvSpec:
    """What the one suite of `config` simulates, by its class alone.

    Raises:
        UserError: for an unknown suite, option or task.
    """
    return describe_suite(config.suite, **config_options(config))


def check_run(config: RunConfig) -> None:
    """Check the suites of a run against the checkpoint that its config names, if it names one.

    Raises:
        UserError: as `check_suites`; CheckpointError: for a checkpoint that is not there.
    """
    # On other nodes, it is their hosts of env servers that look (`env_host.py`).
    here = config.cluster.private
    check_suites(config.env, _given_contract(config.model), here)
    if config.stage == "rl" and config.env.allocation.kind != "uniform":
        _check_allocation(config.env, config.rollout.workers)


def check_suites(config: EnvConfig, contract: Contract | None = None, here: bool = True) -> None:
    """Check every suite of a run that is not this environment's own.

    Args:
        config: its `env`.
        contract: of the checkpoint that is to drive them, where it is known.
        here: whether all servers are to run on this machine.

    Raises:
        UserError: for an unknown suite, task or option, a suite that is not installed or has other
            pins, no driver to draw with, or a checkpoint of another control convention.
    """
    for name, group in config.groups.items():
        if not find_suite(group.suite).environment:
            continue
        spec = described(group)
        if group.mode == "inprocess":
            key = f"env.suites.{name}" if name else "env"
            raise ConfigError(
                f"{key}.suite = {group.suite!r} runs in an environment of its own, and "
                "env.mode=inprocess has no other than this: use env.mode=spawn"
            )
        if group.mode == "spawn" and here:
            check_usable(group.suite)
        if contract is not None:
            robot = group.embodiment or spec.embodiment
            _for_robot(contract, robot, spec).check(replace(spec, embodiment=robot))


def check_supervised(config: RunConfig, contract: Contract) -> None:
    """Check the suite of a supervised stage: who demonstrates in it, and who is judged there.

    Raises:
        UserError: for an unknown suite, task or option, or one that does not fit the model.
    """
    settings, env = config.supervised, config.env
    isolated = bool(find_suite(env.suite).environment)
    given = settings.data.path or settings.data.mixture
    if not given and is_served(env.suite):
        check_usable(env.suite)
    if settings.data.grounding_images:
        make_tabletop(env.suite, 1).close()
    elif given and (not settings.eval_every or env.mode == "connect"):
        return
    if isolated:
        check_suites(env, contract)
        return
    suite = make_suite(env.suite, 1, **config_options(env))
    contract.check(suite.spec)
    suite.close()


def _given_contract(config: ModelConfig) -> Contract | None:
    name = config.checkpoint
    if not name and config.init.contract == "checkpoint":
        name = config.init.backbone
    return load_contract(checkpoint_of(name)) if name else None


def _check_allocation(config: EnvConfig, workers: int) -> None:
    """Environments by difficulty need tasks to choose among, and an environment for each."""
    kind = f"env.allocation.kind = {config.allocation.kind!r}"
    places = {name: f"env.suites.{name}" if name else "env" for name in config.groups}
    tasks = {
        name: expand(group.suite, group.tasks) or described(group).tasks
        for name, group in config.groups.items()
    }
    if all(len(own) == 1 for own in tasks.values()) and not config.allocation.suites:
        where = " and ".join(f"{place}.tasks" for place in places.values())
        raise ConfigError(
            f"{kind}: has no effect with a single task in {where}. Leave it out, or name more tasks"
        )
    for name, group in config.groups.items():
        needed = len(tasks[name])
        if config.mode != "connect" and needed > group.environments:
            raise ConfigError(
                f"{kind}: needs an environment for each of {needed} tasks, and there are "
                f"{group.environments}. Use {places[name]}.envs_per_server="
                f"{-(-needed // group.servers)} or more"
            )
        servers = -(-needed // group.envs_per_server) * workers
        if config.allocation.suites and group.servers < servers:
            raise ConfigError(
                f"env.allocation.suites = True: needs an environment for each task of {name}, in "
                f"the fewest servers it may have. Use {places[name]}.servers={servers} or more"
            )


def _for_robot(contract: Contract, reference: str, spec: EnvSpec) -> Contract:
    """The contract with another robot in it, if only the prompt tells them apart.

    The model will be told so, with a warning (`run_model.py`).
    """
    names = [embodiment.name for embodiment in contract.embodiments]
    if spec.embodiment == UNNAMED or embodiment_name(reference) in names:
        return contract
    robot = load_embodiment(reference)
    if robot.layout != contract.embodiment.layout:
        return contract
    return replace(contract, embodiment=robot)
