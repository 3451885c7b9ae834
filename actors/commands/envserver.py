"""`vlarl envserver`: one env server by hand, on this machine, for runs with `env.mode=connect`."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from actors.commands.command import Command, Invocation, whole_number
from vlarl.errors import UserError

SETTINGS = {
    "num_envs": "environments in this process (16)",
    "bind": "address to listen at (tcp://127.0.0.1:5555; tcp://*:5555 for every interface)",
    "threads": "simulation threads (1)",
    "tasks": "task names, such as a,b (all of the suite)",
    "image_size": "pixels (the suite's own)",
    "options": "further options of the suite, such as '{max_steps: 80}'",
}


_TOKEN = re.compile(
    r"""
    (?P<quoted> "(?:[^"\\]|\\.)*" )
    | '(?P<single> [^']* )'
    | (?P<mark> [{}\[\],] | :(?=\s) )
    | (?P<bare> [^\s{}\[\],:"'] (?: [^{}\[\],:] | :(?!\s) )* )
    | \s+
    """,
    re.VERBOSE,
)
"""A bare word may hold spaces and colons, as in YAML: `module:ID`, `pick the cup`."""


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
        *("--threads", str(whole_number(settings, "threads", 1))),
        *("--options-json", json.dumps(options)),
    ]
    sys.stdout.flush()
    # Replaces this process: an env server shares nothing with the command line that started it.
    os.execv(sys.executable, [sys.executable, *words])


def parse_options(text: str) -> dict[str, Any]:
    """A mapping such as `{max_steps: 80}`: JSON whose quotes may be single or left out.

    Where an env server runs, there need not be a YAML reader: its environment holds what the
    simulator needs and no more.

    Raises:
        UserError: for anything else.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError:
        options = _parse_bare(text)
    if not isinstance(options, dict):
        raise UserError(
            f"options = {text!r}: not a mapping. Write options='{{key: value}}', "
            "several as options='{key: value, key: value}'."
        )
    return options


def _parse_bare(text: str) -> Any:
    """The value that `text` stands for once its bare words are quoted; None if for none."""
    quoted, place = "", 0
    while match := _TOKEN.match(text, place):
        place = match.end()
        if match["single"] is not None:
            quoted += json.dumps(match["single"])
        elif match["bare"] is not None:
            quoted += _quote(match["bare"].strip())
        else:
            quoted += match.group()
    try:
        return json.loads(quoted) if place == len(text) else None
    except json.JSONDecodeError:
        return None


def _quote(word: str) -> str:
    """A bare word as JSON: a number, true, false and null as they are, anything else as text."""
    try:
        json.loads(word)
    except json.JSONDecodeError:
        return json.dumps(word)
    return word


COMMAND = Command(
    usage="envserver SUITE [num_envs=16 bind=tcp://127.0.0.1:5555 ...]",
    arguments=("SUITE",),
    settings=SETTINGS,
    details=(
        "Serves environments of SUITE (tabletop, counting or gym:ID) until it is interrupted.\n"
        "There is no authentication: bind to a private network."
    ),
    example="vlarl envserver tabletop num_envs=32 bind=tcp://10.0.0.5:5555",
    run=run,
)
