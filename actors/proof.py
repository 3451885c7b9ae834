"""The proof of an RL run: the same held-out initial states before and after, and a control.

Keeps `evaluation.json` in the run folder, from which the report page is built. What is measured is
in `vlarl.evaluation.results`; who plays, in `evaluation.py`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from typing import Any

from rich.console import Console

from actors.arena import can_be_swapped
from actors.evaluation import EvalResult, EvaluationRequest, write_videos
from actors.gains import print_gains
from actors.runtime import Runtime
from vlarl.config.schema import RunConfig
from vlarl.evaluation.report import write_report
from vlarl.evaluation.results import compare
from vlarl.progress import Progress
from vlarl.runs import RunFolder

BEFORE, AFTER = "sft", "instruct"


class Proof:
    """Evaluations of one run, kept as they are made, so that a resumed run has the first ones.

    Args:
        config: of the run: how many episodes, which tasks.
        run: its folder.
        runtime: holds the policy as it is at the time.
    """

    def __init__(self, config: RunConfig, run: RunFolder, runtime: Runtime) -> None:
        self._config, self._run, self._runtime = config, run, runtime
        self._path = run.path / "evaluation.json"
        self._seconds = 0.0
        self.found: dict[str, Any] = {"machine": describe_machine(), "swapped": {}}
        if config.resume == "auto" and self._path.exists():
            self.found = json.loads(self._path.read_text(encoding="utf-8"))

    def judge(self, name: str) -> float:
        """Evaluate the policy under `name`, with instructions swapped too; seconds that it took.

        What an earlier part of a resumed run found is kept.
        """
        if name in self.found and name == BEFORE:
            return 0.0
        started = time.monotonic()
        config = self._config
        request = EvaluationRequest(
            config.evaluation.episodes,
            config.evaluation.seed,
            config.env.tasks,
            config.evaluation.videos,
        )
        result = self._evaluate(request, f"evaluate {name}")
        self.found[name] = result.summary
        write_videos(result, self._run.videos, name)
        if can_be_swapped(config.env, result.summary["tasks"]):
            swap = dataclasses.replace(request, swap=True, videos=0)
            self.found["swapped"][name] = self._evaluate(swap, f"swap {name}").summary
        self._write()
        return time.monotonic() - started

    def conclude(self, seconds: float) -> dict[str, Any]:
        """Compare before and after, write the report, print the table.

        Args:
            seconds: that the whole run took.

        Returns:
            `sft`, `instruct`, `swapped` without single episodes, `paired`, `report` (path).
        """
        self.found["paired"] = compare(self.found[BEFORE], self.found[AFTER])
        self.found["seconds"] = seconds
        self._write()
        report = write_report(self._run.path)
        print_table(self.found)
        return {
            BEFORE: _without_outcomes(self.found[BEFORE]),
            AFTER: _without_outcomes(self.found[AFTER]),
            "paired": self.found["paired"],
            "swapped": {key: _without_outcomes(row) for key, row in self.found["swapped"].items()},
            "report": str(report),
        }

    def _evaluate(self, request: EvaluationRequest, label: str) -> EvalResult:
        shown = 0
        with Progress(label, request.episodes, "episodes") as progress:

            def advance(done: int, _total: int) -> None:
                nonlocal shown
                progress.advance(done - shown)
                shown = done

            return self._runtime.evaluate(request, advance)

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        temporary.replace(self._path)


def describe_machine() -> str:
    """Processor and cores, for the report."""
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, {platform.system()}, Python " + (
        platform.python_version()
    )


def print_table(found: dict[str, Any]) -> None:
    """Task, SFT, instruct, gain and its 95% interval; then what swapped instructions do."""
    print_gains(found[BEFORE], found[AFTER], found["paired"], "SFT", AFTER)
    if AFTER in found["swapped"]:
        swapped = found["swapped"][AFTER]
        Console().print(
            f"instruction swapped for another task's: {swapped['own']['success_rate']:.0%} on the "
            f"scene's own task, {swapped['named']['success_rate']:.0%} on the named one"
        )


def _without_outcomes(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "outcomes"}
