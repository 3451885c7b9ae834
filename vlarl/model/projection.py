"""Action chunks <-> the expert's width, for one embodiment or several (paper section 5.2.2).

All designs read and write the padded action tensor, in which an embodiment has the leading `d_i` of
`K` channels. `zero_pad`: one encoder and decoder on the `K` channels. `multi_mlp`: a private pair
for each embodiment. `concatenation`: one pair on `sum(d_i)` channels, of which each embodiment has
a segment.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from vlarl.model.expert_config import ExpertConfig

Rows = slice | Tensor


def make_encoder(config: ExpertConfig) -> nn.Module:
    """From channels to the width."""
    if config.projection == "multi_mlp":
        return nn.ModuleList(_mlp(count, config.width, config.width) for count in config.counts)
    return _mlp(_joined_channels(config), config.width, config.width)


def make_decoder(config: ExpertConfig) -> nn.Module:
    """From the width to channels."""
    if config.projection == "multi_mlp":
        return nn.ModuleList(_mlp(config.width, config.width, count) for count in config.counts)
    return _mlp(config.width, config.width, _joined_channels(config))


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, outputs))


def _joined_channels(config: ExpertConfig) -> int:
    """Of the one pair that all embodiments share."""
    return sum(config.counts) if config.projection == "concatenation" else config.channels


def first_layers(encoder: nn.Module) -> list[nn.Linear]:
    """The layers that read channels."""
    return [cast("nn.Linear", mlp[0]) for mlp in _mlps(encoder)]


def last_layers(decoder: nn.Module) -> list[nn.Linear]:
    """The layers that write channels."""
    return [cast("nn.Linear", mlp[-1]) for mlp in _mlps(decoder)]


def _mlps(module: nn.Module) -> list[nn.Sequential]:
    pairs = list(module) if isinstance(module, nn.ModuleList) else [module]
    return cast("list[nn.Sequential]", pairs)


def encoded(
    encoder: nn.Module, config: ExpertConfig, actions: Tensor, which: Tensor | None
) -> Tensor:
    """Action tokens [B, H, W] of `actions` [B, H, K], zero where padded.

    `which` [B] is the embodiment of each row; None: all are of the first.
    """
    if config.projection == "zero_pad":
        return cast("Tensor", encoder(actions))
    if config.projection == "concatenation":
        joined = actions.new_zeros(*actions.shape[:2], sum(config.counts))
        for index, rows in _rows(which):
            joined[rows, :, _segment(config, index)] = actions[rows, :, : config.counts[index]]
        return cast("Tensor", encoder(joined))
    tokens = actions.new_empty(*actions.shape[:2], config.width)
    for index, rows in _rows(which):
        tokens[rows] = _mlps(encoder)[index](actions[rows, :, : config.counts[index]])
    return tokens


def decoded(
    decoder: nn.Module, config: ExpertConfig, tokens: Tensor, which: Tensor | None
) -> Tensor:
    """Velocities [B, H, K] of `tokens` [B, H, W]; as `encoded`.

    Beyond an embodiment's own channels they are zero, but with `zero_pad` arbitrary.
    """
    if config.projection == "zero_pad":
        return cast("Tensor", decoder(tokens))
    joined = decoder(tokens) if config.projection == "concatenation" else None
    velocity = tokens.new_zeros(*tokens.shape[:2], config.channels)
    for index, rows in _rows(which):
        if joined is None:
            own = _mlps(decoder)[index](tokens[rows])
        else:
            own = joined[rows, :, _segment(config, index)]
        velocity[rows, :, : config.counts[index]] = own
    return velocity


def _segment(config: ExpertConfig, index: int) -> slice:
    """Where an embodiment's channels are among all embodiments'."""
    start = sum(config.counts[:index])
    return slice(start, start + config.counts[index])


def _rows(which: Tensor | None) -> list[tuple[int, Rows]]:
    """Each embodiment that is in the batch, with its rows."""
    if which is None:
        return [(0, slice(None))]
    present: list[int] = which.unique().tolist()
    if len(present) == 1:
        return [(present[0], slice(None))]
    return [(index, (which == index).nonzero().squeeze(1)) for index in present]
