"""Suites by name, and the checks that can be made before a simulator is even imported.

Names, options and memory are checked by `suite_table.py`, so that a host can refuse a typo or an
impossible number of environments before it starts a process.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envservers.options import check_options, suggestion
from envservers.suite_table import SUITES, SuiteEntry
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import Suite
from vlarl.errors import UserError
from vlarl.types import EnvSpec

_MEBIBYTE = 1024 * 1024
_KIBIBYTE = 1024
_USUAL_IMAGE_SIZE = 64
"""Where no option says otherwise; no suite's own is larger."""


def find_suite(name: str) -> SuiteEntry:
    """The table's entry of one of its names, or of `gym:ID`.

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


def make_suite(name: str, num_envs: int, /, **options: Any) -> Suite:
    """Build a suite of `num_envs` environments.

    Args:
        name: of the table, or `gym:ID` (any registered Gymnasium environment).
        num_envs: environments, at least 1.
        **options: keyword arguments of the suite's constructor; `threads` is dropped for a suite
            that does not take it, any other unknown one is an error.

    Raises:
        UserError: for an unknown suite, option or task, an option of another type than expected,
            or more environments than memory.
    """
    check_memory(name, max(num_envs, 1), options=options)
    suite = _build(name, num_envs, options)
    _check_scenes(name, suite)
    if hasattr(suite, "load"):
        try:
            suite.load()
        except ModuleNotFoundError as error:
            raise UserError(_lacks(name, error)) from error
    return suite


def describe_suite(name: str, /, **options: Any) -> EnvSpec:
    """What a suite with these options simulates, whether or not its simulator is installed here.

    Raises:
        UserError: for an unknown suite, option or task, or an option of another type than expected.
    """
    suite = _build(name, 1, options)
    suite.close()
    return suite.spec


def lacking(name: str) -> str:
    """What a suite as it is by default still needs, such as scenes, and the remedy; empty: nothing.

    Of the interpreter that this runs in, which should be that of the suite's environment.
    """
    suite = _build(name, 1, {})
    try:
        _check_scenes(name, suite)
    except UserError as error:
        return str(error)
    finally:
        suite.close()
    return ""


def _check_scenes(name: str, suite: Suite) -> None:
    entry = find_suite(name)
    if entry.check:
        getattr(importlib.import_module(entry.module), entry.check)(suite)


def _build(name: str, num_envs: int, options: dict[str, Any]) -> Suite:
    entry = find_suite(name)
    if num_envs < 1:
        raise UserError(f"a suite needs at least 1 environment, got {num_envs}")
    suite_class = _load(entry, name)
    if "threads" not in inspect.signature(suite_class).parameters:
        options.pop("threads", None)
    check_options(name, suite_class, options)
    if name.startswith("gym:"):
        options["env_id"] = name.removeprefix("gym:")
    try:
        suite: Suite = suite_class(num_envs=num_envs, **options)
    except ValueError as error:
        raise UserError(f"suite {name!r}: {error}") from error
    return suite


def config_options(config: EnvConfig) -> dict[str, Any]:
    """Constructor options of the suite that `config` describes."""
    options: dict[str, Any] = {"image_size": config.image_size, **config.options}
    if config.tasks:
        options["tasks"] = list(config.tasks)
    if config.max_steps:
        options["max_steps"] = config.max_steps
    return options


def check_memory(
    name: str,
    num_envs: int,
    servers: int = 1,
    options: Mapping[str, Any] | None = None,
    taken: int = 0,
) -> None:
    """Raise UserError if so many environments will not fit into the memory that is free.

    Args:
        name: of the suite.
        num_envs: of each server.
        servers: processes.
        options: of the suite; its `image_size` counts, if it is a number.
        taken: bytes that other suites are about to take.
    """
    needed = memory_needed(name, num_envs, servers, options)
    free = available_memory() - taken
    if needed > free:
        raise UserError(
            f"{servers} x {num_envs} environments of suite {name!r} with images of "
            f"{_image_size(options)} pixels need about {needed // _MEBIBYTE} MiB, "
            f"{free // _MEBIBYTE} MiB are free: "
            "lower env.envs_per_server (num_envs= of collect and envserver), env.servers or "
            "env.image_size"
        )


def memory_needed(
    name: str, num_envs: int, servers: int = 1, options: Mapping[str, Any] | None = None
) -> int:
    """Bytes that the servers will take, about; arguments as those of `check_memory`."""
    entry = find_suite(name)
    each = entry.env_kib * _KIBIBYTE + _image_size(options) ** 2 * entry.pixel_bytes
    shared = entry.process_mib
    if entry.scene_mib:
        tasks = len(describe_suite(name, **(options or {})).tasks)
        shared += entry.scene_mib * entry.kept_scenes(tasks, num_envs)
    return servers * (shared * _MEBIBYTE + num_envs * each)


def _image_size(options: Mapping[str, Any] | None) -> int:
    given = (options or {}).get("image_size")
    return given if isinstance(given, int) and given > 0 else _USUAL_IMAGE_SIZE


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


def _load(entry: SuiteEntry, name: str) -> Any:
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("envservers"):
            raise
        raise UserError(_lacks(name, error)) from error
    return getattr(module, entry.class_name)


def _lacks(name: str, error: ModuleNotFoundError) -> str:
    environment = find_suite(name).environment
    remedy = "pip install -r envservers/requirements.txt"
    if environment:
        remedy = f"vlarl suite install {environment}, and env.mode=spawn, which runs it there"
    return f"suite {name!r} needs the package {error.name!r}: {remedy}"
