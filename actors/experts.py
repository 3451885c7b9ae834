"""Suites that have a scripted expert, and the expert of each: who demonstrates what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envservers.navigation import expert as navigation
from envservers.navigation.suite import NavigationSuite
from envservers.registry import make_suite
from envservers.suite_table import SUITES
from envservers.tabletop import expert as tabletop
from envservers.tabletop.suite import TabletopSuite
from vlarl.config.data_schema import CollectConfig
from vlarl.env_protocol import Suite
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

DEMONSTRATED = ("tabletop", "navigation")
"""Suites whose expert runs in this process."""


def demonstrated() -> list[str]:
    """Suites that have an expert."""
    return [*DEMONSTRATED, *(name for name, entry in SUITES.items() if entry.experts)]


def is_served(suite_name: str) -> bool:
    """Whether the suite's expert runs in its env servers, not in this process.

    Raises:
        UserError: for a suite without an expert.
    """
    if suite_name not in demonstrated():
        known = ", ".join(demonstrated())
        raise UserError(f"suite {suite_name!r} has no scripted expert; suites that have: {known}")
    return suite_name not in DEMONSTRATED


class Expert(Protocol):
    """Acts in every slot of a suite by what it knows of the simulation."""

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """Forget the episodes of these slots; begin those of `starts`."""
        ...

    def clumsy(self, env_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether the next action of each slot is one that nobody should imitate."""
        ...

    def act(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, c] the next action of each slot."""
        ...


def suite_options(
    tasks: Sequence[str] = (),
    image_size: int = 64,
    max_steps: int = 0,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Options of a suite's constructor; `further` ones are as in `EnvConfig.options`."""
    options: dict[str, Any] = {"image_size": image_size, **(further or {})}
    if tasks:
        options["tasks"] = list(tasks)
    if max_steps:
        options["max_steps"] = max_steps
    return options


def make_tabletop(
    suite_name: str, num_envs: int, image_size: int = 64, threads: int = 1
) -> TabletopSuite:
    """The suite whose scenes can be asked about, for grounding.

    Raises:
        UserError: for another one.
    """
    if suite_name != "tabletop":
        raise UserError(
            f"suite {suite_name!r} has no grounding scenes, only tabletop has: "
            "set supervised.data.grounding_images=0"
        )
    suite = make_suite(suite_name, num_envs, image_size=image_size, threads=threads)
    assert isinstance(suite, TabletopSuite)
    return suite


def expert_of(suite: Suite, config: CollectConfig) -> Expert:
    """The expert of a suite that has one, as noisy as `config` says."""
    if isinstance(suite, NavigationSuite):
        wandering = navigation.ExpertNoise(
            waypoint_std=config.waypoint_noise,
            action_std=config.action_noise,
            slowest_pace=config.slowest_pace,
            clumsy_steps=config.clumsy_steps,
        )
        return navigation.Expert(suite, wandering, config.seed)
    assert isinstance(suite, TabletopSuite)
    noise = tabletop.ExpertNoise(
        waypoint_std=config.waypoint_noise,
        action_std=config.action_noise,
        slowest_pace=config.slowest_pace,
        clumsy_steps=config.clumsy_steps,
    )
    return tabletop.Expert(suite, noise, config.seed)
