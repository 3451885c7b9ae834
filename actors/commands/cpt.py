"""`vlarl cpt`: continued pretraining as a config says."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation, stage_config


def run(invocation: Invocation) -> dict[str, Any]:
    """Train."""
    config = stage_config(invocation, "cpt")
    from actors.supervise import supervise

    return supervise(config)


COMMAND = Command(
    usage="cpt CONFIG.yaml [key=value ...]",
    arguments=("CONFIG.yaml",),
    details=(
        "Trains all of the model on images and actions, from the weights of an earlier stage\n"
        "(model.init.weights). Settings are those of `vlarl sft`."
    ),
    example="vlarl cpt configs/cpt/debug.yaml model.init.weights=runs/t2a",
    run=run,
)
