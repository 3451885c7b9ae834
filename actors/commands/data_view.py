"""`vlarl data view`: a picture sheet of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation, hint, whole_number
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """Draw episodes spread evenly over the dataset."""
    import numpy as np

    from vlarl.data.lerobot_reader import LeRobotReader
    from vlarl.data.picture_sheet import draw_sheet

    out = invocation.settings.get("out", "")
    if not out.endswith(".png"):
        raise UserError(f"out = {out!r}: data view needs out=FILE.png, the sheet to write.")
    reader = LeRobotReader(invocation.arguments[0])
    cameras = [camera.name for camera in reader.cameras]
    if not cameras:
        raise UserError(f"{reader.path} has no camera: there is nothing to view.")
    camera = invocation.settings.get("camera", cameras[0])
    if camera not in cameras:
        raise UserError(f"camera = {camera!r}: no such camera. {hint(camera, tuple(cameras))}")
    count = min(len(reader), whole_number(invocation.settings, "episodes", 8))
    frames = whole_number(invocation.settings, "frames", 5)
    shown = np.unique(np.linspace(0, len(reader) - 1, count).round().astype(int)).tolist()
    sheet = draw_sheet(reader, shown, camera, frames)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_bytes(sheet)
    print(f"{out}: {len(shown)} of {len(reader)} episodes, {camera}")
    return {"out": out, "episodes": shown, "camera": camera}


COMMAND = Command(
    usage="data view DATASET out=FILE.png [episodes=... frames=... camera=...]",
    arguments=("DATASET",),
    settings={
        "out": "PNG file to write",
        "episodes": "how many, spread evenly over the dataset (8)",
        "frames": "images of each (5)",
        "camera": "whose images (the first)",
    },
    details="Draws a few frames of some episodes, their instruction and the curves of actions.",
    example="vlarl data view datasets/tabletop out=sheet.png episodes=12",
    run=run,
)
