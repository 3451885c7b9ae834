"""A scripted expert: reads the goal, achieves its conditions one after the other.

Privileged: it knows where everything is. Each control step it looks anew, so that it goes on from
wherever noise has taken it; what it remembers is which move it is at (`Memory`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.libero import fixtures
from envservers.libero.goals import Goal
from envservers.libero.grasps import candidates, nearest_yaw
from envservers.libero.motions import CLOSED, OPEN, down, still, toward, yaw_of
from envservers.libero.scene import Scene
from envservers.libero.view import View

Memory = dict[str, Any]
"""JSON values: `goal` (index), `move` (name), `steps` (in the move), what moves leave behind."""

_NEAR = 0.012
_CLEARANCE = 0.06


class Expert:
    """Of one episode.

    Args:
        memory: of an episode under way; None: at its beginning.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory: Memory = memory or {"goal": -1, "move": "choose", "steps": 0, "tries": 0}

    def memory(self) -> Memory:
        """What to go on with, as JSON."""
        return self._memory

    def act(self, scene: Scene) -> NDArray[np.float64]:
        """[7] the next action in [-1, 1]; the scene is up to date."""
        view, memory = View(scene), self._memory
        for _ in range(4):  # a move that is done hands over to the next within the same step
            move = memory["move"]
            if move in fixtures.MOVES:
                action = fixtures.MOVES[move](view, _goal(view, memory), memory)
            else:
                action = _MOVES[move](view, memory)
            if memory["move"] == move:
                break
            memory["steps"] = 0
        memory["steps"] += 1
        return np.clip(action, -1, 1)


def ordered(view: View) -> list[Goal]:
    """The conditions in the order to achieve them: below before above, closed at last."""
    goals = list(view.problem.goals)
    # What goes into a drawer needs it open.
    goals += [
        Goal("open", goal.place)
        for goal in view.problem.goals
        if goal.predicate == "in" and _drawer(view, goal.place)
    ]
    moved = {goal.subject for goal in goals if goal.place}

    def rank(goal: Goal) -> tuple[int, int]:
        kind = {"open": 0, "turnoff": 0, "turnon": 1, "on": 2, "in": 2, "close": 3}
        return kind[goal.predicate], int(goal.place in moved)

    return sorted(goals, key=rank)


def _choose(view: View, memory: Memory) -> NDArray[np.float64]:
    """Begin with the first condition that does not hold."""
    goals = ordered(view)
    placed = [goal for goal in goals if goal.place and not view.holds(goal)]
    due = [
        goal
        for goal in goals
        if not view.holds(goal)
        # A drawer is opened for what is still to go into it, closed when nothing is.
        and (goal in view.problem.goals or any(other.place == goal.subject for other in placed))
    ]
    memory["goal"] = goals.index(due[0]) if due else -1
    if due:
        memory["move"] = "above" if due[0].place else fixtures.first_move(view, due[0])
        memory.pop("grasp", None)
    return still(OPEN)


def _stay(view: View, memory: Memory) -> NDArray[np.float64]:
    return still(OPEN)


def _above(view: View, memory: Memory) -> NDArray[np.float64]:
    """Over the place to grasp at."""
    goal = _goal(view, memory)
    if "grasp" not in memory:
        choices = candidates(
            view.boxes(goal.subject),
            view.surroundings(goal.subject),
            view.position(goal.subject)[:2],
        )
        if not choices:
            return still(OPEN)
        grasp = choices[min(memory["tries"], len(choices) - 1)]
        center = view.position(goal.subject)
        memory["grasp"] = [*(np.array(grasp.position) - center).tolist(), grasp.yaw]
    spot, yaw = _grasp(view, memory)
    over = spot + np.array([0, 0, _CLEARANCE])
    if np.linalg.norm(view.hand[:2] - spot[:2]) > 0.03:
        over[2] = max(over[2], _travel_height(view, goal, spot))
    if np.linalg.norm(view.hand - over) < _NEAR and abs(nearest_yaw(yaw - yaw_of(view))) < 0.06:
        memory["move"] = "descend"
    if memory["steps"] > 150:
        memory["move"], memory["tries"] = "choose", memory["tries"] + 1
    return toward(view, over, down(view, yaw), OPEN)


def _descend(view: View, memory: Memory) -> NDArray[np.float64]:
    spot, yaw = _grasp(view, memory)
    if np.linalg.norm(view.hand - spot) < 0.006 or memory["steps"] > 30:
        memory["move"] = "grip"
    return toward(view, spot, down(view, yaw), OPEN)


def _grip(view: View, memory: Memory) -> NDArray[np.float64]:
    if memory["steps"] == 0:
        memory["wide"] = view.opening
    settled = memory["steps"] > 4 and abs(memory["wide"] - view.opening) < 0.0008
    memory["wide"] = view.opening
    if settled or memory["steps"] > 20:
        goal = _goal(view, memory)
        held = view.boxes(goal.subject)
        memory["offset"] = (view.position(goal.subject) - view.hand).tolist()
        memory["below"] = view.hand[2] - held.bottom
        memory["yaw"] = float(yaw_of(view))
        memory["move"] = "lift"
    return still(CLOSED)


def _lift(view: View, memory: Memory) -> NDArray[np.float64]:
    goal = _goal(view, memory)
    if memory["steps"] == 0:
        memory["from"] = view.hand.tolist()
    start = np.array(memory["from"])
    target = _destination(view, memory, goal)
    travel = _travel_height(view, goal, target) + memory["below"] - 0.02
    height = max(travel, start[2] + 0.03, target[2])
    memory["height"] = float(height)
    if _lost(view, memory, goal):
        memory["move"], memory["tries"] = "release", memory["tries"] + 1
    elif view.hand[2] > height - 0.008 or memory["steps"] > 60:
        memory["move"] = "carry"
    return toward(view, np.array([start[0], start[1], height]), down(view, memory["yaw"]), CLOSED)


def _carry(view: View, memory: Memory) -> NDArray[np.float64]:
    goal = _goal(view, memory)
    target = _destination(view, memory, goal)
    over = np.array([target[0], target[1], max(memory["height"], target[2])])
    if _lost(view, memory, goal):
        memory["move"], memory["tries"] = "release", memory["tries"] + 1
    elif np.linalg.norm(view.hand[:2] - over[:2]) < 0.008 or memory["steps"] > 150:
        memory["move"] = "lower"
    if view.hand[2] < over[2] - 0.03:  # up first
        over[:2] = view.hand[:2]
    return toward(view, over, down(view, memory["yaw"]), CLOSED)


def _lower(view: View, memory: Memory) -> NDArray[np.float64]:
    target = _destination(view, memory, _goal(view, memory))
    if memory["steps"] == 0:
        memory["last"] = 1e3
    falling = memory["last"] - view.hand[2]
    memory["last"] = float(view.hand[2])
    if view.hand[2] - target[2] < 0.004 or (memory["steps"] > 6 and falling < 0.0004):
        memory["move"] = "release"
    return toward(view, target, down(view, memory["yaw"]), CLOSED)


def _release(view: View, memory: Memory) -> NDArray[np.float64]:
    if memory["steps"] > 7:
        memory["move"] = "retreat"
    return still(OPEN)


def _retreat(view: View, memory: Memory) -> NDArray[np.float64]:
    if memory["steps"] == 0:
        memory["from"] = view.hand.tolist()
    up = np.array(memory["from"]) + np.array([0, 0, 0.1])
    if view.hand[2] > up[2] - 0.02 or memory["steps"] > 20:
        memory["move"] = "choose"
    return toward(view, up, down(view, memory.get("yaw", 0.0)), OPEN)


_MOVES = {
    "choose": _choose,
    "stay": _stay,
    "above": _above,
    "descend": _descend,
    "grip": _grip,
    "lift": _lift,
    "carry": _carry,
    "lower": _lower,
    "release": _release,
    "retreat": _retreat,
}


def _drawer(view: View, region: str) -> bool:
    if region not in view.problem.regions or region not in view.scene.env.object_sites_dict:
        return False
    joint = view.joint(region)
    return joint is not None and joint.slides


def _goal(view: View, memory: Memory) -> Goal:
    return ordered(view)[memory["goal"]]


def _grasp(view: View, memory: Memory) -> tuple[NDArray[np.float64], float]:
    goal = _goal(view, memory)
    *offset, yaw = memory["grasp"]
    return view.position(goal.subject) + np.array(offset), yaw


def _lost(view: View, memory: Memory, goal: Goal) -> bool:
    """Whether the object is no longer where it was in the hand."""
    held = view.position(goal.subject) - view.hand
    return bool(np.linalg.norm(held - np.array(memory["offset"])) > 0.05)


def _destination(view: View, memory: Memory, goal: Goal) -> NDArray[np.float64]:
    """Where the hand lets go."""
    offset, below = np.array(memory["offset"]), memory["below"]
    place = goal.place
    if place in view.problem.objects:
        center = view.position(place)
        support = _support(view, place, center)
    else:
        center, half = view.site(place)
        support = float(center[2] - half[2])
        if goal.predicate == "in":
            # Over the walls: the fingers stay outside, the object falls in.
            support = max(support, view.walls(place) - 0.01)
    spot = center - offset
    spot[2] = support + below + 0.008
    return spot


def _support(view: View, name: str, center: NDArray[np.float64]) -> float:
    """Height of an object's inside, at its middle."""
    corners = view.boxes(name).corners
    middle = np.linalg.norm(corners[..., :2].mean(axis=1) - center[:2], axis=1) < 0.025
    chosen = corners[middle] if middle.any() else corners
    return float(chosen[..., 2].max())


def _travel_height(view: View, goal: Goal, spot: NDArray[np.float64]) -> float:
    """At which the fingers pass over everything between the hand and a place."""
    seen = view.surroundings(goal.subject).corners
    start, end = view.hand[:2], spot[:2]
    way = end - start
    length = float(np.dot(way, way))
    middles = seen[..., :2]
    share = np.clip((middles - start) @ way / max(length, 1e-6), 0, 1)
    apart = np.linalg.norm(start + share[..., None] * way - middles, axis=-1).min(axis=1)
    tops = seen[..., 2].max(axis=1)[apart < 0.1]
    return float(tops.max(initial=0.0)) + 0.05
