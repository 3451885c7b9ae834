"""`vlarl data stats`: exact statistics of every channel of a dataset."""

from __future__ import annotations

from statistics import median
from typing import Any

from actors.commands.command import Command, Invocation
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """One pass over actions and state; images are not read."""
    from vlarl.data.channel_stats import channel_stats
    from vlarl.data.lerobot_reader import LeRobotReader

    levels = _levels(invocation.settings.get("quantiles", "0.01,0.99"))
    reader = LeRobotReader(invocation.arguments[0])
    features = channel_stats(reader, levels)
    for key, channels in features.items():
        columns = list(next(iter(channels.values())))
        made = "" if key != "action" or reader.has_actions else " (differences of the state)"
        print(f"{key + made:<24}" + "".join(f"{name:>12}" for name in columns))
        for name, values in channels.items():
            print(f"  {name:<22}" + "".join(f"{values[column]:>12.5g}" for column in columns))
    count = reader.meta.total_frames
    print(f"{len(reader)} episodes, {count} frames, {count / reader.fps / 3600:.2f} hours")
    lengths = [row.length for row in reader.episodes]
    spread = {"minimum": min(lengths), "median": median(lengths), "maximum": max(lengths)}
    print("frames of an episode: " + ", ".join(f"{key} {n:g}" for key, n in spread.items()))
    return {
        "path": str(reader.path),
        "episodes": len(reader),
        "frames": count,
        "episode_frames": spread,
        "has_actions": reader.has_actions,
        "features": features,
    }


def _levels(text: str) -> list[float]:
    try:
        levels = [float(word) for word in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(0 <= level <= 1 for level in levels):
        raise UserError(f"quantiles = {text!r}: must be numbers from 0 to 1, such as 0.01,0.99.")
    return levels


COMMAND = Command(
    usage="data stats DATASET [quantiles=0.01,0.99]",
    arguments=("DATASET",),
    settings={"quantiles": "levels, such as 0.01,0.5,0.99 (0.01,0.99)"},
    details=(
        "Exact quantiles, minimum, maximum, mean and standard deviation of every channel of\n"
        "actions and state, in one pass. Memory grows with the share of the values that lie\n"
        "beyond the quantiles: 2% for the default, half of them for the median."
    ),
    example="vlarl data stats datasets/tabletop quantiles=0.01,0.5,0.99",
    run=run,
)
