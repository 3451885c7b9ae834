"""`vlarl envserver`: one env server by hand, on this machine, for runs with `env.mode=connect`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import yaml

from actors.commands.command import Command, Invocation, whole_number
from envservers import environments
from envservers.registry import describe_suite, find_suite
from envservers.usable import check_usable
from vlarl.errors import UserError

SETTINGS = {
    "num_envs": "environments in this process (16)",
    "bind": "address to listen at (tcp://127.0.0.1:5555; tcp://*:5555 for every interface)",
    "address_file": "file to keep the address in; a run's env.addresses has it as @FILE (none)",
    "key": "file that `vlarl key` made; needed where other machines can reach `bind` (none)",
    "threads": "simulation threads (1)",
    "tasks": "task names, such as a,b (all of the suite)",
    "image_size": "pixels (the suite's own)",
    "options": "further options of the suite, such as '{max_steps: 80}'",
}


def run(invocation: Invocation) -> dict[str, Any]:
    """Become the env server; prints `ready ADDRESS` and ends on Ctrl-C or `close`."""
    settings = invocation.settings
    options = parse_options(settings.get("options", "{}"))
    if "tasks" in settings:
        options["tasks"] = [task.strip() for task in settings["tasks"].strip("[]").split(",")]
    if "image_size" in settings:
        options["image_size"] = whole_number(settings, "image_size", 64)
    words = [
        *("-m", "envservers.server", invocation.arguments[0]),
        *("--num-envs", str(whole_number(settings, "num_envs", 16))),
        *("--bind", settings.get("bind", "tcp://127.0.0.1:5555")),
        *(("--key-file", settings["key"]) if "key" in settings else ()),
        *(("--address-file", settings["address_file"]) if "address_file" in settings else ()),
        *("--threads", str(whole_number(settings, "threads", 1))),
        *("--options-json", json.dumps(options)),
    ]
    sys.stdout.flush()
    # Replaces this process: an env server shares nothing with the command line that started it.
    python, path = _interpreter(invocation.arguments[0], options)
    os.environ.update(path)
    os.execv(python, [python, *words])


def _interpreter(suite: str, options: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The Python that the suite runs in, and what its search path has to be.

    Raises:
        UserError: for a suite that there is none of, or that cannot run here.
    """
    environment = find_suite(suite).environment
    if not environment:
        return sys.executable, {}
    describe_suite(suite, **options)
    check_usable(suite)
    return environments.python_of(environment), {"PYTHONPATH": environments.light_path()}


def parse_options(text: str) -> dict[str, Any]:
    """A mapping such as `{max_steps: 80}`, in YAML.

    Raises:
        UserError: for anything else.
    """
    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict):
        raise UserError(
            f"options = {text!r}: not a mapping. Write options='{{key: value}}', "
            "several as options='{key: value, key: value}'."
        )
    return options


COMMAND = Command(
    usage="envserver SUITE [num_envs=16 bind=tcp://127.0.0.1:5555 ...]",
    arguments=("SUITE",),
    settings=SETTINGS,
    details=(
        "Serves environments of SUITE (`vlarl suite list`, or gym:ID) until it is interrupted.\n"
        "Clients on other machines need its key, and it needs one to listen to them: `vlarl key`."
    ),
    example="vlarl envserver tabletop num_envs=32 bind=tcp://10.0.0.5:5555 key=servers.key",
    run=run,
)
