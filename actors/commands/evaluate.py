"""`vlarl eval`: deterministic evaluation of a checkpoint on held-out initial states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.commands.command import Command, Invocation, hint, one_of
from vlarl.errors import UserError

if TYPE_CHECKING:
    from vlarl.config.schema import RunConfig

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


WS = ("ws.observation", "ws.actions", "ws.deadline_seconds")
"""What an evaluation of a policy server takes."""


def run(invocation: Invocation) -> dict[str, Any]:
    """Evaluate and print the table."""
    if invocation.arguments[0].startswith(("ws://", "wss://")):
        return _of_server(invocation)
    for key in invocation.settings:
        if key.startswith("ws."):
            raise UserError(f"{key} has an effect with a policy server alone: eval ws://HOST:PORT")
    from actors.evaluate_checkpoint import evaluate_checkpoint
    from vlarl.runs import checkpoint_of

    settings = dict(invocation.settings)
    against = checkpoint_of(settings.pop("against")) if "against" in settings else None
    checkpoint, source, config = config_of(Invocation(invocation.arguments, settings))
    before = None if against is None else evaluate_checkpoint(against, config)
    summary = evaluate_checkpoint(checkpoint, config)
    _print("checkpoint", summary)
    answer = summary | {"config": None if source is None else str(source)}
    if before is not None:
        answer |= _compared(before, summary)
    if source is not None:
        print(f"Episodes and sampling as in {source}.")
    return answer


def _compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Print how the two differ, episode by episode."""
    from actors.gains import print_gains
    from vlarl.evaluation.results import compare

    paired = compare(before, after)
    print_gains(before, after, paired, "against", "checkpoint")
    return {"against": before, "paired": paired}


def _print(heading: str, summary: Mapping[str, Any]) -> None:
    from vlarl.evaluation.report import plain_metrics, plain_table

    print(plain_table({heading: summary}))
    if beside := plain_metrics(summary):
        print(f"\n{beside}")


def config_of(invocation: Invocation) -> tuple[str, str | Path | None, RunConfig]:
    """Checkpoint, where the settings come from, and the settings: those of `CHECKPOINT [CONFIG]`.

    Raises:
        UserError: for a checkpoint that is not there, or a wrong setting.
    """
    from vlarl.runs import checkpoint_of

    name, *rest = invocation.arguments
    checkpoint = checkpoint_of(name)
    source = rest[0] if rest else _run_of(name)
    return checkpoint, source, _config(source, invocation.settings)


def _config(source: str | Path | None, given: Mapping[str, str]) -> RunConfig:
    """The settings of an evaluation, with tasks and episodes of the protocol, if one is given."""
    from vlarl.config.load import load_config

    settings = {key: text for key, text in given.items() if key != "protocol"}
    overrides = ["stage=eval", *Invocation((), settings).overrides_with(ALIASES)]
    config = load_config(source, overrides, only=SETTINGS)
    if "protocol" not in given:
        return config
    overrides += _of_protocol(given, config.env.suite)
    return load_config(source, overrides, only=SETTINGS)


def _of_protocol(given: Mapping[str, str], suite: str) -> list[str]:
    """Tasks and episodes of the suite's protocol, as settings.

    Raises:
        UserError: for an unknown one, or if they are given besides.
    """
    from envservers.task_groups import expand, find_protocol

    name = given["protocol"]
    for key in ("tasks", "episodes", "env.tasks", "evaluation.episodes"):
        if key in given:
            raise UserError(f"eval: protocol={name} says which {key}; leave one of the two out.")
    protocol = find_protocol(suite, name)
    tasks = expand(suite, protocol.tasks)
    episodes = protocol.episodes * len(tasks)
    return [f"env.tasks=[{','.join(tasks)}]", f"evaluation.episodes={episodes}"]


def _of_server(invocation: Invocation) -> dict[str, Any]:
    """Evaluate the policy behind a websocket."""
    address, *rest = invocation.arguments
    settings = dict(invocation.settings)
    told = {key: settings.pop(key) for key in WS if key in settings}
    for key in settings:
        if key.startswith("ws."):
            raise UserError(f"{key}: no such setting. {hint(key, WS)}")
        if key == "against":
            raise UserError("against has an effect with a checkpoint alone, not with a server")
        if key.startswith("sampling.") and key != "sampling.execute_steps":
            raise UserError(f"{key} has no effect: {address} samples, not this evaluation.")
    config = _config(rest[0] if rest else None, settings)
    from actors.evaluate_server import ServerSettings, evaluate_server
    from actors.harness.action_units import UNITS

    usual = ServerSettings()
    deadline = told.get("ws.deadline_seconds", f"{usual.deadline_seconds:g}")
    units = one_of(told, "ws.actions", usual.actions, UNITS)
    keys = told.get("ws.observation", usual.observation)
    summary = evaluate_server(address, config, ServerSettings(keys, units, _seconds(deadline)))
    _print(address, summary)
    return summary | {"server": address, "config": rest[0] if rest else None}


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"ws.deadline_seconds = {text!r}: must be seconds, above 0.")
    return seconds


def _run_of(name: str) -> Path | None:
    """The run folder that a checkpoint lies in, or that is named itself."""
    for folder in (Path(name), Path(name).parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return folder
    return None


COMMAND = Command(
    usage="eval CHECKPOINT|ws://HOST:PORT [CONFIG] [suite=... tasks=... episodes=... seed=...]",
    arguments=("CHECKPOINT",),
    optional=("CONFIG",),
    details=(
        "CHECKPOINT is a folder, a run (its last checkpoint), or `tabletop-sft`. The same seed\n"
        "gives the same initial states, and the same outcome for the same checkpoint. Episodes\n"
        "and sampling are those of CONFIG (a YAML file or a run), without it those of the run\n"
        "that the checkpoint lies in, else the defaults.\n\n"
        "ws://HOST:PORT is another's policy, behind openpi's protocol (or `vlarl serve`): it is\n"
        "shown our environments, and the first sampling.execute_steps of each chunk are executed.\n"
        "\n"
        "  suite            which suite (tabletop)\n"
        "  tasks            names of tasks, or of groups of them, such as a,b (all of the suite)\n"
        "  protocol         tasks and episodes of a suite's published tables, such as MT50 of\n"
        "                   metaworld, instead of tasks and episodes\n"
        "  episodes         in all, spread evenly over the tasks (256)\n"
        "  seed             first seed of the held-out initial states (1000000)\n"
        "  against          another checkpoint, evaluated first on the same episodes: the gain\n"
        "                   over it, with its interval\n"
        "  embodiment       name or YAML file of the robot that the prompt names, where it is not\n"
        "                   what the suite says; its channels must be the suite's\n"
        "  ws.observation   what a policy server calls what it is shown: libero, or a mapping as\n"
        "                   '{KEY: ego, KEY: cam_right_wrist, KEY: state, KEY: instruction}'\n"
        "                   (openpi)\n"
        "  ws.actions       units of its actions: simulator, or normalized: -1 to 1 between the\n"
        "                   bounds of each channel (simulator)\n"
        "  ws.deadline_seconds  for each of its answers (120)\n"
        "  dotted keys of the config schema, such as sampling.eval_temperature=1.0"
    ),
    example="vlarl eval tabletop-sft configs/rl/demo.yaml episodes=64 --json",
    run=run,
)
