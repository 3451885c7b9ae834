"""`vlarl eval`: deterministic evaluation of a checkpoint on held-out initial states."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation
from vlarl.errors import UserError

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
    settings = {key: text for key, text in invocation.settings.items() if key != "protocol"}
    given = dataclasses.replace(invocation, settings=settings).overrides_with(ALIASES)
    overrides = ["stage=eval", *given]
    config = load_config(source, overrides, only=SETTINGS)
    if "protocol" in invocation.settings:
        overrides += _of_protocol(invocation, config.env.suite)
        config = load_config(source, overrides, only=SETTINGS)
    from actors.evaluate_checkpoint import evaluate_checkpoint

    summary = evaluate_checkpoint(checkpoint, config)
    print(plain_table({"checkpoint": summary}))
    if source is not None:
        print(f"Episodes and sampling as in {source}.")
    return summary | {"config": None if source is None else str(source)}


def _of_protocol(invocation: Invocation, suite: str) -> list[str]:
    """Tasks and episodes of the suite's protocol, as settings.

    Raises:
        UserError: for an unknown one, or if they are given besides.
    """
    from envservers.task_groups import expand, find_protocol

    name = invocation.settings["protocol"]
    for key in ("tasks", "episodes", "env.tasks", "evaluation.episodes"):
        if key in invocation.settings:
            raise UserError(f"eval: protocol={name} says which {key}; leave one of the two out.")
    protocol = find_protocol(suite, name)
    tasks = expand(suite, protocol.tasks)
    episodes = protocol.episodes * len(tasks)
    return [f"env.tasks=[{','.join(tasks)}]", f"evaluation.episodes={episodes}"]


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
        "  tasks            names of tasks, or of groups of them, such as a,b (all of the suite)\n"
        "  protocol         tasks and episodes of a suite's published tables, such as MT50 of\n"
        "                   metaworld, instead of tasks and episodes\n"
        "  episodes         in all, spread evenly over the tasks (256)\n"
        "  seed             first seed of the held-out initial states (1000000)\n"
        "  embodiment       name or YAML file of the robot that the prompt names, where it is not\n"
        "                   what the suite says; its channels must be the suite's\n"
        "  dotted keys of the config schema, such as sampling.eval_temperature=1.0"
    ),
    example="vlarl eval tabletop-sft configs/rl/demo.yaml episodes=64 --json",
    run=run,
)
