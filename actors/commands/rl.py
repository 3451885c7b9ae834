"""`vlarl rl`: reinforcement learning as a config says."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation


def run(invocation: Invocation) -> dict[str, Any]:
    """Train; the run folder holds checkpoints, metrics and the report."""
    from vlarl.config.load import load_config
    from vlarl.errors import ConfigError

    config = load_config(invocation.arguments[0], invocation.overrides)
    if config.stage != "rl":
        raise ConfigError(
            f"{invocation.arguments[0]}: stage = {config.stage!r}: not a config for `vlarl rl`. "
            f"Try: vlarl {config.stage} {invocation.arguments[0]}"
        )
    from actors.controller import train

    return train(config)


COMMAND = Command(
    usage="rl CONFIG.yaml [key=value ...]",
    arguments=("CONFIG.yaml",),
    details=(
        "Runs PPO on env servers from an SFT checkpoint. Settings are dotted keys of the config;\n"
        "`vlarl info config` lists them. resume=auto continues the run of that name."
    ),
    example="vlarl rl configs/rl/tabletop.yaml ppo.iterations=20 name=short",
    run=run,
)
