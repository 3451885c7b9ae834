"""`vlarl info memory`: what a training step of each preset takes, computed without that memory."""

from __future__ import annotations

import dataclasses
from typing import Any

from actors.commands.command import Invocation, hint, whole_number
from vlarl.errors import UserError

SETTINGS = (
    "model",
    "job",
    "dtype",
    "checkpoint_activations",
    "batch",
    "decisions",
    "image_size",
    "learners",
)
_COLUMNS = ("weights", "masters", "optimizer", "gradients", "activations", "handed")


def memory(name: str, invocation: Invocation) -> dict[str, Any]:
    """Print the table of one preset, or of all that ship.

    Raises:
        UserError: for a setting that makes no sense.
    """
    from learners.memory import JOBS, footprint
    from vlarl.config.presets import preset_names
    from vlarl.config.schema import ModelConfig

    settings = invocation.settings
    name = name or settings.get("model", "")
    dtype = _chosen(settings.get("dtype", "bfloat16"), "dtype", ("float32", "bfloat16"))
    again = _chosen(
        settings.get("checkpoint_activations", "true"), "checkpoint_activations", ("true", "false")
    )
    job = settings.get("job", "")
    jobs = (_chosen(job, "job", tuple(JOBS)),) if job else tuple(JOBS)
    batch = whole_number(settings, "batch", 8)
    decisions = whole_number(settings, "decisions", 1024)
    learners = whole_number(settings, "learners", 1)
    model = ModelConfig(dtype=dtype, checkpoint_activations=again == "true")
    print(
        f"MiB at dtype={dtype}, checkpoint_activations={again}, batch={batch}, "
        f"decisions={decisions}"
    )
    columns = [*_COLUMNS, "peak"]
    if learners > 1:
        columns.insert(-1, "gathered")
        print(f"of each of {learners} learners, the model divided among them")
    print(f"{'preset':<14} {'job':<5}" + "".join(f"{column:>12}" for column in columns))
    found: dict[str, dict[str, dict[str, int]]] = {}
    for preset in [name] if name else preset_names():
        size = whole_number(settings, "image_size", 64 if preset.startswith("tiny") else 224)
        for each in jobs:
            taken = footprint(preset, each, model, batch, decisions, size, learners=learners)
            numbers = dataclasses.asdict(taken)
            found.setdefault(preset, {})[each] = numbers
            cells = "".join(f"{numbers[column] / 2**20:>12,.0f}" for column in columns)
            print(f"{preset:<14} {each:<5}{cells}", flush=True)
    return {"bytes": found, "dtype": dtype, "checkpoint_activations": again == "true"}


def _chosen(value: str, key: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UserError(f"info memory: {key} = {value!r}: no such choice. {hint(value, allowed)}")
    return value
