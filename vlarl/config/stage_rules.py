"""Rules of the supervised stages: what a row of `vlarl.stages` allows, and the data of T2A."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.config.data_schema import DataConfig
from vlarl.config.embodiments import load_embodiment
from vlarl.config.problem import Problem
from vlarl.config.schema import ModelConfig, RunConfig, SupervisedConfig
from vlarl.errors import ConfigError
from vlarl.stages import STAGES, SUPERVISED

_T2A = "supervised.data.t2a"


def stage_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of `supervised` that concern the stage as such."""
    stage = config.supervised
    if stage.micro_batch < 0:
        key = "supervised.micro_batch"
        yield Problem(key, "must be at least 0", f"Try {key}=8, or 0: the whole batch.")
    largest = max(stage.batch_size, stage.grounding_batch_size, stage.conversation_batch_size)
    if stage.micro_batch > largest:
        remedy = "Use a smaller one, or leave it out."
        yield Problem("supervised.micro_batch", f"is above every batch ({largest})", remedy)
    if not 0 <= stage.ema < 1:
        remedy = "Try supervised.ema=0.999, or 0: no average."
        yield Problem("supervised.ema", "must lie in [0, 1)", remedy)
    yield from _weights(config)
    if config.stage in SUPERVISED:
        row = STAGES[config.stage]
        for part in stage.optimizer.learning_rates:
            if part not in row.trains and part != "value":
                remedy = f"Leave it out: {row.name} trains {', '.join(row.trains)}."
                key = f"supervised.optimizer.learning_rates.{part}"
                yield Problem(key, f"does not train in stage {row.name}", remedy)
    if config.stage == "t2a":
        yield from _text_to_action(stage)
        yield from _without_images(config)
    elif stage.data.t2a != DataConfig().t2a:
        for name in (
            "synthetic",
            "synthetic_hz",
            "real",
            "embodiment",
            "synthetic_share",
            "prediction",
        ):
            if getattr(stage.data.t2a, name) != getattr(DataConfig().t2a, name):
                remedy = "Remove it, or use stage=t2a."
                yield Problem(f"{_T2A}.{name}", f"has no effect with stage={config.stage}", remedy)


def _weights(config: RunConfig) -> Iterator[Problem]:
    model, key = config.model, "model.init.weights"
    if model.init.contract == "data":
        other = "" if config.stage in ("cpt", "sft") else f"with stage={config.stage}"
        lacking = "" if model.init.backbone else "without model.init.backbone"
        if other or lacking:
            yield Problem("model.init.contract", f"has no effect {other or lacking}", "Remove it.")
    if not model.init.weights:
        return
    for name in ("checkpoint", "backbone", "init.backbone", "init.expert"):
        owner = model.init if name.startswith("init.") else model
        if getattr(owner, name.removeprefix("init.")):
            remedy = f"Remove it, or {key}."
            yield Problem(f"model.{name}", f"says otherwise than {key} whose weights", remedy)
    if model.preset != ModelConfig().preset:
        remedy = "Remove it: the checkpoint has its sizes."
        yield Problem("model.preset", f"has no effect with {key}", remedy)
    if config.stage not in ("cpt", "sft"):
        remedy = "Use model.checkpoint, or for stage=t2a model.init.backbone."
        yield Problem(key, f"has no effect with stage={config.stage}", remedy)


def _text_to_action(stage: SupervisedConfig) -> Iterator[Problem]:
    data = stage.data.t2a
    if not (data.synthetic or data.real):
        remedy = f"Try {_T2A}.synthetic=DIR, made by: vlarl synth t2a out=DIR"
        yield Problem(f"{_T2A}.synthetic", "is empty, and so is real: nothing to learn", remedy)
    if data.prediction not in ("trajectory", "chunk"):
        yield Problem(f"{_T2A}.prediction", "no such choice", "Choose one of: trajectory, chunk.")
    recorded = DataConfig().t2a.synthetic_hz
    if not 0 < data.synthetic_hz <= recorded or recorded % data.synthetic_hz:
        problem = f"is no whole fraction of the {recorded:g} Hz of the records"
        yield Problem(f"{_T2A}.synthetic_hz", problem, "Try 10, or leave it out.")
    if not 0 <= data.synthetic_share <= 1:
        remedy = "The default is 0.2."
        yield Problem(f"{_T2A}.synthetic_share", "must lie between 0 and 1", remedy)
    if data.synthetic_share != 0.2 and not (data.synthetic and data.real):
        remedy = "Name both, or leave it out."
        yield Problem(f"{_T2A}.synthetic_share", "has no effect without both sources", remedy)
    if data.real and not data.embodiment:
        remedy = "Name one: `vlarl info embodiments` lists them."
        yield Problem(f"{_T2A}.embodiment", "is needed: whose actions are those of real?", remedy)
    if data.embodiment and not data.real:
        yield Problem(f"{_T2A}.embodiment", "has no effect without real", "Remove it.")
    elif data.embodiment:
        try:
            load_embodiment(data.embodiment)
        except ConfigError as error:
            yield Problem(f"{_T2A}.embodiment", "names no robot", str(error))


def _without_images(config: RunConfig) -> Iterator[Problem]:
    """Settings of T2A that would need an image or a simulator."""
    stage, model = config.supervised, config.model
    given = {
        "model.checkpoint": model.checkpoint,
        "model.init.expert": model.init.expert,
        "supervised.data.path": stage.data.path,
        "supervised.data.mixture": stage.data.mixture,
        "supervised.data.grounding_images": stage.data.grounding_images,
        "supervised.data.conversations": stage.data.conversations,
        "supervised.grounding_batch_size": stage.grounding_batch_size,
        "supervised.eval_every": stage.eval_every,
        "supervised.expert_only_steps": stage.expert_only_steps,
    }
    for key, value in given.items():
        if value:
            yield Problem(key, "has no effect with stage=t2a", "Remove it.")
