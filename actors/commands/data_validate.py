"""`vlarl data validate`: every defect of a dataset, with its place."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from actors.commands.command import Command, Invocation


def run(invocation: Invocation) -> dict[str, Any]:
    """Look at every frame; the exit code is 1 if anything is wrong."""
    from vlarl.data.defects import validate
    from vlarl.progress import Progress

    path = invocation.arguments[0]
    with Progress("validating", _episodes(path), "episodes") as progress:
        defects = validate(path, progress.reach)
    for defect in defects:
        at = "dataset" if defect.episode is None else f"episode {defect.episode}"
        at += "" if defect.frame is None else f", frame {defect.frame}"
        print(f"{defect.kind:<16} {at:<24} {defect.message}")
    counts = dict(Counter(defect.kind for defect in defects))
    words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"{path}: {len(defects)} defects: {words}" if defects else f"{path}: no defects")
    return {"path": path, "counts": counts, "defects": [asdict(defect) for defect in defects]}


def _episodes(path: str) -> int:
    from vlarl.data.lerobot_meta import read_meta
    from vlarl.errors import UserError

    try:
        return len(read_meta(path).episodes)
    except UserError:
        # What is wrong with `meta` is a defect, and reported as one.
        return 0


COMMAND = Command(
    usage="data validate DATASET",
    arguments=("DATASET",),
    settings={},
    details=(
        "Finds missing and corrupt frames, unreadable files, actions that never move, anomalous\n"
        "lengths, timestamps off the grid, language that names no task, and statistics that\n"
        "disagree with the data. Exit code 1 if there are any."
    ),
    example="vlarl data validate datasets/tabletop",
    run=run,
)
