"""Speed and memory of suites of someone else's simulators, beside the suite's own `step` and image.

    python -m benchmarks.bench_suites [--quick] [--json FILE] [--suites metaworld ...]
        [--sizes 64 128 224] [--seconds S] [--repeats N] [--gpu ROWS]

One environment of one task and the same cameras everywhere (LIBERO and ManiSkill: two), random
actions, episodes that do not end. Each contender lives in a process of its own in the suite's
interpreter; those of one size are built first, then short windows of measurement go round them in
turn. Contenders: ours with the tuned and the default renderer, an image at the end of each chunk of
8 and at every step, and the suite's own loop with its own settings. `rate` is by the clock,
`cpu_rate` by the processor time of the process and its threads: on a machine that does other work,
ratios are of the latter. `--gpu ROWS` measures ManiSkill alone, with a GPU's physics and so many
environments; there ratios are by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.inside_suite import PEERS
from benchmarks.suite_processes import Inside

CHUNK = 8
SIZES = (64, 128, 224)
SETTINGS: dict[str, dict[str, Any]] = {
    "metaworld": {"tasks": ["reach-v3"], "cameras": ["ego"]},
    "libero": {"tasks": ["object/pick_up_the_alphabet_soup_and_place_it_in_the_basket"]},
    "maniskill": {"tasks": ["PickCube-v1"]},
}
"""Suite -> options under which it draws what its own loop does."""
TUNED = {"tuned": {"renderer": "tuned"}, "default": {"renderer": "default"}}
SLOTS = (1, 8)
"""Environments whose memory is compared."""


def run(
    suites: Sequence[str] = ("metaworld",),
    sizes: Sequence[int] = SIZES,
    seconds: float = 2.0,
    repeats: int = 5,
    gpu: int = 0,
) -> dict[str, Any]:
    """Measure; medians over `repeats` windows of `seconds` each.

    Args:
        suites: names of the registry.
        sizes: of the images, in pixels.
        seconds: of a window.
        repeats: windows of each contender.
        gpu: environments of ManiSkill on a GPU, instead of all this.

    Returns:
        `suites`: suite -> `{"sizes": {size: {contender: {"rate", "cpu_rate",
        "rate_without_drawing", "compared"}, "ratios": {contender: times the peer}}}, "memory":
        {...}}`, and `machine`.
    """
    found: dict[str, Any] = {}
    for suite in ["maniskill"] if gpu else suites:
        found[suite] = {
            "sizes": {size: _contest(suite, size, seconds, repeats, gpu) for size in sizes},
            "memory": {} if gpu else _memory(suite),
        }
    machine = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    return {"suites": found, "seconds": seconds, "repeats": repeats, "machine": machine}


def _contest(suite: str, size: int, seconds: float, repeats: int, gpu: int) -> dict[str, Any]:
    answers: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        processes = {}
        for name, mode, *words in _contenders(suite, size, gpu):
            processes[name] = stack.enter_context(Inside(suite, mode, *words))
            processes[name].ask()
        for _ in range(repeats):
            for name, process in processes.items():
                answers.setdefault(name, []).append(process.ask(str(seconds)) or {})
    rows: dict[str, Any] = {}
    for name, windows in answers.items():
        rows[name] = {
            key: statistics.median(window[key] for window in windows) for key in windows[0]
        }
        compared = "rate" if gpu else "cpu_rate"
        rows[name]["compared"] = [window[compared] for window in windows]
    if "own" in rows:
        rows["ratios"] = {
            name: statistics.median(map(_over, row["compared"], rows["own"]["compared"]))
            for name, row in rows.items()
        }
    return rows


def _contenders(suite: str, size: int, gpu: int) -> list[tuple[str, ...]]:
    """Name, mode and words of each."""
    found: list[tuple[str, ...]] = []
    physics = {"physics": "gpu"} if gpu else {}
    rows = [str(gpu)] if gpu else []
    for renderer, option in TUNED.items():
        options = json.dumps({**SETTINGS.get(suite, {}), **option, **physics, "image_size": size})
        found.append((f"{renderer}, chunks", "play", options, str(CHUNK), *rows))
        found.append((f"{renderer}, steps", "play", options, "1", *rows))
    if suite in PEERS:
        found.append(("own", "peer", str(size), *rows))
    return found


def _over(ours: float, theirs: float) -> float:
    return ours / theirs


def _memory(suite: str) -> dict[str, Any]:
    """Bytes that environments of one task and of several take beyond the loaded suite."""
    found: dict[str, Any] = {}
    for words, tasks in (("one task", True), ("several tasks", False)):
        for slots in SLOTS:
            options = SETTINGS.get(suite, {}) if tasks else {}
            with Inside(suite, "memory", json.dumps(options), str(slots)) as process:
                answer = process.ask() or {}
            found[f"{slots} of {words}"] = answer
    return found


def table(result: dict[str, Any]) -> str:
    """Markdown: rates by size, then memory."""
    lines: list[str] = []
    for suite, part in result["suites"].items():
        for size, rows in part["sizes"].items():
            lines += ["", f"{suite}, {size} x {size}", "", _HEAD]
            for name, row in rows.items():
                if name != "ratios":
                    times = rows.get("ratios", {}).get(name)
                    lines.append(_row(name, row, times))
        if part["memory"]:
            lines += ["", "| environments | loaded, MiB | with them, MiB |", "|---|---|---|"]
        for name, row in part["memory"].items():
            figures = row["loaded"] / 2**20, row["with_environments"] / 2**20
            lines.append(f"| {name} | {figures[0]:,.0f} | {figures[1]:,.0f} |")
    return "\n".join(lines).strip()


_HEAD = (
    "| | env steps/s | per CPU second | decisions/s | env steps/s without drawing | times own |\n"
    "|---|---|---|---|---|---|"
)


def _row(name: str, row: dict[str, float], times: float | None) -> str:
    decisions = row["rate"] / (CHUNK if name.endswith("chunks") else 1)
    undrawn = "" if name == "own" else f"{row['rate_without_drawing']:,.0f}"
    ratio = "" if times is None else f"{times:.1f}"
    rates = f"{row['rate']:,.1f} | {row['cpu_rate']:,.1f} | {decisions:,.1f}"
    return f"| {name} | {rates} | {undrawn} | {ratio} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size, a second, twice")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--suites", nargs="+", default=["metaworld"])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gpu", type=int, default=0, metavar="ROWS")
    arguments = parser.parse_args()
    sizes, seconds, repeats = arguments.sizes, arguments.seconds, arguments.repeats
    if arguments.quick:
        sizes, seconds, repeats = (64,), 1.0, 2
    result = run(arguments.suites, sizes, seconds, repeats, arguments.gpu)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
