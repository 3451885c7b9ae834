"""Shortest paths around obstacles, on a grid: distances for the metrics, ways for the expert.

A grid's cell is free if the agent's disc fits at its center. Distances are along the eight
neighbors, so longer than the truth: by at most 8% where a way runs aslant, and by a cell or two at
corners.
"""

from __future__ import annotations

import heapq
import math

import numpy as np

from envservers.navigation.geometry import Floats, Obstacles, is_clear, is_free
from envservers.navigation.scene import AGENT_RADIUS, ARENA

CELL = 0.2
"""Meters."""
SIDE = round(2 * ARENA / CELL)
CLEARANCE = AGENT_RADIUS + 0.03
REACH = 0.8
"""Meters from a goal within which cells in sight of it count as being there, but for the rest."""
_CENTERS = (np.arange(SIDE) + 0.5) * CELL - ARENA
GRID = np.stack(np.meshgrid(_CENTERS, _CENTERS, indexing="ij"), axis=-1)
"""[SIDE, SIDE, 2] centers of the cells."""
_NEIGHBORS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


def distance_field(goal: Floats, obstacles: Obstacles, walls: Obstacles) -> Floats:
    """[SIDE, SIDE] meters to walk from each cell to the point `goal` [2]; infinite where one can't.

    Args:
        goal: usually the center of an obstacle, which nobody can stand on: it is reached from cells
            around it that no wall hides.
        obstacles: all that is in the way.
        walls: what hides.
    """
    free = is_free(GRID, obstacles, CLEARANCE, ARENA)
    direct = np.linalg.norm(GRID - goal, axis=-1)
    there = free & (direct <= REACH) & is_clear(GRID, goal, walls, 0.0)
    field = np.where(there, direct, np.inf)
    heap = [(float(field[cell]), cell) for cell in map(tuple, np.argwhere(there).tolist())]
    heapq.heapify(heap)
    passable = free.tolist()
    while heap:
        distance, (i, j) = heapq.heappop(heap)
        if distance > field[i, j]:
            continue
        for a, b in _NEIGHBORS:
            x, y = i + a, j + b
            if not (0 <= x < SIDE and 0 <= y < SIDE and passable[x][y]):
                continue
            if a and b and not (passable[i][y] and passable[x][j]):
                continue
            further = distance + CELL * math.hypot(a, b)
            if further < field[x, y]:
                field[x, y] = further
                heapq.heappush(heap, (further, (x, y)))
    return field


def distance_from(point: Floats, field: Floats) -> float:
    """Meters from `point` [2], by way of the best cell near it; infinite if there is none."""
    i, j = cell_of(point)
    rows = slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2)
    there = field[rows] + np.linalg.norm(GRID[rows] - point, axis=-1)
    return float(there.min())


def way_from(point: Floats, field: Floats) -> Floats:
    """[P, 2] cells from the best one near `point` to one that is within `REACH` of the goal.

    Raises:
        ValueError: if no way leads there.
    """
    i, j = cell_of(point)
    near = [(i + a, j + b) for a, b in [(0, 0), *_NEIGHBORS]]
    near = [(x, y) for x, y in near if 0 <= x < SIDE and 0 <= y < SIDE]
    cell = min(near, key=lambda c: field[c] + float(np.linalg.norm(GRID[c] - point)))
    if not np.isfinite(field[cell]):
        raise ValueError(f"no way from {np.round(point, 2).tolist()}")
    way = [GRID[cell]]
    while True:
        i, j = cell
        steps = [
            (field[i + a, j + b] + CELL * math.hypot(a, b), (i + a, j + b))
            for a, b in _NEIGHBORS
            if 0 <= i + a < SIDE
            and 0 <= j + b < SIDE
            and np.isfinite(field[i + a, j] + field[i, j + b])
        ]
        best, following = min(steps, default=(math.inf, cell))
        # The field falls by just the length of a step, up to rounding, until the goal is in reach.
        if field[following] >= field[cell] or best > field[cell] + 1e-9:
            return np.array(way)
        cell = following
        way.append(GRID[cell])


def cell_of(point: Floats) -> tuple[int, int]:
    """The cell that holds `point` [2], or the nearest one."""
    i, j = np.clip(((point + ARENA) / CELL).astype(int), 0, SIDE - 1)
    return int(i), int(j)
