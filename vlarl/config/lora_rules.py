"""Rules of `model.lora`: adapters train, and the weights under them do not."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.config.problem import Problem
from vlarl.config.schema import LoraConfig, RunConfig

_KEY = "model.lora"


def lora_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of the adapters' settings and of the learning rates beside them."""
    lora, model = config.model.lora, config.model
    if lora.rank < 0:
        yield Problem(f"{_KEY}.rank", "must be at least 0", "Try model.lora.rank=16, or 0: none.")
    if lora.alpha < 1:
        yield Problem(f"{_KEY}.alpha", "must be at least 1", f"The default is {LoraConfig.alpha}.")
    if not lora.targets:
        yield Problem(f"{_KEY}.targets", "names no layer", f"The default is {LoraConfig.targets}.")
    if lora.rank == 0:
        for name in ("alpha", "targets"):
            if getattr(lora, name) != getattr(LoraConfig(), name):
                remedy = "Remove it, or try model.lora.rank=16."
                yield Problem(f"{_KEY}.{name}", "has no effect with model.lora.rank=0", remedy)
    sections = {
        "rl": ("ppo", config.ppo.optimizer),
        "cpt": ("supervised", config.supervised.optimizer),
        "sft": ("supervised", config.supervised.optimizer),
    }
    if config.stage not in sections:
        return
    section, optimizer = sections[config.stage]
    rates, key = optimizer.learning_rates, f"{section}.optimizer.learning_rates"
    if lora.rank > 0 and "lora" not in rates:
        yield Problem(f"{_KEY}.rank", "makes adapters that do not learn", f"Add {key}.lora=1e-4.")
    if "lora" in rates:
        for part in ("vision", "language"):
            if part in rates:
                remedy = "Leave it out: adapters learn instead of the weights under them."
                yield Problem(f"{key}.{part}", "stands beside a rate for lora", remedy)
    if (
        lora.rank == 0
        and "lora" in rates
        and not (model.checkpoint or model.init.backbone or model.init.weights)
    ):
        remedy = "Try model.lora.rank=16, or leave the part out."
        yield Problem(f"{key}.lora", "has no adapters to train", remedy)
