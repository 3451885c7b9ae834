"""Which seeds are for evaluation, and which published start such a seed means."""

from __future__ import annotations

HELD_OUT = 1_000_000
"""Seeds from here on are never trained on: published starts in their order, where there are any."""


def published_start(seed: int, tasks: int, starts: int) -> int | None:
    """Number of the published start of its task that a seed means; None: training's own.

    Args:
        seed: of the episode.
        tasks: how many the suite has. An evaluation goes over them in turn, one seed after the
            other, so that each task gets its starts in order, all of them in as many rounds.
        starts: how many the task has.
    """
    return (seed - HELD_OUT) // tasks % starts if seed >= HELD_OUT else None
