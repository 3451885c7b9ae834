"""Where a gripper that points down can hold an object: from the boxes that it collides with.

Three kinds. Around: the whole object between the fingers, where narrow enough. Rim: one finger
inside and one outside, for bowls, mugs and plates. Part: what sticks out, the handle of a pot, a
piece of a pan's wall. Poses are in the world frame, meters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OPENING = 0.078
"""Between the fingers, at most."""
TIP_BELOW = 0.011
"""Of the hand's site: where the fingers end."""
PALM_ABOVE = 0.037
"""Of the hand's site: where the palm begins."""
_FINGER = 0.011
"""Half the room that a finger takes, both ways."""
_PALM = 0.06
"""About as far from the hand's middle, the palm is over things."""
_THICKEST = 0.05
"""What is deeper than this, seen from the middle, is no rim but a handle from its end."""
_BLOCKED = 2.0
"""Cost of a finger or the palm that would meet something."""
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


class Boxes(NamedTuple):
    """What something collides with, as boxes."""

    corners: NDArray[np.float64]
    """[n, 8, 3]"""

    @property
    def bottom(self) -> float:
        """Lowest point."""
        return float(self.corners[..., 2].min())

    @property
    def top(self) -> float:
        """Highest point."""
        return float(self.corners[..., 2].max())

    def between(self, low: float, high: float) -> NDArray[np.float64]:
        """[m, 8, 2] seen from above, of the boxes that reach into these heights."""
        heights = self.corners[..., 2]
        inside = (heights.max(axis=1) > low) & (heights.min(axis=1) < high)
        return self.corners[inside][..., :2]


class Grasp(NamedTuple):
    """A place for the hand's site."""

    position: tuple[float, float, float]
    yaw: float
    """About the vertical; at 0 the fingers close along y."""
    cost: float


def boxes_of(
    centers: NDArray[np.float64], axes: NDArray[np.float64], half: NDArray[np.float64]
) -> Boxes:
    """Boxes from centers [n, 3], rotations [n, 3, 3] and half sizes [n, 3]."""
    local = _CORNERS[None] * half[:, None]
    return Boxes(centers[:, None] + np.einsum("nij,nkj->nki", axes, local))


def closing(yaw: float) -> NDArray[np.float64]:
    """[2] the direction in which the fingers close."""
    return np.array([-np.sin(yaw), np.cos(yaw)])


def nearest_yaw(yaw: float) -> float:
    """The same grasp, turned as little as possible: fingers may change places."""
    return float((yaw + np.pi / 2) % np.pi - np.pi / 2)


def candidates(item: Boxes, obstacles: Boxes, center: NDArray[np.float64]) -> list[Grasp]:
    """Grasps of an object, cheapest first.

    Args:
        item: the object.
        obstacles: what else stands there.
        center: [2] of the object, seen from above.
    """
    found = _around(item) + _rims(item, center) + _parts(item, center)
    if all(grasp.cost >= _BLOCKED for grasp in found):
        found += _rims(item, center, flat=True)
    judged = [grasp._replace(cost=grasp.cost + _blocked(grasp, obstacles)) for grasp in found]
    return sorted(judged, key=lambda grasp: grasp.cost)


def _around(item: Boxes) -> list[Grasp]:
    low = item.bottom + TIP_BELOW + 0.004
    height = max(low, min(item.top - 0.018, (item.top + item.bottom) / 2))
    height = max(height, item.top - PALM_ABOVE)
    seen = item.between(height - 0.012, height + 0.012)
    found: list[Grasp] = []
    if not len(seen):
        return found
    points = seen.reshape(-1, 2)
    for yaw in np.linspace(-np.pi / 2, np.pi / 2, 24, endpoint=False):
        across, along = closing(yaw), closing(yaw - np.pi / 2)
        spread, length = points @ across, points @ along
        width = float(np.ptp(spread))
        if width > OPENING - 0.008:
            continue
        middle = across * (spread.min() + spread.max()) / 2 + along * np.median(length)
        cost = 3 * width + 0.15 * abs(yaw)
        found.append(Grasp((float(middle[0]), float(middle[1]), float(height)), float(yaw), cost))
    return found


def _parts(item: Boxes, center: NDArray[np.float64]) -> list[Grasp]:
    """Grasps of what sticks out: handles, knobs. Each box alone between the fingers."""
    found: list[Grasp] = []
    for number, box in enumerate(item.corners):
        others = Boxes(np.delete(item.corners, number, axis=0))
        points, middle = box[:, :2], box.mean(axis=0)
        # The box's own horizontal directions.
        yaws = {round(float(nearest_yaw(yaw)), 3) for yaw in _sides(points)}
        for yaw in yaws:
            width = float(np.ptp(points @ closing(yaw)))
            if width > OPENING / 2:
                continue
            under_palm = np.linalg.norm(others.corners[..., :2] - middle[:2], axis=-1) < _PALM
            tops = others.corners[..., 2].max(axis=1)[under_palm.any(axis=1)]
            above = float(tops.max(initial=-np.inf)) - PALM_ABOVE + 0.003
            height = max(float(middle[2]), above, item.bottom + TIP_BELOW + 0.004)
            if height - TIP_BELOW > box[:, 2].max() - 0.006:
                continue
            far = float(np.linalg.norm(middle[:2] - center))
            grasp = Grasp((float(middle[0]), float(middle[1]), height), yaw, 0.0)
            cost = 0.5 + far + 0.15 * abs(yaw) + _blocked(grasp, others)
            found.append(grasp._replace(cost=cost))
    return found


def _sides(points: NDArray[np.float64]) -> list[float]:
    """Yaws at which fingers close along a box's sides, seen from above."""
    edges = points[[4, 2]] - points[0]
    return [float(np.arctan2(-edge[0], edge[1])) for edge in edges if np.linalg.norm(edge) > 1e-4]


def _rims(item: Boxes, center: NDArray[np.float64], flat: bool = False) -> list[Grasp]:
    """Grasps at the rim of what is hollow, or of what is `flat`, as a plate is."""
    height = max(item.top - 0.012, item.bottom + TIP_BELOW + 0.002)
    high = item.corners[item.corners[..., 2].max(axis=1) > height - 0.004]
    offsets = high[..., :2] - center
    solid = item.between(item.top - 0.012, item.top + 0.01) - center
    found: list[Grasp] = []
    for angle in np.linspace(-np.pi, np.pi, 24, endpoint=False):
        outward = np.array([np.cos(angle), np.sin(angle)])
        sideways = np.array([-outward[1], outward[0]])
        out, side = offsets @ outward, offsets @ sideways
        # Boxes that this ray from the center passes.
        passed = (side.min(axis=1) < 0.004) & (side.max(axis=1) > -0.004) & (out.max(axis=1) > 0.02)
        if not passed.any() or (not flat and _reaches(solid, outward, sideways)):
            continue
        outer = out[passed][int(out[passed].max(axis=1).argmax())]
        if not flat and np.ptp(outer) > _THICKEST:
            continue
        far = float(outer.max())
        near = max(float(out[passed].min()), far - 0.012)
        spot = center + outward * (near + far) / 2
        yaw = nearest_yaw(angle - np.pi / 2)
        grasp = Grasp((float(spot[0]), float(spot[1]), float(height)), yaw, 0.0)
        # A handle beside the place, or where it is the handle's end that sticks out.
        beside = _blocked(grasp, Boxes(high[~passed]), (far - near) / 2 + 0.012)
        found.append(grasp._replace(cost=0.3 + 0.15 * abs(yaw) + 0.1 * beside))
    return found


def _reaches(
    boxes: NDArray[np.float64], outward: NDArray[np.float64], sideways: NDArray[np.float64]
) -> bool:
    """Whether there is something where the inner finger would be: then there is no rim."""
    out, side = boxes @ outward, boxes @ sideways
    near = (side.min(axis=1) < 0.004) & (side.max(axis=1) > -0.004)
    return bool((near & (out.min(axis=1) < 0.01) & (out.max(axis=1) > 0.0)).any())


def _blocked(grasp: Grasp, obstacles: Boxes, reach: float = OPENING / 2 + 0.01) -> float:
    """A penalty for fingers and palm that would meet something else on their way down.

    Args:
        grasp: of it.
        obstacles: what else there is.
        reach: from the middle to each finger.
    """
    position, across = np.array(grasp.position), closing(grasp.yaw)
    penalty = 0.0
    for low, apart, half in (
        (position[2] - TIP_BELOW, reach, (_FINGER, _FINGER)),
        (position[2] + PALM_ABOVE, 0.0, (0.105, 0.035)),
    ):
        seen = obstacles.between(low + 0.002, np.inf)
        if not len(seen):
            continue
        for side in (-1, 1):
            offsets = seen - (position[:2] + side * apart * across)
            out, along = offsets @ across, offsets @ np.array([across[1], -across[0]])
            hit = (
                (out.min(axis=1) < half[0])
                & (out.max(axis=1) > -half[0])
                & (along.min(axis=1) < half[1])
                & (along.max(axis=1) > -half[1])
            )
            penalty += _BLOCKED * bool(hit.any())
    return penalty
