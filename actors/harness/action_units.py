"""Simulator units of a robot's channels, and the -1 ... 1 that some harnesses take for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlarl.errors import UserError
from vlarl.types import Channel

UNITS = ("simulator", "normalized")


class ActionUnits:
    """In which units actions cross a connection.

    Args:
        kind: `simulator`, those of the channels, or `normalized`: -1 is a channel's lower bound, 1
            its upper one, linear in between and beyond.
        channels: of the robot, all bounded on both sides.

    Raises:
        UserError: for `normalized` and a channel without bounds.
    """

    def __init__(self, kind: str, channels: Sequence[Channel]) -> None:
        assert kind in UNITS, kind
        self._normalized = kind == "normalized"
        low = np.array([channel.low for channel in channels])
        span = np.array([channel.high for channel in channels]) - low
        if self._normalized and not (np.isfinite(span).all() and (span > 0).all()):
            name = next(c.name for c in channels if not 0 < c.high - c.low < np.inf)
            raise UserError(f"actions=normalized needs bounds, and channel {name} has none.")
        self._low, self._span = low, span

    def sent(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """What crosses the connection for actions [..., c] in simulator units."""
        if not self._normalized:
            return actions
        return (2 * (actions - self._low) / self._span - 1).astype(np.float32)

    def received(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inverse of `sent`."""
        if not self._normalized:
            return actions
        return (self._low + (actions + 1) / 2 * self._span).astype(np.float32)
