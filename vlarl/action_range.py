"""Actions that the embodiment cannot mean: another unit, or channels in another order.

A channel's `low` and `high` say what the robot accepts, and are often working bounds; commands a
little beyond them are common and harmless, for the codec clips to the data's percentiles (paper
eq. 5). An action is far outside if it lies beyond a bound by more than the bounds are apart: no
robot was ever told that. Millimeters for meters, degrees for radians and a joint in a gripper's
place all end up there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.types import Channel

FAR = 1.0
"""How many widths of its bounds an action may lie outside them."""
NOTABLE = 0.01
"""Share of a channel's actions beyond its bounds that is worth a warning."""

Actions = NDArray[np.floating[Any]]


def refuse_far(actions: Actions, channels: Sequence[Channel]) -> None:
    """Refuse actions [..., c] that are far outside their channels' bounds.

    Raises:
        ValueError: naming channel, value and bounds of the first.
    """
    for place in _far(actions, channels):
        raise ValueError(f"action {place[:-1].tolist()}: {_far_words(actions, channels, place)}")


def check_recorded(
    actions: Actions, lengths: Sequence[int], channels: Sequence[Channel]
) -> list[str]:
    """Look through the actions of a dataset before a model is trained on them.

    Args:
        actions: [M, c] of all episodes, one after the other.
        lengths: of the episodes.
        channels: [c]

    Returns:
        A sentence for each channel in which more than `NOTABLE` of the actions are out of bounds.

    Raises:
        ValueError: for an action that is not finite, or far outside; naming episode and frame.
    """
    ends = np.cumsum(lengths)

    def where(row: int) -> str:
        episode = int(np.searchsorted(ends, row, side="right"))
        return f"episode {episode}, frame {row - (ends[episode] - lengths[episode])}"

    for row, number in np.argwhere(~np.isfinite(actions))[:1]:
        name = channels[number].name
        raise ValueError(f"{where(row)}: action channel {name!r} is {actions[row, number]}")
    for row, number in _far(actions, channels):
        raise ValueError(f"{where(row)}: {_far_words(actions, channels, (row, number))}")
    sentences = []
    for number, channel in enumerate(channels):
        outside = (actions[:, number] < channel.low) | (actions[:, number] > channel.high)
        if outside.mean() > NOTABLE:
            row = int(outside.argmax())
            sentences.append(
                f"{outside.mean():.1%} of the actions of channel {channel.name!r} are outside its "
                f"bounds {channel.low:g} to {channel.high:g} {channel.unit}, the first "
                f"({actions[row, number]:g}) in {where(row)}. Are unit, direction and order those "
                f"of the embodiment?"
            )
    return sentences


def _far(actions: Actions, channels: Sequence[Channel]) -> NDArray[np.int64]:
    """Places of actions [..., c] far outside, [at most 1, dimensions]."""
    low = np.array([channel.low for channel in channels])
    high = np.array([channel.high for channel in channels])
    room = FAR * (high - low)
    return np.argwhere((actions < low - room) | (actions > high + room))[:1]


def _far_words(actions: Actions, channels: Sequence[Channel], place: Sequence[int]) -> str:
    channel = channels[place[-1]]
    return (
        f"action channel {channel.name!r} is {actions[tuple(place)]:g}, far outside its bounds "
        f"{channel.low:g} to {channel.high:g} {channel.unit}. Bring the actions into that unit and "
        "the embodiment's order of channels, or give the embodiment the bounds of your robot"
    )
