"""The main job, start to end: from an SFT checkpoint to a better one by RL, and the proof.

Evaluate, train within a wall-clock budget, evaluate the same initial states, swap the instructions
as a control, and write it all into the run folder. Settings are in `configs/rl/demo.yaml`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.controller import Interrupt, iterate
from actors.evaluation import EvalResult, EvaluationRequest, write_videos
from actors.runtime import Runtime, open_runtime
from vlarl.config.schema import RunConfig
from vlarl.evaluation.report import write_report
from vlarl.evaluation.results import compare
from vlarl.progress import Progress
from vlarl.runs import RunFolder

MINUTES = 14.0
"""For everything: the promise is a quarter of an hour."""
SWAPPED_EPISODES = 64
_RESERVE_SECONDS = 20.0
"""For the report, and for an iteration that began just in time."""


def demo(config: RunConfig, minutes: float = MINUTES) -> dict[str, Any]:
    """Run the whole of it and print the table.

    Args:
        config: of the RL stage.
        minutes: of wall clock, evaluations included; training ends in time for them.

    Returns:
        `sft`, `instruct` (each `success_rate`, `interval`, `episodes`, `tasks`), `paired`,
        `swapped`, `seconds`, `run`, `report`.

    Raises:
        UserError: for a config or checkpoint that does not fit.
        KeyboardInterrupt: if Ctrl-C ended the training; its checkpoint is left.
    """
    started = time.monotonic()
    with Interrupt.watching() as interrupt, open_runtime(config) as runtime:
        run = RunFolder.create(config)
        evaluation: dict[str, Any] = {"machine": describe_machine(), "swapped": {}}
        evaluate_seconds = _evaluate(config, run, runtime, evaluation, "sft")
        until = started + minutes * 60 - evaluate_seconds - _RESERVE_SECONDS
        with Progress("rl", config.ppo.iterations, "iterations") as progress:
            trained = iterate(config, run, runtime, interrupt, until=until, progress=progress)
        if interrupt.pressed:
            raise KeyboardInterrupt
        _evaluate(config, run, runtime, evaluation, "instruct")
    evaluation["paired"] = compare(evaluation["sft"], evaluation["instruct"])
    evaluation["seconds"] = time.monotonic() - started
    (run.path / "evaluation.json").write_text(json.dumps(evaluation, indent=1), encoding="utf-8")
    report = write_report(run.path)
    run.close()
    _print_table(evaluation)
    return {
        "sft": _without_outcomes(evaluation["sft"]),
        "instruct": _without_outcomes(evaluation["instruct"]),
        "paired": evaluation["paired"],
        "swapped": {key: _without_outcomes(row) for key, row in evaluation["swapped"].items()},
        "iterations": trained["steps"],
        "checkpoint": trained["checkpoint"],
        "seconds": evaluation["seconds"],
        "run": str(run.path),
        "report": str(report),
    }


def describe_machine() -> str:
    """Processor and cores, for the report."""
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, {platform.system()}, Python " + (
        platform.python_version()
    )


def _evaluate(
    config: RunConfig, run: RunFolder, runtime: Runtime, evaluation: dict[str, Any], name: str
) -> float:
    """Evaluate and swap, keep both under `name`, write the videos; seconds that it took."""
    started = time.monotonic()
    request = EvaluationRequest(
        config.evaluation.episodes,
        config.evaluation.seed,
        config.env.tasks,
        config.evaluation.videos,
    )
    result = _with_progress(runtime, request, f"evaluate {name}")
    evaluation[name] = result.summary
    write_videos(result, run.videos, name, runtime.spec.control_hz)
    swap = dataclasses.replace(request, swap=True, videos=0, episodes=SWAPPED_EPISODES)
    evaluation["swapped"][name] = _with_progress(runtime, swap, f"swap {name}").summary
    return time.monotonic() - started


def _with_progress(runtime: Runtime, request: EvaluationRequest, label: str) -> EvalResult:
    shown = 0
    with Progress(label, request.episodes, "episodes") as progress:

        def advance(done: int, _total: int) -> None:
            nonlocal shown
            progress.advance(done - shown)
            shown = done

        return runtime.evaluate(request, advance)


def _without_outcomes(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "outcomes"}


def _print_table(evaluation: dict[str, Any]) -> None:
    """Task, SFT, instruct, gain and its 95% interval."""
    paired = evaluation["paired"]
    table = Table("task", "SFT", "instruct", "gain", "95% interval")
    for task in [*evaluation["sft"]["tasks"], "all"]:
        before, after, gain = (
            row if task == "all" else row["tasks"][task]
            for row in (evaluation["sft"], evaluation["instruct"], paired)
        )
        low, high = gain["interval"]
        table.add_row(
            task.replace("_", " "),
            f"{before['success_rate']:.0%}",
            f"{after['success_rate']:.0%}",
            f"{100 * gain['difference']:+.0f}",
            f"{100 * low:+.0f} to {100 * high:+.0f}",
        )
    console = Console()
    console.print(table)
    swapped = evaluation["swapped"]["instruct"]
    console.print(
        f"instruction swapped for another task's: {swapped['own']['success_rate']:.0%} on the "
        f"scene's own task, {swapped['named']['success_rate']:.0%} on the named one"
    )
