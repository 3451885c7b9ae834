"""`vlarl suite`: simulators in environments of their own; a file `suite_*.py` each."""

from __future__ import annotations

from actors.commands.subcommands import dispatcher

SUBCOMMANDS = {
    "install": ("suite_install", "make the virtual environment of a suite, and try the suite"),
    "list": ("suite_list", "what is installed, what is missing, and why"),
    "remove": ("suite_remove", "delete the virtual environment of a suite"),
}

COMMAND = dispatcher("suite", (), SUBCOMMANDS, "vlarl suite install metaworld", several=True)
