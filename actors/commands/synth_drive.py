"""`vlarl synth drive`: driving-like trajectories of waypoints."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation, needed, whole_number

SETTINGS = {
    "out": "dataset folder to write; must not exist",
    "episodes": "successful drives (100)",
    "seed": "of roads and drives (0)",
    "image_size": "pixels (64)",
}


def run(invocation: Invocation) -> dict[str, Any]:
    """Drive, with a progress bar."""
    from actors.synthesis.driving import synthesize_drives
    from vlarl.progress import Progress

    settings = invocation.settings
    out = needed(invocation, "synth drive", "out", "DIR")
    episodes = whole_number(settings, "episodes", 100)
    seed = whole_number(settings, "seed", 0, least=0)
    image_size = whole_number(settings, "image_size", 64)
    with Progress("driving", episodes, "episodes") as progress:
        result = synthesize_drives(out, episodes, seed, image_size, progress.reach)
    print(f"{result['episodes']} drives, {result['frames']} waypoints in {out}")
    for title in ("kinds", "failures"):
        print(f"{title}: {result[title]}")
    return {"out": out, **result}


COMMAND = Command(
    usage="synth drive out=DIR [episodes=100 seed=0 image_size=64]",
    settings=SETTINGS,
    details=(
        "Roads, junctions and lane changes, a kinematic bicycle that follows them, and what its\n"
        "camera sees: a LeRobot v3 dataset of waypoints (dx, dy, dtheta), embodiment driving_car."
    ),
    example="vlarl synth drive out=datasets/drives episodes=500",
    run=run,
)
