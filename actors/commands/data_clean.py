"""`vlarl data clean`: a new dataset without what is unfit for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation, hint, whole_number
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """Inspect every episode, ask the filters, write what they keep and the report."""
    from vlarl.data.cleaned_dataset import REPORT_PATH, write_cleaned
    from vlarl.data.cleaning import FILTERS, SHORT, clean
    from vlarl.data.defects import CACHE_BYTES, inspect_dataset
    from vlarl.data.lerobot_reader import LeRobotReader
    from vlarl.progress import Progress

    settings = invocation.settings
    out = settings.get("out", "")
    if not out:
        raise UserError("data clean needs out=DIR, the dataset folder to write.")
    if Path(out).exists():
        raise UserError(f"{out} exists already: choose another folder or remove it")
    known = (*FILTERS, SHORT)
    text = settings.get("filters", ",".join(known))
    names = [] if text == "none" else text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"filters = {text!r}: {name}: no such filter. {hint(name, known)}")
    min_frames = whole_number(settings, "min_frames", 2)
    reader = LeRobotReader(invocation.arguments[0], CACHE_BYTES)
    with Progress("inspecting", len(reader), "episodes") as progress:
        found = inspect_dataset(reader, progress.reach)
    report = clean(found, reader.fps, reader.action_names, names, min_frames)
    with Progress("writing", len(report.kept), "episodes") as progress:
        write_cleaned(reader, report, out, settings.get("video", ""), progress.reach)
    result = report.to_dict()
    print(f"{'filter':<12}{'episodes':>10}{'frames':>10}")
    for name, row in result["filters"].items():
        print(f"{name:<12}{row['episodes']:>10}{row['frames']:>10}")
    print(
        f"{out}: {result['kept_episodes']} episodes of {result['kept_frames']} frames, from "
        f"{result['episodes']} of {result['frames']}; why each went is in {REPORT_PATH}"
    )
    return {"out": out, "report": str(Path(out) / REPORT_PATH), **result}


COMMAND = Command(
    usage="data clean DATASET out=DIR [filters=... min_frames=... video=...]",
    arguments=("DATASET",),
    settings={
        "out": "dataset folder to write; must not exist",
        "filters": "frames,static,length,language,motion,short (all), or none",
        "min_frames": "of a kept span, for the filter `short` (2)",
        "video": "h264 or libsvtav1 instead of PNG images",
    },
    details=(
        "Writes a LeRobot v3.0 dataset without episodes that have corrupt or missing frames, that\n"
        "never move, whose length is anomalous, whose instruction is missing or does not fit the\n"
        "motion, and without long pauses; meta/cleaning.json says what went and why. With\n"
        "filters=none it converts v2.1, or PNG to video."
    ),
    example="vlarl data clean datasets/raw out=datasets/clean filters=frames,static",
    run=run,
)
