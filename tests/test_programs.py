"""Tasks made up for a table: their tests tell the goal from the start, and what is in the hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from envservers.tabletop.facts import let_go
from envservers.tabletop.layouts import sample_layout
from envservers.tabletop.programs import MAKERS, PREDICATES, make_program
from envservers.tabletop.workbench import Workbench

SLOTS = 16
IDS = np.arange(SLOTS)
KINDS = [maker for makers in MAKERS.values() for maker in makers]


@pytest.fixture(scope="module")
def bench():
    return Workbench(SLOTS, image_size=1)


def tables(bench, seed, **options):
    random = np.random.default_rng(seed)
    laid = [sample_layout(random, stacks=1, objects=6, **options) for _ in IDS]
    assert bench.lay(IDS, laid) == [""] * SLOTS
    return laid, [bench.facts(slot) for slot in IDS.tolist()]


def goal_layout(layout, facts, program):
    """The table as it is when every stage has put its object where it belongs."""
    poses, stacked = dict(layout.poses), dict(layout.stacked)
    for stage in program.stages:
        stacked.pop(stage.carried, None)
        x, y = stage.spot
        if stage.onto:
            x, y = np.add(stage.spot, poses[stage.onto][:2])
            stacked[stage.carried] = stage.onto
        poses[stage.carried] = (x, y, 0.0)
    tool = np.array([0.15, 0.0, 0.25, 0.0])
    return replace(layout, poses=poses, stacked=stacked, tool=tool)


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
def test_the_goal_passes_the_test_and_the_start_does_not(bench, maker):
    made = 0
    for seed in range(6):
        laid, facts = tables(bench, seed, alike=True)
        random = np.random.default_rng(seed)
        programs = [maker(one, random) for one in facts]
        for one, program in zip(facts, programs, strict=True):
            # A row may be there by chance; `make_program` passes such tables over.
            assert program is None or program.kind == "line_up" or not program.succeeded(one)
            assert program is None or program.kind == maker.__name__
        # Three things in one basket lie on one another only if they are dropped there.
        usable = [p is not None and len({s.onto for s in p.stages} - {""}) != 1 for p in programs]
        usable = [
            p is not None and (ok or len(p.stages) < 3)
            for p, ok in zip(programs, usable, strict=True)
        ]
        goals = [
            goal_layout(layout, one, program) if ok else layout
            for layout, one, program, ok in zip(laid, facts, programs, usable, strict=True)
        ]
        defects = bench.lay(IDS, goals)
        for slot, (program, ok) in enumerate(zip(programs, usable, strict=True)):
            if ok and not defects[slot]:
                made += 1
                after = bench.facts(slot)
                assert program.succeeded(after), (program, after.positions)
                # Written down and read again, the test says the same.
                for predicate, *arguments in json.loads(program.to_json()):
                    assert PREDICATES[predicate](after, *arguments)
    assert made >= 5


def test_what_is_still_in_the_hand_is_not_done(bench):
    _, facts = tables(bench, 0)
    thing = next(t for t in facts[0].positions if t in ("spoon", "carrot", "eggplant"))
    at = facts[0].positions[thing]
    assert let_go(facts[0], thing)
    assert not let_go(replace(facts[0], tool=np.array([*at, 0.0])), thing)
    assert not let_go(replace(facts[0], speeds={**facts[0].speeds, thing: 0.1}), thing)


def test_horizons(bench):
    _, facts = tables(bench, 3)
    random = np.random.default_rng(0)
    for horizon, stages in (("short", {1}), ("long", {2, 3, 4})):
        made = [make_program(one, horizon, random) for one in facts]
        found = {len(program.stages) for program in made if program is not None}
        assert found
        assert found <= stages
        assert {p.horizon for p in made if p is not None} == {horizon}
    names = {make_program(one, "both", random).kind for one in facts * 4}
    assert len(names) >= 5


def test_a_table_without_anything_to_carry_has_no_task(bench):
    laid, _ = tables(bench, 4)
    bare = replace(laid[0], present=("towel", "plate"), stacked={})
    bare = replace(bare, colors={"towel": "red", "plate": "blue"})
    bare = replace(bare, poses={"towel": (0.3, 0.1, 0.0), "plate": (0.3, -0.1, 0.0)})
    bench.lay(IDS, [bare] * SLOTS)
    assert make_program(bench.facts(0), "both", np.random.default_rng(0)) is None
