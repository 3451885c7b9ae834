"""`vlarl sft`: supervised fine-tuning as a config says."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation, stage_config


def run(invocation: Invocation) -> dict[str, Any]:
    """Train; collects the demonstrations first where the config names no dataset."""
    config = stage_config(invocation, "sft")
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
