"""Which environments share a call of the policy: bounded by size and by a deadline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from actors.lane import Lane, Phase


@dataclass(frozen=True)
class Batching:
    """How ready lanes are joined."""

    environments: int = 0
    """Most of them in one call; 0: one lane at a time. A lane is never divided."""
    deadline_seconds: float = 0.0
    """How long a ready lane waits for others."""


def choose(lanes: Sequence[Lane], batching: Batching, now: float) -> tuple[list[Lane], float]:
    """Who is decided for next: those that are ready for longest, while they fit.

    Lanes with other policies are decided for apart.

    Args:
        lanes: that take part.
        batching: the bounds.
        now: as `Lane.ready_since` goes.

    Returns:
        Lanes for one call, and how many seconds to wait for answers afterwards: none if there are
        any; else until the deadline of the one that has waited longest, or for ever.
    """
    ready = [lane for lane in lanes if lane.phase is Phase.READY]
    ready.sort(key=lambda lane: lane.ready_since)
    chosen = ready[:1]
    if not chosen or not batching.environments:
        return chosen, 0.0 if chosen else math.inf
    policy = chosen[0].policy
    room = batching.environments - len(chosen[0].streams)
    for lane in ready[1:]:
        if lane.policy is policy and len(lane.streams) <= room:
            chosen.append(lane)
            room -= len(lane.streams)
    left = ready[0].ready_since + batching.deadline_seconds - now
    asked = [lane for lane in lanes if lane.phase in (Phase.STEPPING, Phase.RESETTING)]
    awaited = [lane for lane in asked if lane.policy is policy and len(lane.streams) <= room]
    if left > 0 and awaited:
        return [], left
    return chosen, 0.0
