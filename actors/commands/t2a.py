"""`vlarl t2a`: text-to-action pretraining as a config says."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation, stage_config


def run(invocation: Invocation) -> dict[str, Any]:
    """Train."""
    config = stage_config(invocation, "t2a")
    from actors.text_to_action import text_to_action

    return text_to_action(config)


COMMAND = Command(
    usage="t2a CONFIG.yaml [key=value ...]",
    arguments=("CONFIG.yaml",),
    details=(
        "Trains the action expert alone on trajectories and sentences, without images, with the\n"
        "backbone frozen (paper section 5.2.1). Data: supervised.data.t2a.synthetic, a folder of\n"
        "`vlarl synth t2a`, and supervised.data.t2a.real, a LeRobot dataset."
    ),
    example="vlarl t2a configs/t2a/tiny.yaml supervised.data.t2a.synthetic=datasets/t2a",
    run=run,
)
