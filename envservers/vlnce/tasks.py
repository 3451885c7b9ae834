"""The two benchmarks as data: which files, which camera, which body.

Numbers are those of VLN-CE's `vlnce_task.yaml` and `rxr_vlnce_english_task.yaml`, and where they
say nothing, of the Habitat defaults that they extend.
"""

from __future__ import annotations

from dataclasses import dataclass

from envservers.options import suggestion
from vlarl.errors import UserError

SUCCESS_DISTANCE = 3.0
"""Meters of way to the goal, within which a stop is a success."""
MAX_ACTIONS = 500
"""Of VLN-CE's own, after which its episode is over."""
FORWARD_STEP = 0.25
"""Meters of one of them; a longer way is gone in such pieces."""
MAX_MOVE, MAX_TURN = 0.5, 0.7854
"""Meters and radians of one waypoint that the agent does; more is cut to it."""
STILL_STEPS = 2
"""Consecutive waypoints without a move that are a stop, and end the episode."""
STILL_MOVE, STILL_TURN = 0.1, 0.25
"""Meters and radians below which a waypoint is no move; as in the `navigation` suite."""


@dataclass(frozen=True)
class Benchmark:
    """One dataset of instructions, and the agent that it is evaluated with."""

    name: str
    folder: str
    """Of the dataset, below `datasets`; of several that match, the last counts."""
    episodes: str
    """File in it, with the split in braces."""
    truth: str
    """File of the demonstrated ways, for nDTW."""
    languages: tuple[str, ...]
    """That are kept; empty: all."""
    aspect: tuple[int, int]
    """Height and width of the camera's picture, as a ratio."""
    field_of_view: float
    """Horizontal, in degrees."""
    camera_height: float
    """Meters above the floor."""
    agent_height: float
    agent_radius: float
    sliding: bool
    """Whether the agent slides along a wall that it meets."""
    turn: float
    """Degrees of one of VLN-CE's own turns."""


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="r2r",
            folder="R2R_VLNCE_v1-*_preprocessed",
            episodes="{split}/{split}.json.gz",
            truth="{split}/{split}_gt.json.gz",
            languages=(),
            aspect=(1, 1),
            field_of_view=90.0,
            camera_height=1.25,
            agent_height=1.5,
            agent_radius=0.1,
            sliding=True,
            turn=15.0,
        ),
        Benchmark(
            name="rxr",
            folder="RxR_VLNCE_v0",
            episodes="{split}/{split}_guide.json.gz",
            truth="{split}/{split}_guide_gt.json.gz",
            languages=("en-US", "en-IN"),
            aspect=(3, 4),
            field_of_view=79.0,
            camera_height=0.88,
            agent_height=0.88,
            agent_radius=0.18,
            sliding=False,
            turn=30.0,
        ),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        UserError: for another.
    """
    if name not in BENCHMARKS:
        raise UserError(
            f"benchmark = {name!r}: must be one of {', '.join(BENCHMARKS)}."
            f"{suggestion(name, BENCHMARKS)}"
        )
    return BENCHMARKS[name]
