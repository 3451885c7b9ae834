"""`vlarl collect`: demonstrations by the scripted expert of a suite."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation
from vlarl.errors import UserError

ALIASES = {
    "tasks": "env.tasks",
    "num_envs": "env.envs_per_server",
    "servers": "env.servers",
    "image_size": "env.image_size",
    "episodes": "supervised.collect.episodes",
    "seed": "supervised.collect.seed",
    "waypoint_noise": "supervised.collect.waypoint_noise",
    "action_noise": "supervised.collect.action_noise",
    "slowest_pace": "supervised.collect.slowest_pace",
    "clumsy_steps": "supervised.collect.clumsy_steps",
    "max_steps": "supervised.collect.max_steps",
    "frame": "env.options.frame",
    "options": "env.options",
    "keep_failures": "supervised.collect.keep_failures",
}
SETTINGS = {
    "out": "dataset folder to write; must not exist",
    "tasks": "task names, such as a,b (all of the suite)",
    "episodes": "in all, spread evenly over the tasks (400)",
    "seed": "of scenes and noise (0)",
    "waypoint_noise": "standard deviation of grasp and place points, in meters (0)",
    "action_noise": "standard deviation of action noise (0)",
    "clumsy_steps": "longest clumsy, unrecorded beginning of half of the episodes (0)",
    "slowest_pace": "of the episodes' random speeds, as a fraction of the arm's (1)",
    "max_steps": "control steps that an episode may take (the suite's limit)",
    "frame": "of tabletop's commanded motions: world or base (world)",
    "keep_failures": "whether failed episodes are kept (false)",
    "num_envs": "episodes that run at once (16; 2 in each server)",
    "servers": "processes, of a suite with an environment of its own (2)",
    "options": "further options of the suite, such as '{action_repeat: 2}'",
    "image_size": "pixels (64)",
}


def run(invocation: Invocation) -> dict[str, Any]:
    """Collect, with a progress bar."""
    from actors.collect import collect
    from actors.experts import is_served
    from vlarl.config.load import load_config
    from vlarl.progress import Progress

    settings = dict(invocation.settings)
    out = settings.pop("out", "")
    if not out:
        raise UserError("collect needs out=DIR, the dataset folder to write.")
    overrides = Invocation(settings=settings).overrides_with(ALIASES)
    config = load_config(None, ["stage=sft", *overrides])
    demonstrations = config.supervised.collect
    # What is quick in this process, and in servers, is not the same number.
    served = is_served(invocation.arguments[0]) and "num_envs" not in settings
    with Progress("collecting", demonstrations.episodes, "episodes") as progress:
        result = collect(
            invocation.arguments[0],
            out,
            demonstrations,
            tasks=config.env.tasks,
            num_envs=None if served else config.env.envs_per_server,
            image_size=config.env.image_size,
            progress=lambda kept, _wanted: progress.reach(kept),
            options=config.env.options,
            servers=config.env.servers,
        )
    print(f"{result.episodes} episodes, {result.frames} frames in {out}")
    return {
        "episodes": result.episodes,
        "frames": result.frames,
        "success_rate": result.success_rate,
        "out": out,
    }


COMMAND = Command(
    usage="collect SUITE out=DIR [tasks=... episodes=...]",
    arguments=("SUITE",),
    settings=SETTINGS,
    details=(
        "Runs the scripted expert of SUITE and writes a LeRobot v3 dataset. Failed episodes are\n"
        "made anew. Where the expert runs in env servers, action_noise persists for some control\n"
        "steps, spares the gripper, and is not recorded: what is recorded is the expert's answer."
    ),
    example="vlarl collect tabletop out=datasets/tabletop episodes=400 waypoint_noise=0.01",
    run=run,
)
