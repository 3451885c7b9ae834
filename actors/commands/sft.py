"""`vlarl sft`: supervised fine-tuning as a config says."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation


def run(invocation: Invocation) -> dict[str, Any]:
    """Train; collects the demonstrations first where the config names no dataset."""
    from vlarl.config.load import load_config
    from vlarl.errors import ConfigError

    config = load_config(invocation.arguments[0], invocation.overrides)
    if config.stage != "sft":
        raise ConfigError(
            f"{invocation.arguments[0]}: stage = {config.stage!r}: not a config for `vlarl sft`. "
            f"Try: vlarl {config.stage} {invocation.arguments[0]}"
        )
    from actors.supervise import supervise

    return supervise(config)


COMMAND = Command(
    usage="sft CONFIG.yaml [key=value ...]",
    arguments=("CONFIG.yaml",),
    details=(
        "Trains with the flow-matching loss on demonstrations, and on grounding questions where\n"
        "the config asks for them. Settings are dotted keys of the config; `vlarl info config`\n"
        "lists them."
    ),
    example="vlarl sft configs/sft/tabletop.yaml supervised.steps=2000",
    run=run,
)
