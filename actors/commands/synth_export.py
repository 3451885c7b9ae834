"""`vlarl synth export`: synthesized trajectories as LeRobot v3.0 datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation, needed


def run(invocation: Invocation) -> dict[str, Any]:
    """Write the datasets."""
    from vlarl.progress import Progress
    from vlarl.synthesis.dataset import SynthesisDataset
    from vlarl.synthesis.export import export

    out = Path(needed(invocation, "synth export", "out", "DIR"))
    dataset = SynthesisDataset(invocation.arguments[0])
    with Progress("exporting", len(dataset), "trajectories") as progress:
        written = export(dataset, out, progress.advance)
    for name, episodes in written.items():
        print(f"{name}: {episodes} episodes")
    return {"datasets": written, "out": str(out)}


COMMAND = Command(
    usage="synth export DIR out=DIR",
    arguments=("DIR",),
    settings={"out": "folder to write, one dataset for each robot"},
    details="Writes DIR as LeRobot v3.0 datasets, one for each robot.",
    example="vlarl synth export datasets/t2a out=datasets/t2a_lerobot",
    run=run,
)
