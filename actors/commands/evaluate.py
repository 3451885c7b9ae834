"""`vlarl eval`: deterministic evaluation of a checkpoint on held-out initial states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation

ALIASES = {
    "suite": "env.suite",
    "tasks": "env.tasks",
    "episodes": "evaluation.episodes",
    "seed": "evaluation.seed",
    "embodiment": "env.embodiment",
}
SETTINGS = (
    "env.suite",
    "env.tasks",
    "env.image_size",
    "env.max_steps",
    "env.options",
    "env.embodiment",
    "env.suites",
    "sampling",
    "evaluation",
)
"""What an evaluation takes over from the config of a run."""


def run(invocation: Invocation) -> dict[str, Any]:
    """Evaluate and print the table."""
    from vlarl.config.load import load_config
    from vlarl.evaluation.report import plain_table
    from vlarl.runs import checkpoint_of

    name, *rest = invocation.arguments
    checkpoint = checkpoint_of(name)
    source = rest[0] if rest else _run_of(name)
    overrides = ["stage=eval", *invocation.overrides_with(ALIASES)]
    config = load_config(source, overrides, only=SETTINGS)
    from actors.evaluate_checkpoint import evaluate_checkpoint

    summary = evaluate_checkpoint(checkpoint, config)
    print(plain_table({"checkpoint": summary}))
    if source is not None:
        print(f"Episodes and sampling as in {source}.")
    return summary | {"config": None if source is None else str(source)}


def _run_of(name: str) -> Path | None:
    """The run folder that a checkpoint lies in, or that is named itself."""
    for folder in (Path(name), Path(name).parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return folder
    return None


COMMAND = Command(
    usage="eval CHECKPOINT [CONFIG] [suite=... tasks=... episodes=... seed=...]",
    arguments=("CHECKPOINT",),
    optional=("CONFIG",),
    details=(
        "CHECKPOINT is a folder, a run (its last checkpoint), or `tabletop-sft`. The same seed\n"
        "gives the same initial states, and the same outcome for the same checkpoint. Episodes\n"
        "and sampling are those of CONFIG (a YAML file or a run), without it those of the run\n"
        "that the checkpoint lies in, else the defaults.\n\n"
        "  suite            which suite (tabletop)\n"
        "  tasks            task names, such as a,b (all of the suite)\n"
        "  episodes         in all, spread evenly over the tasks (256)\n"
        "  seed             first seed of the held-out initial states (1000000)\n"
        "  embodiment       name or YAML file of the robot that the prompt names, where it is not\n"
        "                   what the suite says; its channels must be the suite's\n"
        "  dotted keys of the config schema, such as sampling.eval_temperature=1.0"
    ),
    example="vlarl eval tabletop-sft configs/rl/demo.yaml episodes=64 --json",
    run=run,
)
