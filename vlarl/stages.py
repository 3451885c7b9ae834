"""The stages of training, one row each (paper sections 3.1, 4.1 and 4.2).

A config file says how a stage is run; a row says what makes it that stage. What may train is a rule
of the config (`vlarl.config.stage_rules`); the rest is the recipe, which a file may leave for an
ablation, and which what ships is held against by a test.
"""

from __future__ import annotations

from dataclasses import dataclass

BACKBONE = ("vision", "language", "lora")
EXPERT = ("expert", "expert_biases")


@dataclass(frozen=True)
class Stage:
    """One row: what may train, on what, from where."""

    name: str
    trains: tuple[str, ...]
    """Parts that may have a learning rate."""
    losses: tuple[str, ...]
    tau: str
    """Distribution of flow times in the paper's recipe; RL has none."""
    predicts: str
    """What an action tensor holds."""
    images: bool
    starts_from: str
    """The stage before it in the paper's recipe."""


_ALL = (*BACKBONE, *EXPERT)
STAGES = {
    row.name: row
    for row in (
        Stage("t2a", EXPERT, ("action",), "logit_normal", "trajectory", False, "Qwen3.5"),
        Stage("cpt", _ALL, ("action", "vision-language"), "beta", "chunk", True, "t2a"),
        Stage("sft", _ALL, ("action", "vision-language"), "beta", "chunk", True, "cpt"),
        Stage("rl", (*_ALL, "value"), ("policy", "value"), "", "chunk", True, "sft"),
    )
}

SUPERVISED = ("t2a", "cpt", "sft")
"""Those of the supervised trainer, in order."""
