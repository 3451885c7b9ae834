"""Rules of `supervised.data.mixture`: what a source needs, and what the whole stands instead of."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vlarl.config.checks import choice, sections_without_effect, without_effect
from vlarl.config.data_schema import SourceConfig
from vlarl.config.dataset_rules import camera_problems, robot_problems
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig

KINDS = ("robot", "human", "navigation", "conversations")
_KEY = "supervised.data.mixture"
_REPLACED = (
    "supervised.data.path",
    "supervised.data.embodiment",
    "supervised.data.cameras",
    "supervised.data.eigengrasps",
    "supervised.data.conversations",
    "supervised.data.grounding_images",
    "supervised.conversation_batch_size",
    "supervised.grounding_batch_size",
    "supervised.localization.steps",
    "supervised.context_gigabytes",
    "model.history",
    "model.state",
)
_BACKBONE = {"vision", "language", "lora"}
_EXPERT = {"expert", "expert_biases"}


def mixture_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of the mixture, of its sources, and of the settings beside it."""
    mixture = config.supervised.data.mixture
    if mixture is None:
        return
    if not mixture:
        remedy = "Name sources: {NAME: {path: FOLDER, kind: robot, weight: 1}}, or leave it out."
        yield Problem(_KEY, "an empty mixture", remedy)
    for name in mixture:
        if not name.strip() or "." in name:
            remedy = "Settings are named by dots: call it something without."
            yield Problem(_KEY, f"{name!r} is no name for a source", remedy)
    for name, source in mixture.items():
        yield from _source(config, f"{_KEY}.{name}", source)
    if not any(source.weight for source in mixture.values()):
        yield Problem(_KEY, "all weights are zero", "Give one source a weight above zero.")
    fits = {source.eigengrasps for source in mixture.values() if source.kind == "human"}
    if len(fits) > 1:
        remedy = "Fit them once, to all recordings: vlarl data hands."
        yield Problem(_KEY, "human sources have different eigengrasps", remedy)
    yield from without_effect(config, _REPLACED, _KEY)
    yield from sections_without_effect(config, "supervised.collect", _KEY)
    yield from _losses(config, mixture)


def _source(config: RunConfig, key: str, source: SourceConfig) -> Iterator[Problem]:
    yield from choice(config, f"{key}.kind", KINDS)
    if not (math.isfinite(source.weight) and source.weight >= 0):
        remedy = "Weights are relative to each other: 74.2 and 6.0, or 0 to leave a source out."
        yield Problem(f"{key}.weight", "must be a finite number, at least 0", remedy)
    if not source.path:
        yield Problem(f"{key}.path", "is empty", "Name a dataset, or a file of conversations.")
    if source.kind == "human" and not source.eigengrasps:
        remedy = f"Make them: vlarl data hands {source.path or 'DATASET'} out=hands.json."
        yield Problem(f"{key}.eigengrasps", "is needed by kind=human", remedy)
    if source.kind != "human" and source.eigengrasps:
        yield Problem(f"{key}.eigengrasps", f"has no effect with kind={source.kind}", "Remove it.")
    if source.embodiment and source.kind in ("human", "conversations"):
        yield Problem(f"{key}.embodiment", f"has no effect with kind={source.kind}", "Remove it.")
    else:
        yield from robot_problems(f"{key}.embodiment", source.embodiment)
    if source.cameras and source.kind in ("human", "conversations"):
        yield Problem(f"{key}.cameras", f"has no effect with kind={source.kind}", "Remove it.")
    yield from camera_problems(f"{key}.cameras", source.cameras)


def _losses(config: RunConfig, mixture: dict[str, SourceConfig]) -> Iterator[Problem]:
    """Every source has a loss with weight, and something that it trains."""
    stage, kinds = config.supervised, {s.kind for s in mixture.values() if s.weight}
    rates, key = stage.optimizer.learning_rates, "supervised.optimizer.learning_rates"
    if "conversations" in kinds:
        if not stage.vision_language_weight > 0:
            remedy = "Try 0.1, or leave the conversations out."
            yield Problem("supervised.vision_language_weight", "is zero beside sources", remedy)
        if not _BACKBONE & rates.keys():
            remedy = "Give a rate for vision or language, or leave the conversations out."
            yield Problem(key, "trains nothing by conversations", remedy)
    if kinds - {"conversations"} and not stage.action_weight > 0:
        remedy = "Try 1, or leave the sources with actions out."
        yield Problem("supervised.action_weight", "is zero beside sources", remedy)
    if kinds == {"conversations"} and _EXPERT & rates.keys():
        remedy = "Give rates for vision and language alone, or add a source with actions."
        yield Problem(key, "has a rate for the expert, but no source has actions", remedy)
