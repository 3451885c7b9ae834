"""A segment: `T` decisions of every slot of one lane, whole from its first to its window end.

Rollout hands them over, the learner gets them joined: advantages need a stream's segment whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDict

from actors.lane import FinishedEpisode, Lane
from vlarl import mixed_rows


@dataclass(frozen=True)
class Segment:
    """What one lane gave, in order of stream, then time."""

    rows: TensorDict
    """[n * T] as in `vlarl.batch`."""
    finished: tuple[FinishedEpisode, ...]
    """Episodes that ended within it."""
    control_steps: int
    """Executed in it."""
    server: int
    """Number of the one whose environments they are."""


def segment_of(server: int, lane: Lane) -> Segment:
    """The window, which is full, of a server's lane."""
    rows = torch.stack(lane.window, dim=1).flatten(0, 1)
    return Segment(rows, tuple(lane.finished), lane.control_steps, server)


def joined(batches: Sequence[TensorDict]) -> TensorDict:
    """One batch, whose stream ids are distinct across the given ones."""
    first = 0
    renumbered = []
    for batch in batches:
        streams = batch["stream"] + first
        renumbered.append(batch.copy().set("stream", streams))
        first = int(streams.max()) + 1
    return mixed_rows.joined(renumbered)
