"""What varies from one synthetic table to the next, and that each of it is felt or seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from envservers.tabletop.layouts import Layout, sample_layout
from envservers.tabletop.sampling import PLACE_HIGH, PLACE_LOW
from envservers.tabletop.workbench import Workbench

PUSH = np.array([0.05, 0.04, -0.04, 0.2, 1.0])


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(2, image_size=48)


@pytest.fixture(scope="module")
def base() -> Layout:
    drawn = sample_layout(np.random.default_rng(5), objects=6)
    return replace(drawn, edges=np.array([[-0.2, -0.35], [0.55, 0.32]]))


def test_every_factor_is_drawn_anew() -> None:
    drawn = [sample_layout(np.random.default_rng(seed)) for seed in range(60)]
    factors: dict[str, Callable[[Layout], object]] = {
        "objects": lambda each: (each.present, tuple(each.colors.values())),
        "sizes": lambda each: tuple(each.scale.values()),
        "masses": lambda each: tuple(each.density.values()),
        "friction": lambda each: each.friction,
        "poses": lambda each: tuple(each.poses.values()),
        "start of the arm": lambda each: tuple(each.tool),
        "light": lambda each: tuple(each.light),
        "camera": lambda each: tuple(each.camera),
        "background": lambda each: tuple(each.background),
        "edges": lambda each: tuple(each.edges.ravel()),
        "table": lambda each: (each.pattern.angle, each.pattern.pitch),
        "stiffness": lambda each: each.controller.stiffness,
        "damping": lambda each: each.controller.damping,
        "pace": lambda each: each.controller.pace,
        "noise": lambda each: each.controller.action_noise,
    }
    for name, factor in factors.items():
        assert len({factor(each) for each in drawn}) > 40, name


def test_a_table_ends_behind_everything_that_may_stand_on_it() -> None:
    for seed in range(200):
        low, high = sample_layout(np.random.default_rng(seed)).edges
        assert (low < PLACE_LOW - 0.08).all()
        assert (high > PLACE_HIGH + 0.05).all()


def pictures(bench: Workbench, one: Layout, other: Layout) -> np.ndarray:
    assert bench.lay(np.arange(2), [one, other]) == ["", ""]
    return bench.render(np.arange(2), "ego")[0].astype(int)


@pytest.mark.parametrize("factor", ["light", "camera", "background"])
def test_what_is_visual_is_seen_and_moves_nothing(
    bench: Workbench, base: Layout, factor: str
) -> None:
    values = {
        "light": np.array([0.6, 0.0, 0.8, 0.35, 0.65], np.float32),
        "camera": base.camera + 0.02,
        "background": 1 - base.background,
    }
    seen = pictures(bench, base, replace(base, **{factor: values[factor]}))
    assert np.abs(seen[0] - seen[1]).max() > 10
    states = bench.state(np.arange(2))
    np.testing.assert_array_equal(states[0], states[1])


@pytest.mark.parametrize("factor", ["stiffness", "damping"])
def test_the_controller_is_felt_under_the_same_commands(
    bench: Workbench, base: Layout, factor: str
) -> None:
    changed = replace(base.controller, **{factor: 1.6})
    seen = pictures(bench, base, replace(base, controller=changed))
    np.testing.assert_array_equal(seen[0], seen[1])
    bench.step(np.arange(2), np.stack([PUSH, PUSH]))
    states = bench.state(np.arange(2))
    assert np.abs(states[0, :6] - states[1, :6]).max() > 1e-4


def test_friction_and_masses_reach_the_physics(bench: Workbench, base: Layout) -> None:
    light = dict.fromkeys(base.density, 0.5)
    bench.lay(np.arange(2), [base, replace(base, friction=2 * base.friction, density=light)])
    model = bench._expanded
    for thing, body in bench._bodies.items():
        geoms = slice(*np.cumsum([bench.model.body_geomadr[body], bench.model.body_geomnum[body]]))
        friction = model["geom_friction"][:, geoms]
        np.testing.assert_allclose(friction[1], 2 * friction[0])
        if thing in base.density:
            ratio = model["body_mass"][1, body] / model["body_mass"][0, body]
            assert ratio == pytest.approx(0.5 / base.density[thing])
