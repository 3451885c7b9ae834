"""`vlarl demo`: the main job on the embedded default."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation

CONFIG = "configs/rl/demo.yaml"


def run(invocation: Invocation) -> dict[str, Any]:
    """RL from the shipped SFT checkpoint, evaluated before and after, with a report page."""
    from vlarl.config.load import load_config
    from vlarl.errors import ConfigError

    config = load_config(CONFIG, invocation.overrides)
    if config.resume != "never":
        raise ConfigError(
            f"resume = {config.resume!r}: `vlarl demo` keeps to a clock and cannot continue a run. "
            f"Continue it with: vlarl rl {CONFIG} name={config.name} resume=auto"
        )
    from actors.demo import demo

    return demo(config)


COMMAND = Command(
    usage="demo [seed=...] [key=value ...]",
    details=(
        "From the SFT checkpoint that ships with the package, RL on `tabletop` to an instruct\n"
        "checkpoint; both are evaluated on the same held-out initial states. Leaves a run folder\n"
        f"with report.html, curves and videos. Settings are those of {CONFIG}."
    ),
    example="vlarl demo seed=1",
    run=run,
)
