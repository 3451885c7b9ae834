"""Random tables: physically valid, as laid, and true to their names."""

from dataclasses import replace

import numpy as np
import pytest

from envservers.raycaster import project
from envservers.tabletop.facts import DIRECTIONS, OPPOSITE, beside_in, on_table, rests_on
from envservers.tabletop.layouts import BLOCKS, Pattern, sample_layout
from envservers.tabletop.renderer import FIELD_OF_VIEW
from envservers.tabletop.workbench import Workbench, painted

SLOTS = 8
IDS = np.arange(SLOTS)


@pytest.fixture(scope="module")
def bench():
    return Workbench(SLOTS, image_size=48)


def layouts(seed, **options):
    return [sample_layout(np.random.default_rng([seed, slot]), **options) for slot in IDS]


def owners(bench, geoms):
    return np.where(geoms >= 0, np.array(bench.owner)[geoms], "")


def test_tables_settle_where_they_were_laid(bench):
    for seed in range(4):
        laid = layouts(seed, stacks=2)
        assert bench.lay(IDS, laid) == [""] * SLOTS
        for slot, layout in enumerate(laid):
            facts = bench.facts(slot)
            assert set(facts.positions) == set(layout.present)
            for thing in layout.present:
                off = facts.positions[thing][:2] - layout.poses[thing][:2]
                assert np.abs(off).max() < 0.006
                if thing not in layout.stacked:
                    assert on_table(facts, thing)
                below = layout.stacked.get(thing)
                bearers = [other for other in layout.present if rests_on(facts, thing, other)]
                assert bearers == ([below] if below else [])


def test_a_table_that_does_not_settle_is_refused(bench):
    laid = layouts(0, objects=8)
    x, y, yaw = laid[0].poses["yellow_block"]
    poses = {**laid[0].poses, "green_block": (x + 0.01, y, yaw)}
    laid[0] = replace(laid[0], poses=poses, stacked={})
    defects = bench.lay(IDS, laid)
    assert "while settling" in defects[0] or "unstable" in defects[0]
    assert defects[1:] == [""] * (SLOTS - 1)


def test_directions_are_those_of_the_picture(bench):
    checked = 0
    for seed in range(3):
        laid = [replace(layout, stacked={}) for layout in layouts(seed, objects=8)]
        bench.lay(IDS, laid)
        pose = bench.renderer.camera_pose(IDS, "ego")
        for slot in IDS:
            facts = bench.facts(int(slot))
            names = list(facts.positions)
            ground = np.stack([facts.positions[name] * [1, 1, 0] for name in names])
            points = np.repeat(ground[None], SLOTS, axis=0)
            places = project(points, pose, FIELD_OF_VIEW["ego"])[slot]
            for i, one in enumerate(names):
                for j, other in enumerate(names):
                    u, v = places[i] - places[j]
                    said = {d for d, holds in DIRECTIONS.items() if holds(facts, one, other)}
                    assert not said & {OPPOSITE[d] for d in said}
                    checked += len(said)
                    # The camera is a little off the middle: a twentieth of the picture is spared.
                    assert "to the left of" not in said or u < 0.05
                    assert "to the right of" not in said or u > -0.05
                    assert "in front of" not in said or v > 0
                    assert "behind" not in said or v < 0
    assert checked > 1000


def test_beside_in_one_direction_alone(bench):
    laid = layouts(1, objects=8)
    poses = dict(laid[0].poses)
    poses |= {"green_block": (0.45, 0.1, 0.0), "yellow_block": (0.45, 0.2, 0.0)}
    for name, x in (("plate", 0.2), ("basket", 0.2), ("towel", 0.32)):
        poses[name] = (x, {"plate": 0.2, "basket": 0.0, "towel": 0.2}[name], 0.0)
    poses |= {"spoon": (0.3, -0.2, 0), "carrot": (0.4, -0.2, 0), "eggplant": (0.2, -0.2, 0)}
    bench.lay(IDS, [replace(laid[0], poses=poses, stacked={})] * SLOTS)
    facts = bench.facts(0)
    assert beside_in(facts, "green_block", "yellow_block", "to the left of")
    assert beside_in(facts, "yellow_block", "green_block", "to the right of")
    assert beside_in(facts, "towel", "plate", "in front of")
    for thing, other, direction in (
        ("green_block", "yellow_block", "behind"),
        ("spoon", "green_block", "to the left of"),
    ):
        assert not beside_in(facts, thing, other, direction)


def test_bigger_and_heavier_is_what_is_drawn_and_felt(bench):
    base = replace(layouts(2, objects=8)[0], stacked={})
    usual = dict.fromkeys(base.scale, 1.0)
    big = replace(base, scale={**usual, "yellow_block": 1.2}, density={"yellow_block": 1.5})
    small = replace(base, scale={**usual, "yellow_block": 0.8}, density={})
    bench.lay(IDS, [big, small] * (SLOTS // 2))
    _, geoms = bench.render(IDS, "ego")
    pixels = (owners(bench, geoms) == "yellow_block").sum(axis=(1, 2))
    assert pixels[0] > 1.5 * pixels[1] > 0
    assert abs(bench.facts(0).positions["yellow_block"][2] - 0.030) < 1e-3
    assert abs(bench.facts(1).positions["yellow_block"][2] - 0.020) < 1e-3
    mass = bench._expanded["body_mass"][:2, bench._bodies["yellow_block"]]
    np.testing.assert_allclose(mass, [0.12 * 1.2**3 * 1.5, 0.12 * 0.8**3], rtol=1e-9)


def test_what_is_absent_is_nowhere_to_be_seen(bench):
    laid = layouts(5, objects=3)
    bench.lay(IDS, laid)
    for camera in ("ego", "cam_right_wrist"):
        _, geoms = bench.render(IDS, camera)
        for slot, layout in enumerate(laid):
            assert set(np.unique(owners(bench, geoms[slot]))) <= {"", *layout.present}


def test_patterns_paint_the_table_alone(bench):
    base = layouts(6, objects=6)[0]
    color = np.array([1.0, 0.0, 0.0], np.float32)
    kinds = ("plain", "checker", "stripes", "planks", "speckle")
    laid = [replace(base, pattern=Pattern(kind, color, 0.08, 0.3)) for kind in kinds]
    bench.lay(IDS, [*laid, *[base] * (SLOTS - len(laid))])
    images, geoms = bench.render(IDS, "ego")
    table = geoms[0] == bench.model.geom("table").id
    for other in images[1 : len(kinds)]:
        assert np.array_equal(other[~table], images[0][~table])
        changed = (other[table] != images[0][table]).any(axis=1).mean()
        assert 0.02 < changed < 0.9
    corners = np.array([[0.01, 0.01], [0.09, 0.01], [0.09, 0.09], [-0.01, 0.01]])
    checker = painted(Pattern("checker", color, 0.08, 0.0), corners)
    assert checker.tolist() == [True, False, True, False]


def test_names_tell_objects_apart():
    seen = set()
    for seed in range(300):
        layout = sample_layout(np.random.default_rng(seed))
        names = [layout.name(thing) for thing in layout.present]
        assert len(set(names)) == len(names)
        seen |= set(names)
        if len({layout.colors.get(block, block) for block in BLOCKS}) == 1:
            small, large = (layout.half_height(block) for block in BLOCKS)
            assert layout.name("green_block").startswith("small ")
            assert small < 0.7 * large
    assert {"small red block", "carrot", "blue plate"} <= seen
