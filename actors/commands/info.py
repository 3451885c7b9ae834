"""`vlarl info`: what there is, as a table or as data."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.commands.command import Command, Invocation, hint
from actors.commands.memory import SETTINGS, memory
from actors.commands.table import print_table
from envservers import environments
from vlarl.errors import UserError

if TYPE_CHECKING:
    from vlarl.embodiment import Embodiment


_PROJECTION_SETTINGS = {"projection", "embodiments"}


def run(invocation: Invocation) -> dict[str, Any]:
    """Print the topic."""
    topic, *rest = invocation.arguments
    if topic not in TOPICS:
        raise UserError(f"info: {topic}: no such topic. {hint(topic, TOPICS)}")
    if topic not in ("config", "model", "memory"):
        _only(invocation, topic, set())
    return TOPICS[topic](rest[0] if rest else "", invocation)


def _model(name: str, invocation: Invocation) -> dict[str, Any]:
    from vlarl.config.presets import preset_names
    from vlarl.model.parameters import breakdown, total
    from vlarl.model.presets import load_preset, modules_of
    from vlarl.model.qwen_vla import QwenVLA
    from vlarl.runs import checkpoint_of

    _only(invocation, "model", {"model", *_PROJECTION_SETTINGS})
    name = name or invocation.settings.get("model", "") or "tiny"
    found: dict[str, Any] = {"model": name, "presets": preset_names()}
    if _PROJECTION_SETTINGS & invocation.settings.keys():
        groups, found["projections"] = _projections(name, invocation)
    elif name in preset_names() or name.endswith((".yaml", ".yml")):
        groups = breakdown(*modules_of(load_preset(name)))
    else:
        close = difflib.get_close_matches(name, preset_names(), n=1)
        if close and not Path(name).is_dir():
            raise UserError(f"info model: {name}: no such preset. Did you mean {close[0]}?")
        model = QwenVLA.from_pretrained(checkpoint_of(name))
        groups = breakdown(model.backbone, model.expert, model.value_head)
        found["contract"] = model.contract.to_dict()
        cameras = ", ".join(f"{c.name} {c.width}x{c.height}" for c in model.contract.cameras)
        channels = len(model.contract.embodiment.channels)
        print(f"cameras: {cameras}")
        if model.contract.further_embodiments:
            names = ", ".join(embodiment.name for embodiment in model.contract.embodiments)
            print(f"embodiments: {names}")
        if model.contract.shows_state:
            print(f"state: {model.contract.state_dim} numbers, {model.contract.state_mode}")
        print(f"chunks: {model.contract.horizon} control steps of {channels} channels")
    for group, lines in groups.items():
        for line, count in lines.items():
            print(f"{group:<12} {line:<28} {count:>13,}")
        if len(lines) > 1:
            print(f"{group:<12} {'in all':<28} {sum(lines.values()):>13,}")
    print(f"{'parameters':<41} {total(groups):>13,}")
    return found | {"parts": groups, "parameters": total(groups)}


def _projections(name: str, invocation: Invocation) -> tuple[dict[str, Any], list[Any]]:
    """Print how the designs of section 5.2.2 compare; the parts of a model with the chosen one."""
    from vlarl.config.embodiments import load_embodiment
    from vlarl.model.expert_config import PROJECTIONS, ExpertConfig
    from vlarl.model.parameters import boundary, boundary_formula, breakdown
    from vlarl.model.presets import load_preset, modules_of

    chosen = invocation.settings.get("projection", PROJECTIONS[0])
    if chosen not in PROJECTIONS:
        raise UserError(f"info model: projection = {chosen}. {hint(chosen, PROJECTIONS)}")
    words = invocation.settings.get("embodiments", "").strip("[]").split(",")
    robots = [load_embodiment(word.strip()) for word in words if word.strip()]
    if not robots:
        raise UserError("info model: projection needs embodiments, such as embodiments=[a,b]")
    counts = tuple(len(robot.channels) for robot in robots)
    named = ", ".join(f"{robot.name} {count}" for robot, count in zip(robots, counts, strict=True))
    print(f"channels: {named}")
    preset = load_preset(name)
    rows: list[dict[str, Any]] = []
    groups: dict[str, Any] = {}
    for design in PROJECTIONS:
        several = () if design == "zero_pad" else counts
        own = {"projection": design, "channels": max(counts), "embodiments": several}
        config = ExpertConfig(**{**preset.expert, **own})
        modules = modules_of(preset, config)
        parts = breakdown(*modules)
        groups = parts if design == chosen else groups
        rows.append(
            {
                "projection": design,
                "formula": boundary_formula(config)[0],
                "expected": boundary_formula(config)[1],
                "boundary": boundary(modules.expert),
                "action projections": parts["expert"]["action projections"],
                "expert": sum(parts["expert"].values()),
            }
        )
    heads = tuple(rows[0])
    cells = ((f"{v:,}" if isinstance(v, int) else v for v in row.values()) for row in rows)
    print_table([heads, *(tuple(row) for row in cells)])
    print(f"\nwith {chosen}:")
    return groups, rows


def _memory(name: str, invocation: Invocation) -> dict[str, Any]:
    _only(invocation, "memory", set(SETTINGS))
    return memory(name, invocation)


def _only(invocation: Invocation, topic: str, allowed: set[str]) -> None:
    """Refuse settings that the topic does not take."""
    for key in invocation.settings:
        if key not in allowed:
            takes = f"only {', '.join(sorted(allowed))}" if allowed else "no settings"
            raise UserError(f"info {topic}: {key}: no such setting; it takes {takes}.")


def _suites(name: str, _invocation: Invocation) -> dict[str, Any]:
    from envservers.registry import describe_suite
    from envservers.suite_table import SUITES

    names = [name] if name else [suite for suite in SUITES if suite != "gym"]
    found: dict[str, Any] = {}
    for suite_name in names:
        spec = describe_suite(suite_name)
        found[suite_name] = {
            "tasks": list(spec.tasks),
            "cameras": {c.name: [c.height, c.width] for c in spec.cameras},
            "channels": [channel.name for channel in spec.channels],
            "embodiment": spec.embodiment,
            "control_hz": spec.control_hz,
            "max_steps": spec.max_steps,
            "environment": _environment(suite_name),
        }
        print(f"{suite_name}: {spec.embodiment}, {spec.control_hz:g} Hz, {spec.max_steps} steps")
        print(f"  cameras  {', '.join(f'{c.name} {c.width}x{c.height}' for c in spec.cameras)}")
        print(f"  channels {', '.join(channel.name for channel in spec.channels)}")
        print(f"  tasks    {', '.join(spec.tasks)}")
        if environment := _environment(suite_name):
            lacks = environments.problem(environment)
            print(f"  runs in  environment {environment}, {lacks or 'installed'}")
    if not name:
        print("gym:ID: any registered Gymnasium environment with images")
    return {"suites": found}


def _environment(suite: str) -> str:
    """The virtual environment that a suite runs in; empty: this one."""
    from envservers.registry import find_suite

    return find_suite(suite).environment


def _rewards(_name: str, _invocation: Invocation) -> dict[str, Any]:
    from vlarl.rewards import REWARDS

    found = {name: (function.__doc__ or "").splitlines()[0] for name, function in REWARDS.items()}
    _print_rows(list(found.items()))
    print("package.module:callable names your own; the current folder is searched too")
    return {"rewards": found}


def _embodiments(name: str, _invocation: Invocation) -> dict[str, Any]:
    from vlarl.config.embodiments import embodiment_names, load_embodiment
    from vlarl.prompt import prompt

    names = [name] if name else embodiment_names()
    found = [load_embodiment(reference) for reference in names]
    heads = ("NAME", "ROBOT", "ARMS", "HZ", "HORIZON", "CHANNELS", "CAMERAS")
    print_table([heads, *(_embodiment_row(embodiment) for embodiment in found)])
    prompts = {e.name: prompt(e, "{instruction}", e.horizon) for e in found}
    if name:
        (embodiment,) = found
        print()
        print_table(
            [
                (channel.name, channel.kind, f"{channel.low:g} to {channel.high:g} {channel.unit}")
                for channel in embodiment.channels
            ]
        )
        print(f"\n{prompts[embodiment.name]}")
    else:
        print("a robot of your own: `vlarl info embodiments FILE.yaml` checks its file")
    return {"embodiments": {e.name: {**e.to_dict(), "prompt": prompts[e.name]} for e in found}}


def _embodiment_row(embodiment: Embodiment) -> tuple[str, ...]:
    """Columns of the table of embodiments."""
    kinds = Counter(channel.kind for channel in embodiment.channels)
    arms = "dual" if embodiment.dual_arm else "single"
    return (
        embodiment.name,
        embodiment.robot_tag,
        "none" if embodiment.is_navigation else arms,
        f"{embodiment.control_hz:g}",
        str(embodiment.horizon),
        ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        ", ".join(embodiment.cameras),
    )


def _config(name: str, invocation: Invocation) -> dict[str, Any]:
    from vlarl.config.load import config_dict, config_yaml, load_config
    from vlarl.config.paths import configs_folder
    from vlarl.stages import STAGES

    config = load_config(name or None, invocation.overrides)
    print(config_yaml(config), end="")
    folder = configs_folder()
    files = sorted(
        f"configs/{file.relative_to(folder)}"
        for stage in (*STAGES, "mixtures")
        for file in (folder / stage).glob("*.yaml")
    )
    print(f"# shipped: {', '.join(files)}")
    return {"config": config_dict(config), "files": files}


def _metrics(_name: str, _invocation: Invocation) -> dict[str, Any]:
    from vlarl.metric_names import METRICS

    found = {
        name.replace("*", meaning.label.upper()): {"unit": meaning.unit, "text": meaning.text}
        for name, meaning in METRICS.items()
    }
    print_table([(name, row["unit"], row["text"]) for name, row in found.items()])
    return {"metrics": found}


def _print_rows(rows: list[tuple[str, str]]) -> None:
    for name, text in rows:
        print(f"{name:<14} {text}")


TOPICS: dict[str, Callable[[str, Invocation], dict[str, Any]]] = {
    "model": _model,
    "memory": _memory,
    "suites": _suites,
    "rewards": _rewards,
    "embodiments": _embodiments,
    "metrics": _metrics,
    "config": _config,
}

COMMAND = Command(
    usage="info TOPIC [NAME] [key=value ...]",
    arguments=("TOPIC",),
    optional=("NAME",),
    details=(
        "  model [NAME]         parameters part by part, of a preset, a checkpoint or a run; of a\n"
        "                       preset with embodiments=[a,b] projection=zero_pad (or multi_mlp,\n"
        "                       concatenation) how they share the layers at their channels\n"
        "  memory [NAME] [...]  bytes of a training step of each preset, computed: model, job\n"
        "                       (sft, lora, rl), dtype, checkpoint_activations, batch, decisions,\n"
        "                       image_size\n"
        "  suites [SUITE]       tasks, cameras, channels\n"
        "  rewards              reward functions\n"
        "  embodiments [NAME]   robots; of one (or of its file) all channels and the prompt\n"
        "  metrics              what the numbers of metrics.jsonl mean, and their units\n"
        "  config [FILE] [...]  every setting with its value, resolved and checked"
    ),
    example="vlarl info config configs/rl/tabletop.yaml ppo.epochs=2",
    run=run,
)
