"""Processes of `inside_suite.py` in the interpreters that suites need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from envservers import environments
from envservers.registry import find_suite
from envservers.spawn import ONE_THREAD

_SCRIPT = Path(__file__).with_name("inside_suite.py")


class Inside:
    """One process; ends with its block.

    Args:
        suite: name of the registry.
        mode: of `inside_suite.py`.
        words: what the mode takes.

    Raises:
        UserError: if the suite's environment is not installed.
    """

    def __init__(self, suite: str, mode: str, *words: str) -> None:
        needed = find_suite(suite).environment
        python = environments.python_of(needed) if needed else sys.executable
        self._process = subprocess.Popen(
            [python, str(_SCRIPT), mode, suite, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": environments.light_path()},
        )

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, line: str = "") -> dict[str, Any] | None:
        """Send a line if there is one; the next answer, None after the last.

        Raises:
            RuntimeError: if the process failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        for answer in self._process.stdout:
            # Libraries print lines of their own.
            if answer.startswith("{"):
                values: dict[str, Any] = json.loads(answer)
                return values
        if code := self._process.wait():
            raise RuntimeError(f"{self._process.args} ended with code {code}")
        return None
