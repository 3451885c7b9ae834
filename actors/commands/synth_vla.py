"""`vlarl synth vla`: motion programs on random tables."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation, hint, needed, whole_number
from vlarl.errors import UserError

SETTINGS = {
    "out": "folder to write; must not exist",
    "episodes": "successful trajectories (100)",
    "horizon": "short (one stage), long (two to four) or both (both)",
    "seed": "of tables, tasks and motions (0)",
    "image_size": "of both cameras, in pixels (64)",
}
_HORIZONS = ("short", "long", "both")


def run(invocation: Invocation) -> dict[str, Any]:
    """Make them, with a progress bar."""
    from actors.synthesis.vision_language_action import synthesize_motions
    from vlarl.progress import Progress

    settings = invocation.settings
    out = needed(invocation, "synth vla", "out", "DIR")
    horizon = settings.get("horizon", "both")
    if horizon not in _HORIZONS:
        raise UserError(f"horizon = {horizon!r}: no such horizon. {hint(horizon, _HORIZONS)}")
    episodes = whole_number(settings, "episodes", 100)
    seed = whole_number(settings, "seed", 0, least=0)
    image_size = whole_number(settings, "image_size", 64)
    with Progress("performing", episodes, "episodes") as progress:
        result = synthesize_motions(out, episodes, horizon, seed, image_size, progress.reach)
    print(
        f"{result['episodes']} episodes of {result['frames']} frames, {result['segments']} segments"
        f" in {out}; {result['tables']} tables were tried"
    )
    for title in ("kinds", "failures"):
        print(f"{title}:")
        for name, number in result[title].items():
            print(f"  {name:<40} {number}")
    return {"out": out, **result}


COMMAND = Command(
    usage="synth vla out=DIR [episodes=100 horizon=short|long|both seed=0 image_size=64]",
    settings=SETTINGS,
    details=(
        "Random tables, tasks made up for them, scripted motions under visual, geometric and\n"
        "controller variation; only successes are kept. Writes LeRobot v3 datasets DIR/full and\n"
        "DIR/segments, DIR/captions.jsonl and DIR/report.json."
    ),
    example="vlarl synth vla out=datasets/motions episodes=500 horizon=both",
    run=run,
)
