"""Suites by name, and the checks that can be made before a simulator is even imported.

Names, options and memory are checked from the table below, so that a host can refuse a typo or an
impossible number of environments before it starts a process.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envservers.options import check_options, suggestion
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import Suite
from vlarl.errors import UserError
from vlarl.types import EnvSpec


@dataclass(frozen=True)
class SuiteEntry:
    """Where a suite's class lives, and about how much memory it takes."""

    module: str
    class_name: str
    process_bytes: int
    """Interpreter, libraries and whatever all environments of a process share."""
    env_bytes: int
    """For each environment, without its images."""
    pixel_bytes: int
    """For each of the `image_size ** 2` pixels of an environment, all cameras together."""
    environment: str = ""
    """The virtual environment that the suite's processes run in (`envservers.environments`); empty:
    this one."""
    graphics: str = ""
    """`opengl` or `vulkan`, if it cannot be without; looked for before a process is started."""
    experts: bool = False
    """Whether its servers have scripted experts (`expert_actions`) for each of its tasks."""
    check: str = ""
    """Function of the module that is called with the suite where its simulator is installed, before
    the first instance is made: raises UserError for what is missing, such as a folder of scenes."""
    start_seconds: float = 60.0
    """Until a server of it is ready, at most."""
    groups: str = ""
    """The module whose `GROUPS` (`envservers.task_groups`) names several tasks at once."""


_MEBIBYTE = 1024 * 1024
_KIBIBYTE = 1024
_USUAL_IMAGE_SIZE = 64
"""Where no option says otherwise; no suite's own is larger."""

# Measured as peak resident memory over 1 to 256 environments with images of 8 to 512 pixels, then
# rounded up. Tabletop: 125 bytes a pixel while rays are cast (directions and normals of 24 each,
# distances, geoms, shades, two cameras' colors); counting: 34. On top of it come the image ring
# (4 slots of 2 x 3 bytes) and the copy that its reader takes (6). Gymnasium environments are too
# different to be measured: each is granted 4 MiB, and its images what the counting suite's need.
# MetaWorld: 200 MiB of libraries and 70 MiB for each task's scene, of which there are at most four
# more than slots. ManiSkill: torch, SAPIEN and a software renderer's first scene made 1180 MB, each
# further scene 4; what Simpler-WidowX takes is an estimate.
# more than slots. RoboCasa-GR1, RoboTwin and DOMINO: estimates, never measured.
SUITES = {
    "tabletop": SuiteEntry(
        "envservers.tabletop.suite", "TabletopSuite", 60 * _MEBIBYTE, 64 * _KIBIBYTE, 160
    ),
    "navigation": SuiteEntry(
        "envservers.navigation.suite", "NavigationSuite", 60 * _MEBIBYTE, 64 * _KIBIBYTE, 160
    ),
    "counting": SuiteEntry(
        "envservers.counting", "CountingSuite", 30 * _MEBIBYTE, 16 * _KIBIBYTE, 64
    ),
    "metaworld": SuiteEntry(
        "envservers.metaworld.suite",
        "MetaWorldSuite",
        480 * _MEBIBYTE,
        72 * _MEBIBYTE,
        64,
        environment="metaworld",
        graphics="opengl",
        experts=True,
        groups="envservers.metaworld.groups",
    ),
    "libero": SuiteEntry(
        "envservers.libero.suite",
        "LiberoSuite",
        2600 * _MEBIBYTE,
        1 * _MEBIBYTE,
        64,
        environment="libero",
        graphics="opengl",
        experts=True,
        start_seconds=180.0,
        groups="envservers.libero.groups",
    ),
    "robocasa-gr1": SuiteEntry(
        "envservers.robocasa_gr1.suite",
        "RobocasaGr1Suite",
        1500 * _MEBIBYTE,
        500 * _MEBIBYTE,
        64,
        environment="robocasa-gr1",
        graphics="opengl",
        check="check",
        start_seconds=300.0,
        groups="envservers.robocasa_gr1.tasks",
    ),
    "robotwin": SuiteEntry(
        "envservers.robotwin.suite",
        "RoboTwinSuite",
        4000 * _MEBIBYTE,
        500 * _MEBIBYTE,
        192,
        environment="robotwin",
        graphics="vulkan",
        check="check",
        start_seconds=300.0,
        groups="envservers.robotwin.tasks",
    ),
    "domino": SuiteEntry(
        "envservers.domino.suite",
        "DominoSuite",
        4000 * _MEBIBYTE,
        500 * _MEBIBYTE,
        192,
        environment="robotwin",
        graphics="vulkan",
        check="check",
        start_seconds=300.0,
        groups="envservers.domino.tasks",
    ),
    "gym": SuiteEntry("envservers.gym_suite", "GymSuite", 60 * _MEBIBYTE, 4 * _MEBIBYTE, 64),
    "maniskill": SuiteEntry(
        "envservers.maniskill.suite",
        "ManiSkillSuite",
        1300 * _MEBIBYTE,
        16 * _MEBIBYTE,
        160,
        environment="maniskill",
        graphics="vulkan",
        start_seconds=600.0,
    ),
    "simpler-widowx": SuiteEntry(
        "envservers.maniskill.widowx",
        "WidowXSuite",
        1300 * _MEBIBYTE,
        64 * _MEBIBYTE,
        160,
        environment="maniskill",
        graphics="vulkan",
        check="check_scenes",
        start_seconds=600.0,
        groups="envservers.maniskill.tasks",
    ),
    # Estimates, not measured: these were never run here. Of VLN-CE's buildings, each of hundreds of
    # megabytes, two are kept.
    "vln-ce": SuiteEntry(
        "envservers.vlnce.suite",
        "VlnSuite",
        3000 * _MEBIBYTE,
        1 * _MEBIBYTE,
        64,
        environment="vln-ce",
        graphics="opengl",
        check="check",
        start_seconds=180.0,
        groups="envservers.vlnce.groups",
    ),
    "calvin": SuiteEntry(
        "envservers.calvin.suite",
        "CalvinSuite",
        600 * _MEBIBYTE,
        150 * _MEBIBYTE,
        64,
        environment="calvin",
        graphics="opengl",
        check="check",
        start_seconds=120.0,
        groups="envservers.calvin.groups",
    ),
    "simpler-env": SuiteEntry(
        "envservers.simpler.suite",
        "SimplerSuite",
        1500 * _MEBIBYTE,
        300 * _MEBIBYTE,
        64,
        environment="simpler-env",
        graphics="vulkan",
        check="check",
        start_seconds=180.0,
        groups="envservers.simpler.groups",
    ),
}


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
    entry = find_suite(name)
    if entry.check:
        getattr(importlib.import_module(entry.module), entry.check)(suite)
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
    each = entry.env_bytes + _image_size(options) ** 2 * entry.pixel_bytes
    return servers * (entry.process_bytes + num_envs * each)


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
