"""The measures of VLN-CE's tables, of the episode so far.

As in its `measures.py`: navigation error and success by the way on the navigation mesh, path length
by straight lines, and nDTW (Ilharco et al. 2019, arXiv:1907.05446) over the places that the agent
came to, the start not counted. Warping is exact here; VLN-CE's default takes `fastdtw`'s estimate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envservers.vlnce.tasks import SUCCESS_DISTANCE


class PathMetrics:
    """One episode's.

    Args:
        start: [3] meters.
        shortest: meters of way from there to the goal.
        reference: [m, 3] where the demonstration went.
    """

    def __init__(
        self, start: NDArray[np.float64], shortest: float, reference: NDArray[np.float64]
    ) -> None:
        self.distance = self.shortest = shortest
        self.path = 0.0
        self.been_near = shortest < SUCCESS_DISTANCE
        self.success = False
        self._reference = reference
        self._last = start
        self._counted: NDArray[np.float64] | None = None
        self._warping: NDArray[np.float64] | None = None
        """[m] the cost of warping the path so far to each beginning of the reference."""

    def arrive(self, place: NDArray[np.float64], distance: float) -> None:
        """The agent is at `place` [3] now, `distance` meters of way from the goal."""
        self.path += float(np.linalg.norm(place - self._last))
        self._last, self.distance = place, distance
        self.been_near |= distance < SUCCESS_DISTANCE
        if self._counted is None or (place != self._counted).any():
            self._counted = place
            self._warp(np.linalg.norm(self._reference - place, axis=1))

    def stop(self) -> bool:
        """The agent says that it is there; whether it is."""
        self.success = self.distance < SUCCESS_DISTANCE
        return self.success

    def values(self) -> dict[str, float]:
        """Name -> value: meters and shares."""
        longer = max(self.path, self.shortest)
        return {
            "distance_to_goal": self.distance,
            "oracle_success": float(self.been_near),
            "path_length": self.path,
            "shortest_path": self.shortest,
            "spl": self.shortest / longer if self.success and longer > 0 else float(self.success),
            "ndtw": self._ndtw(),
        }

    def _ndtw(self) -> float:
        if self._warping is None:
            return 0.0
        return math.exp(-float(self._warping[-1]) / (len(self._reference) * SUCCESS_DISTANCE))

    def _warp(self, costs: NDArray[np.float64]) -> None:
        """Add one place, of these distances from each of the reference's."""
        before = self._warping
        if before is None:
            self._warping = np.cumsum(costs)
            return
        reached = np.minimum(before, np.concatenate([[np.inf], before[:-1]]))
        after = np.empty_like(costs)
        best = math.inf
        for index, (cost, cheapest) in enumerate(zip(costs, reached, strict=True)):
            best = cost + min(cheapest, best)
            after[index] = best
        self._warping = after

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Arrays that `restore` takes back; an empty one stands for none."""
        none = np.zeros(0)
        return {
            "numbers": np.array(
                [self.distance, self.shortest, self.path, self.been_near, self.success], np.float64
            ),
            "reference": self._reference,
            "last": self._last,
            "counted": none if self._counted is None else self._counted,
            "warping": none if self._warping is None else self._warping,
        }

    @classmethod
    def restore(cls, state: dict[str, NDArray[np.float64]]) -> PathMetrics:
        """The metrics that `state` came from."""
        distance, shortest, path, near, success = state["numbers"].tolist()
        found = cls(state["last"], shortest, state["reference"])
        found.distance, found.path = distance, path
        found.been_near, found.success = bool(near), bool(success)
        found._counted = state["counted"] if len(state["counted"]) else None
        found._warping = state["warping"] if len(state["warping"]) else None
        return found
