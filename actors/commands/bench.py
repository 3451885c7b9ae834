"""`vlarl bench`: one benchmark of the `benchmarks/` folder, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation, hint
from vlarl.errors import UserError

_OF_MODELS = "policy"
_OF_SUITES = ("suites", "suite_experts")
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def names() -> tuple[str, ...]:
    """The benchmarks that are there: `bench_NAME.py` of the folder."""
    return tuple(sorted(file.stem.removeprefix("bench_") for file in FOLDER.glob("bench_*.py")))


def run(invocation: Invocation) -> dict[str, Any]:
    """Run the benchmark of that name; it prints its table itself.

    Raises:
        UserError: for an unknown benchmark, a setting that it does not take, or a package
            installed without them.
        RuntimeError: if the benchmark failed.
    """
    name, found = invocation.arguments[0], names()
    if not found:
        raise UserError("the benchmarks are not installed: run this in a checkout (`make setup`).")
    if name not in found:
        raise UserError(f"bench: {name}: no such benchmark. {hint(name, found)}")
    models = [word for word in invocation.settings.get("model", "").split(",") if word]
    if models and name != _OF_MODELS:
        raise UserError(f"bench {name}: model: no setting of this one. Try: bench {_OF_MODELS}")
    suites = [word for word in invocation.settings.get("suites", "").split(",") if word]
    if suites and name not in _OF_SUITES:
        raise UserError(f"bench {name}: suites: no setting of this one. Try: bench {_OF_SUITES[0]}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        flags = ["--quick"] if invocation.settings.get("quick", "false") == "true" else []
        flags += ["--model", *models] if models else []
        flags += ["--suites", *suites] if suites else []
        words = [sys.executable, "-m", f"benchmarks.bench_{name}", *flags, "--json", str(file)]
        # Not our standard output itself: with --json that is standard error for now.
        code = subprocess.run(words, cwd=FOLDER.parent, stdout=sys.stdout, check=False).returncode
        if code:
            raise RuntimeError(f"benchmark {name} ended with exit code {code}")
        figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return figures


COMMAND = Command(
    usage="bench NAME [quick=true] [model=...] [suites=...]",
    arguments=("NAME",),
    settings={
        "quick": "short measurements, to see that it runs (false)",
        "model": "presets and checkpoints, such as a,b, of `bench policy` (every preset)",
        "suites": "installed suites, such as a,b, of `bench suites`, `suite_experts` (metaworld)",
    },
    details=f"Benchmarks: {', '.join(names())}. Expected figures are in benchmarks/README.md.",
    example="vlarl bench envs --json",
    run=run,
)
