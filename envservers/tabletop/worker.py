"""Works through a program on one table: a pick-and-place for each stage, until all are done."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.expert import BASKET_DROP
from envservers.tabletop.facts import Facts, let_go
from envservers.tabletop.pick_place import PICKING, ExpertNoise, Handling, PickAndPlace
from envservers.tabletop.programs import Program, Stage
from envservers.tabletop.scene import HALF_HEIGHT

STAGE_STEPS = 60
"""Control steps that one stage may take: room for a second attempt at the slowest pace."""
PICK, PLACE = "pick", "place"


class Worker:
    """Acts on one table; says which stage and which part of it each action belongs to.

    Attributes:
        stage: index of the present stage; the number of stages once all are done.
    """

    def __init__(self, program: Program, facts: Facts, random: np.random.Generator) -> None:
        """Begin with the first stage; pace and noise are the layout's."""
        controller = facts.layout.controller
        self._program, self._random = program, random
        self._noise = ExpertNoise(waypoint_std=0.003, action_std=controller.action_noise)
        self._pace = controller.pace
        self.stage, self._steps = 0, 0
        self._motion = PickAndPlace(random, self._noise, self._pace)

    @property
    def done(self) -> bool:
        """Whether every stage has succeeded."""
        return self.stage == len(self._program.stages)

    @property
    def timed_out(self) -> bool:
        """Whether the present stage has taken too long."""
        return self._steps >= STAGE_STEPS

    @property
    def part(self) -> str:
        """`pick` until the object is carried, then `place`."""
        return PICK if self._motion.phase in PICKING else PLACE

    def act(self, facts: Facts, commanded: NDArray[np.float64]) -> NDArray[np.float32]:
        """[5] the next action; the program must not be done."""
        assert not self.done
        self._steps += 1
        stage = self._program.stages[self.stage]
        return self._motion.act(_handling(stage, facts, commanded)).astype(np.float32)

    def judge(self, facts: Facts) -> None:
        """After an action: go on to the next stage if this one has succeeded."""
        stage = self._program.stages[self.stage]
        if self._motion.retreated and stage.goal.holds(facts) and let_go(facts, stage.carried):
            self.stage, self._steps = self.stage + 1, 0
            self._motion = PickAndPlace(self._random, self._noise, self._pace)


def _handling(stage: Stage, facts: Facts, commanded: NDArray[np.float64]) -> Handling:
    thing, onto, layout = stage.carried, stage.onto, facts.layout
    target = np.array([*stage.spot, layout.half_height(thing)])
    if onto:
        target[:2] = _turned(stage.spot, facts.yaws[onto]) + facts.positions[onto][:2]
        target[2] = facts.positions[onto][2] + layout.half_height(onto) + target[2]
    in_basket = onto == "basket"
    rim = 2 * (layout.half_height("basket") - HALF_HEIGHT["basket"])
    return Handling(
        tool=facts.tool,
        commanded=commanded,
        source=facts.positions[thing],
        source_yaw=facts.yaws[thing],
        grasp_period=np.pi / 2 if thing.endswith("block") else np.pi,
        target=target,
        square_to=facts.yaws[onto] if in_basket else None,
        drop_height=BASKET_DROP + rim if in_basket else None,
    )


def _turned(offset: tuple[float, float], yaw: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine], [sine, cosine]]) @ offset
