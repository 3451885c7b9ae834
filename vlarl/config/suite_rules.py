"""Rules of the suites of a run: of the one that `env` describes, or of each in `env.suites`."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.addresses import stays_on_machine
from vlarl.config.checks import at_least, without_effect
from vlarl.config.embodiments import load_embodiment
from vlarl.config.problem import Problem
from vlarl.config.process_schema import SUITE_FIELDS, EnvConfig
from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError
from vlarl.stages import SUPERVISED

_KEY = "env.suites"


def suite_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of every suite, and of what stands beside `env.suites`."""
    if config.env.suites:
        if config.stage in SUPERVISED:
            yield Problem(
                _KEY, f"has no effect with stage={config.stage}", "Use env.suite and env.tasks."
            )
        yield from without_effect(config, [f"env.{name}" for name in SUITE_FIELDS], _KEY)
    for name in config.env.suites:
        # Settings are named by dots, tasks by a slash.
        if not name.strip() or "." in name or "/" in name:
            remedy = "Call it something without dots and slashes."
            yield Problem(_KEY, f"{name!r} is no name for a suite", remedy)
    for name, group in config.env.groups.items():
        yield from _suite(config, f"{_KEY}.{name}" if name else "env", group)


def _suite(config: RunConfig, at: str, group: EnvConfig) -> Iterator[Problem]:
    """Problems of one suite, whose settings are those at the key `at`."""
    counts = ("servers", "envs_per_server", "image_size")
    yield from at_least(config, 1, [f"{at}.{name}" for name in counts])
    yield from at_least(config, 0, [f"{at}.max_steps"])
    if not group.suite or group.suite == "gym:":
        yield Problem(f"{at}.suite", "names no suite", f"Try {at}.suite=tabletop or gym:ID.")
    if len(set(group.tasks)) < len(group.tasks):
        yield Problem(f"{at}.tasks", "names a task twice", "Name each task once.")
    key = f"{at}.addresses"
    if group.mode != "connect":
        if group.addresses:
            remedy = "Remove it (an empty list is the default) or change the other."
            yield Problem(key, f"has no effect with env.mode={group.mode}", remedy)
    elif not group.addresses:
        yield Problem(key, "is empty with mode=connect", f"Try {key}=[tcp://HOST:PORT].")
    for address in group.addresses:
        is_file = address.startswith("@")
        is_port = address.startswith("tcp://") and address.rpartition(":")[2].isdigit()
        if (not is_port and not address[1:]) or not (is_port or is_file):
            remedy = "Write tcp://HOST:PORT, or @FILE that holds one."
            yield Problem(key, f"{address!r} is no address", remedy)
        # Servers that other machines can reach let nobody in without their key.
        if not is_file and not group.key_file and not stays_on_machine(address):
            problem = f"is empty, and {address}, on another machine, demands a key"
            remedy = "Name the file that its server was started with; `vlarl key FILE` makes one."
            yield Problem("env.key_file", problem, remedy)
    if group.embodiment and config.stage not in SUPERVISED:
        try:
            load_embodiment(group.embodiment)
        except ConfigError as error:
            yield Problem(f"{at}.embodiment", "names no robot", f"{error}.".replace("..", "."))
