"""How often the scripted expert of each task succeeds, and in how many control steps.

    python -m benchmarks.bench_suite_experts [--quick] [--json FILE] [--suites metaworld ...]
        [--seeds N] [--tasks NAME ...]

From the first N seeds of each task, straight in the simulator and without images. MetaWorld's are
asked once for each control step, so it is played with each of its `action_repeat`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite_processes import Inside
from envservers.maniskill.planner import SOLUTIONS
from envservers.maniskill.tasks import TABLE_TOP

_PLANNER = "the planner itself"
"""Column: ManiSkill's solution as it commands joints, not what follows it."""
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "metaworld": {f"action_repeat={repeat}": {"action_repeat": repeat} for repeat in (1, 2, 4)},
    "libero": {"success": {"split": "all", "scenes": 1}},
    "maniskill": {
        "its own limit": {"tasks": list(TABLE_TOP)},
        "300 steps": {"tasks": list(TABLE_TOP), "max_steps": 300},
        _PLANNER: {"tasks": list(SOLUTIONS)},
    },
}
"""Suite -> column -> options; of another suite: as it is."""
_QUICK = {
    "metaworld": ["reach-v3", "drawer-close-v3"],
    "libero": ["object/pick_up_the_milk_and_place_it_in_the_basket", "goal/turn_on_the_stove"],
    "maniskill": ["PickCube-v1", "PushCube-v1"],
}


def run(
    suites: Sequence[str] = ("metaworld",),
    seeds: int = 5,
    tasks: Sequence[str] = (),
    quick: bool = False,
) -> dict[str, Any]:
    """Play; `suites` of the result: suite -> column -> task -> steps of each success."""
    seeds = 1 if quick else seeds
    found: dict[str, dict[str, dict[str, list[int]]]] = {}
    for suite in suites:
        found[suite] = {}
        chosen = list(tasks) or (_QUICK.get(suite, []) if quick else [])
        for column, options in VARIANTS.get(suite, {"success": {}}).items():
            given = {**options, "tasks": chosen} if chosen else options
            if column == _PLANNER:
                given = {"tasks": [task for task in given["tasks"] if task in SOLUTIONS]}
            rows = found[suite][column] = {}
            mode = "plans" if column == _PLANNER else "experts"
            with Inside(suite, mode, json.dumps(given), str(seeds)) as process:
                while (row := process.ask()) is not None:
                    rows[row["task"]] = row["steps"]
                    print(f"{suite} {column} {row['task']}: {_cell(row['steps'], seeds)}")
    return {"seeds": seeds, "suites": found}


def table(result: dict[str, Any]) -> str:
    """Markdown: successes, and the median of their steps."""
    lines = []
    for suite, columns in result["suites"].items():
        names = list(columns)
        lines += [f"| {suite} | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for task in columns[names[0]]:
            cells = [
                _cell(columns[name][task], result["seeds"]) if task in columns[name] else ""
                for name in names
            ]
            lines.append(f"| `{task}` | {' | '.join(cells)} |")
        # Names such as `spatial/...` begin with their group.
        groups = dict.fromkeys(task.partition("/")[0] for task in columns[names[0]] if "/" in task)
        for start, label in [*((f"{group}/", group) for group in groups), ("", "all")]:
            cells = [_sum(columns[name], start, result["seeds"]) for name in names]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sum(rows: Mapping[str, Sequence[int]], start: str, seeds: int) -> str:
    """Of the tasks whose names begin so."""
    chosen = [steps for task, steps in rows.items() if task.startswith(start)]
    return _cell([step for steps in chosen for step in steps], seeds * len(chosen))


def _cell(steps: Sequence[int], seeds: int) -> str:
    return f"{len(steps)}/{seeds}" + (f" in {statistics.median(steps):g}" if steps else "")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one seed, of two tasks unless --tasks"
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--suites", nargs="+", default=["metaworld"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=[])
    arguments = parser.parse_args()
    result = run(arguments.suites, arguments.seeds, arguments.tasks, arguments.quick)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
