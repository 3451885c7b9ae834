"""From a seed to an episode: the table's state, the tasks, and the numbers that set the table.

Held-out seeds are the 1000 chains of the published evaluation (`get_sequences` and
`get_env_state_for_initial_condition` in CALVIN's repository), drawn here by the same generators in
the same order. Other seeds draw chains, places and turns of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envservers.calvin.tasks import (
    CATEGORY,
    CHAIN,
    CHAIN_LENGTH,
    RULES,
    State,
    initial_states,
    is_chain,
    outcomes,
)
from envservers.held_out import HELD_OUT

PUBLISHED = 1000

ROBOT = np.array([
    0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963,
    -1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928, 1.0,
])  # fmt: skip
"""[15] hand, opening of the gripper, seven joints, gripper's command: where the arm begins."""
_TURNS = np.pi / 2 - np.pi / 8, np.pi / 2 + np.pi / 8
_CABINET = {
    "slider_left": (-0.240851662, 0.0924044687, 0.460990009),
    "slider_right": (0.070341633, 0.0924044687, 0.460990009),
}
_TABLE = ((0.0500000896, -0.120000177, 0.459990009), (0.229995412, -0.11999514, 0.45999001))
_FIRST_BLOCK = 6
"""Where the blocks' poses begin in a scene's numbers: six each, the last the turn about z."""


@dataclass(frozen=True)
class Start:
    """What an episode begins with."""

    tasks: tuple[str, ...]
    scene: NDArray[np.float64]
    """[24] slider, drawer, button, switch, bulb, led, and the poses of three blocks."""


def start_of(task: str, seed: int) -> Start:
    """The episode of a task and a seed."""
    if task == CHAIN and seed >= HELD_OUT:
        state, tasks = published()[(seed - HELD_OUT) % PUBLISHED]
        return Start(tasks, scene_numbers(state, np.random.RandomState(_seed_of(state))))
    random = np.random.default_rng(seed)
    states = initial_states()
    order = random.permutation(len(states))
    chain = task == CHAIN
    possible = (states[i] for i in order if chain or len(outcomes(states[i], task)) == 1)
    state = next(possible)
    tasks = _chain_from(state, random) if chain else (task,)
    return Start(tasks, scene_numbers(state, np.random.RandomState(random.integers(2**31))))


@cache
def published() -> tuple[tuple[State, tuple[str, ...]], ...]:
    """Initial states and chains of the published evaluation, in its order.

    `chains.txt` has the number of the state and of each task, as drawing them takes minutes.
    """
    states, names = initial_states(), list(RULES)
    lines = (Path(__file__).parent / "chains.txt").read_text().splitlines()
    rows = [[int(number) for number in line.split()] for line in lines]
    return tuple((states[row[0]], tuple(names[task] for task in row[1:])) for row in rows)


def drawn_chains(index: int, count: int) -> list[tuple[str, ...]]:
    """The first chains that the published evaluation draws for an initial state.

    Args:
        index: of the state.
        count: how many.
    """
    state, random = initial_states()[index], np.random.RandomState(index)
    found: list[tuple[str, ...]] = []
    while len(found) < count:
        drawn = tuple(random.choice(list(RULES), size=CHAIN_LENGTH, replace=False).tolist())
        if is_chain(state, drawn):
            found.append(drawn)
    return found


def _chain_from(state: State, random: np.random.Generator) -> tuple[str, ...]:
    """A chain from `state`, one possible task after the other; begun anew where none is left."""
    while True:
        now = state
        tasks: list[str] = []
        while len(tasks) < CHAIN_LENGTH:
            used = {CATEGORY[task] for task in tasks}
            left = [t for t in RULES if CATEGORY[t] not in used and len(outcomes(now, t)) == 1]
            if not left:
                break
            tasks.append(left[int(random.integers(len(left)))])
            now = outcomes(now, tasks[-1])[0]
        else:
            return tuple(tasks)


def scene_numbers(state: State, random: np.random.RandomState) -> NDArray[np.float64]:
    """[24] what sets the table to a state; free places and turns are drawn."""
    table = [np.array(place) for place in _TABLE]
    random.shuffle(table)
    scene = np.zeros(24)
    scene[0] = 0.28 if state["slider"] == "left" else 0.0
    scene[1] = 0.22 if state["drawer"] == "open" else 0.0
    scene[3] = 0.088 if state["lightbulb"] else 0.0
    scene[4:6] = state["lightbulb"], state["led"]
    # The second of two on the table takes the other place; pink alone takes it too.
    free = {
        "red_block": 0,
        "blue_block": 1 if state["red_block"] == "table" else 0,
        "pink_block": 1,
    }
    for number, (block, place) in enumerate(free.items()):
        first = _FIRST_BLOCK + 6 * number
        where = state[block]
        scene[first : first + 3] = table[place] if where == "table" else _CABINET[where]
        scene[first + 5] = random.uniform(*_TURNS)
    return scene


def _seed_of(state: State) -> int:
    return fnv1_32(str({**state}.values()))


def fnv1_32(words: str) -> int:
    """A hash of text, as `pyhash.fnv1_32` has it: begun with 0, not with FNV's offset."""
    value = 0
    for byte in words.encode():
        value = (value * 0x01000193 & 0xFFFFFFFF) ^ byte
    return value
