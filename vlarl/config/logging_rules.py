"""Rules of what a run lets be seen: `logging` and `profile`."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.config.checks import without_effect
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig
from vlarl.stages import SUPERVISED


def logging_rules(config: RunConfig) -> Iterator[Problem]:
    """Sinks and the settings that belong to each; a profile is of RL's second iteration."""
    logging = config.logging
    if not logging.wandb:
        yield from without_effect(config, ["logging.project"], "logging.wandb=false")
    if not logging.prometheus:
        reason = "logging.prometheus=false"
        yield from without_effect(config, ["logging.prometheus_port"], reason)
    if logging.prometheus_port not in range(65536):
        remedy = "Use 1024 to 65535, or 0 for none."
        yield Problem("logging.prometheus_port", "is no port", remedy)
    if config.stage in SUPERVISED:
        yield from without_effect(config, ["profile"], f"stage={config.stage}")
    elif config.stage == "rl" and config.profile and config.ppo.iterations < 2:
        remedy = "Use ppo.iterations=2 or more."
        yield Problem("profile", "shows the second iteration, and there is only one", remedy)
