"""Suites by name, and the checks that can be made before a simulator is even imported.

Names, options and memory are checked from the table below, so that a host can refuse a typo or an
impossible number of environments before it starts a process.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlarl.config.schema import EnvConfig
from vlarl.env_protocol import Suite
from vlarl.errors import UserError


@dataclass(frozen=True)
class SuiteEntry:
    """Where a suite's class lives, and about how much memory it takes."""

    module: str
    class_name: str
    process_bytes: int
    """Interpreter, libraries and whatever all environments of a process share."""
    env_bytes: int
    """For each environment."""


_MEBIBYTE = 1024 * 1024

SUITES = {
    "tabletop": SuiteEntry(
        "envservers.tabletop.suite", "TabletopSuite", 60 * _MEBIBYTE, 2 * _MEBIBYTE
    ),
    "counting": SuiteEntry("envservers.counting", "CountingSuite", 30 * _MEBIBYTE, 64 * 1024),
    "gym": SuiteEntry("envservers.gym_suite", "GymSuite", 60 * _MEBIBYTE, 4 * _MEBIBYTE),
}


def suggestion(value: str, allowed: Iterable[str]) -> str:
    """The end of an error message: " Did you mean ...?" for a near miss, else nothing."""
    near = difflib.get_close_matches(value, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def find_suite(name: str) -> SuiteEntry:
    """The table's entry of `tabletop`, `counting` or `gym:ID`.

    Raises:
        UserError: for any other name.
    """
    family, _, rest = name.partition(":")
    is_gym = family == "gym"
    if family not in SUITES or is_gym != bool(rest):
        names = [known if known != "gym" else "gym:ID" for known in SUITES]
        raise UserError(
            f"unknown suite {name!r}; suites: {', '.join(names)}.{suggestion(family, names)}"
        )
    return SUITES[family]


def make_suite(name: str, num_envs: int, **options: Any) -> Suite:
    """Build a suite of `num_envs` environments.

    Args:
        name: `tabletop`, `counting` or `gym:ID` (any registered Gymnasium environment).
        num_envs: environments, at least 1.
        **options: keyword arguments of the suite's constructor; `threads` is dropped for a suite
            that does not take it, any other unknown one is an error.

    Raises:
        UserError: for an unknown suite, option or task, or more environments than memory.
    """
    entry = find_suite(name)
    if num_envs < 1:
        raise UserError(f"a suite needs at least 1 environment, got {num_envs}")
    check_memory(name, num_envs)
    suite_class = _load(entry, name)
    allowed = [p for p in inspect.signature(suite_class).parameters if p != "num_envs"]
    if name.startswith("gym:"):
        options = {**options, "env_id": name.removeprefix("gym:")}
    if "threads" not in allowed:
        options.pop("threads", None)
    for option in options:
        if option not in allowed:
            raise UserError(
                f"suite {name!r} has no option {option!r}; options: {', '.join(allowed)}."
                f"{suggestion(option, allowed)}"
            )
    try:
        return suite_class(num_envs=num_envs, **options)
    except ValueError as error:
        raise UserError(f"suite {name!r}: {error}") from error


def config_options(config: EnvConfig) -> dict[str, Any]:
    """Constructor options of the suite that `config` describes."""
    options: dict[str, Any] = {"image_size": config.image_size, **config.options}
    if config.tasks:
        options["tasks"] = list(config.tasks)
    if config.max_steps:
        options["max_steps"] = config.max_steps
    return options


def check_memory(name: str, num_envs: int, servers: int = 1) -> None:
    """Raise UserError if so many environments will not fit into the memory that is free."""
    entry = find_suite(name)
    needed = servers * (entry.process_bytes + num_envs * entry.env_bytes)
    free = available_memory()
    if needed > free:
        raise UserError(
            f"{servers} x {num_envs} environments of suite {name!r} need about "
            f"{needed // _MEBIBYTE} MiB, {free // _MEBIBYTE} MiB are free: "
            "lower env.envs_per_server or env.servers"
        )


def available_memory() -> int:
    """Bytes that this machine and this container can still give."""
    free = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit_file = Path("/sys/fs/cgroup/memory.max")
    if limit_file.exists() and (limit := limit_file.read_text().strip()) != "max":
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free = min(free, max(int(limit) - used, 0))
    return free


def _load(entry: SuiteEntry, name: str) -> Callable[..., Suite]:
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("envservers"):
            raise
        raise UserError(
            f"suite {name!r} needs the package {error.name!r}: "
            "pip install -r envservers/requirements.txt"
        ) from error
    return getattr(module, entry.class_name)
