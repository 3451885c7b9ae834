"""Counts parameters part by part, in the paper's own terms (section 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import nn
from transformers import Qwen3_5ForConditionalGeneration

from vlarl.model.dit import ActionExpert
from vlarl.model.dit_block import Block
from vlarl.model.expert_config import ExpertConfig
from vlarl.model.lora import adapters_of
from vlarl.model.projection import first_layers, last_layers


def count(parameters: Iterable[nn.Parameter]) -> int:
    """Numbers in all of these; a tied one counts once."""
    return sum({id(parameter): parameter.numel() for parameter in parameters}.values())


def breakdown(
    backbone: Qwen3_5ForConditionalGeneration, expert: ActionExpert, value_head: nn.Module
) -> dict[str, dict[str, int]]:
    """Group -> line -> count; the lines of a group add up to its size.

    Works on any device, the meta device included.
    """
    adapters = adapters_of(backbone)
    vision = count(backbone.model.visual.parameters()) - count(adapters_of(backbone.model.visual))
    blocks = cast("list[Block]", list(expert.blocks))
    lines = {
        f"blocks ({len(blocks)} x {count(blocks[0].parameters()):,})": count(
            expert.blocks.parameters()
        ),
        "action projections": count(
            [*expert.action_in.parameters(), *expert.action_out.parameters()]
        ),
        "context projection": count(expert.context_in.parameters()),
        "timestep embedding": count(expert.timestep.parameters()),
        "output modulation": count(expert.modulation.parameters()),
    }
    if expert.state_in is not None:
        lines["state token"] = count(expert.state_in.parameters())
    if expert.summary_in is not None:
        lines["context summary"] = count(expert.summary_in.parameters())
    parts = {
        "vision tower": vision,
        "language model": count(backbone.parameters()) - vision - count(adapters),
    }
    return {
        "backbone": parts | ({"adapters": count(adapters)} if adapters else {}),
        "expert": lines,
        "value head": {"value head": count(value_head.parameters())},
    }


def boundary(expert: ActionExpert) -> int:
    """Weights of the layers at the channels: the first ones and the last ones, without biases.

    What the formulas of section 5.2.2 count. The action projections have more: biases, and beside
    each of these layers one of width times width.
    """
    layers = [*first_layers(expert.action_in), *last_layers(expert.action_out)]
    return sum(layer.weight.numel() for layer in layers)


def boundary_formula(config: ExpertConfig) -> tuple[str, int]:
    """The formula of section 5.2.2 for this projection, and what it comes to."""
    if config.projection == "zero_pad":
        return "2 h d_max", 2 * config.width * config.channels
    return "2 h sum(d_i)", 2 * config.width * sum(config.counts)


def total(groups: dict[str, dict[str, int]]) -> int:
    """Numbers in all groups."""
    return sum(sum(lines.values()) for lines in groups.values())
