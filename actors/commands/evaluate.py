"""`vlarl eval`: deterministic evaluation of a checkpoint on held-out initial states."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation

ALIASES = {
    "suite": "env.suite",
    "tasks": "env.tasks",
    "episodes": "evaluation.episodes",
    "seed": "evaluation.seed",
}


def run(invocation: Invocation) -> dict[str, Any]:
    """Evaluate and print the table."""
    from vlarl.config.load import load_config
    from vlarl.evaluation.report import plain_table
    from vlarl.runs import checkpoint_of

    checkpoint = checkpoint_of(invocation.arguments[0])
    config = load_config(None, invocation.overrides_with(ALIASES))
    from actors.evaluate_checkpoint import evaluate_checkpoint

    summary = evaluate_checkpoint(checkpoint, config)
    print(plain_table({"checkpoint": summary}))
    return summary


COMMAND = Command(
    usage="eval CHECKPOINT [suite=... tasks=... episodes=... seed=...]",
    arguments=("CHECKPOINT",),
    details=(
        "CHECKPOINT is a folder, a run (its last checkpoint), or `tabletop-sft`. The same seed\n"
        "gives the same initial states, and the same outcome for the same checkpoint.\n\n"
        "  suite            which suite (tabletop)\n"
        "  tasks            task names, such as a,b (all of the suite)\n"
        "  episodes         in all, spread evenly over the tasks (256)\n"
        "  seed             first seed of the held-out initial states (1000000)\n"
        "  dotted keys of the config schema, such as sampling.eval_temperature=1.0"
    ),
    example="vlarl eval tabletop-sft episodes=64 --json",
    run=run,
)
