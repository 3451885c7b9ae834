"""Suites that have a scripted expert, and the expert of each: who demonstrates what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envservers.navigation import expert as navigation
from envservers.navigation.suite import NavigationSuite
from envservers.registry import make_suite
from envservers.tabletop import expert as tabletop
from envservers.tabletop.suite import EMBODIMENTS, TabletopSuite
from vlarl.config.data_schema import CollectConfig
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import Suite
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

DEMONSTRATED = ("tabletop", "navigation")
"""Suites with an expert."""


def robot_of(env: EnvConfig) -> str:
    """The embodiment that a new model for these environments drives."""
    if env.suite == "navigation":
        return "vln_agent"
    return EMBODIMENTS.get(env.options.get("frame", "world"), EMBODIMENTS["world"])


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


def make_demonstrated(
    suite_name: str,
    num_envs: int,
    tasks: Sequence[str] = (),
    image_size: int = 64,
    max_steps: int = 0,
    threads: int = 1,
    further: Mapping[str, Any] | None = None,
) -> Suite:
    """A suite that has an expert; `further` options are as in `EnvConfig.options`.

    Raises:
        UserError: for a suite without one, an unknown task, or more environments than memory.
    """
    if suite_name not in DEMONSTRATED:
        known = ", ".join(DEMONSTRATED)
        raise UserError(f"suite {suite_name!r} has no scripted expert; suites that have: {known}")
    options: dict[str, Any] = {"image_size": image_size, "threads": threads, **(further or {})}
    if tasks:
        options["tasks"] = list(tasks)
    if max_steps:
        options["max_steps"] = max_steps
    return make_suite(suite_name, num_envs, **options)


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
    suite = make_demonstrated(suite_name, num_envs, image_size=image_size, threads=threads)
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
