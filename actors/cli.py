"""`vlarl COMMAND [ARGUMENT] [key=value ...] [--json]`: takes the line apart, runs the command.

Exit code 0 on success, 2 on a mistake of the user's (one message, no traceback), 1 on a failure or
when stopped. With `--json`, whatever a command prints goes to standard error, and standard output
holds one JSON object. Commands are in `actors/commands/`; none is imported before it is asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from actors.commands import COMMANDS, load_command
from actors.commands.command import Invocation, hint
from vlarl import __version__
from vlarl.errors import UserError

OK, FAILURE, MISTAKE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `vlarl` script."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _stop)
    # Configs name callables `package.module:callable`, also of the folder the user stands in.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(run(words))


def run(words: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        return _dispatch(words)
    except UserError as error:
        print(f"vlarl: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("vlarl: stopped", file=sys.stderr)
        return FAILURE
    except BrokenPipeError:
        # Whoever read our output has left; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    # The outermost boundary: any failure becomes exit code 1 with its traceback.
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return FAILURE


def _dispatch(words: Sequence[str]) -> int:
    flags = [word for word in words if word.startswith("-")]
    plain = [word for word in words if not word.startswith("-")]
    for flag in flags:
        if flag not in ("--json", "--help", "-h", "--version"):
            raise UserError(f"{flag}: no such option. There are --help, --json and --version.")
    if "--version" in flags:
        print(__version__)
        return OK
    if not plain:
        print(overview())
        return OK if flags else MISTAKE
    name, *rest = plain
    if name not in COMMANDS:
        raise UserError(f"{name}: no such command. {hint(name, COMMANDS)}")
    if "--help" in flags or "-h" in flags:
        print(command_help(name, rest))
        return OK
    return _execute(name, parse(rest), as_json="--json" in flags)


def parse(words: Sequence[str]) -> Invocation:
    """Arguments and `key=value` settings apart.

    Raises:
        UserError: for a key given twice.
    """
    settings: dict[str, str] = {}
    arguments = []
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            arguments.append(word)
            continue
        if key in settings:
            raise UserError(f"{key} is given twice: {settings[key]!r} and {value!r}.")
        settings[key] = value
    return Invocation(tuple(arguments), settings)


def overview() -> str:
    """The page of `vlarl --help`."""
    lines = [
        "vlarl COMMAND [ARGUMENT] [key=value ...] [--json]",
        "",
        "Post-trains vision-language-action models with reinforcement learning.",
        "",
        *(f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "`vlarl COMMAND --help` tells what a command takes and shows an example.",
    ]
    return "\n".join(lines)


def command_help(name: str, rest: Sequence[str] = ()) -> str:
    """The page of `vlarl COMMAND --help`, or of the subcommand that `rest` begins with.

    Raises:
        UserError: for an unknown subcommand.
    """
    command = load_command(name)
    if rest and command.subcommand is not None:
        command = command.subcommand(rest[0])
    lines = [f"vlarl {command.usage} [--json]", "", command.details]
    if command.settings:
        lines += ["", *(f"  {key:<16} {text}" for key, text in command.settings.items())]
    return "\n".join([*lines, "", "Example:", f"  {command.example}"])


def _execute(name: str, invocation: Invocation, as_json: bool) -> int:
    command = load_command(name)
    command.check(name, invocation)
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        result: dict[str, Any] = command.run(invocation)
    # Under torchrun, all processes have a result: one of them tells it.
    speaks = os.environ.get("RANK", "0") == "0"
    if as_json and speaks:
        print(json.dumps(result))
    if result.get("defects") or result.get("failed"):
        return FAILURE
    if not result.get("interrupted"):
        return OK
    if not speaks:
        return FAILURE
    run = os.path.basename(result["run"])
    print(
        f"vlarl: stopped; left {result['checkpoint']}, which name={run} resume=auto continues",
        file=sys.stderr,
    )
    return FAILURE


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    """A termination request ends a run as Ctrl-C does: servers end, a checkpoint is left."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
