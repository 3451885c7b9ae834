"""A block of the action expert: joint attention and an MLP, gated by AdaLN-Zero (paper 2.2).

`Block` as a module is the paper's single stream. Its methods from `prefix` on are of the variant in
which the context passes through the blocks by itself. What comes first and last is in `dit.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlarl.model.expert_config import ExpertConfig

_NORM_EPSILON = 1e-6


def normalize(hidden: Tensor) -> Tensor:
    """Layer normalization without parameters: shift and scale come from AdaLN."""
    return F.layer_norm(hidden, hidden.shape[-1:], eps=_NORM_EPSILON)


def modulate(hidden: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN: normalize `hidden` [B, n, W], then scale and shift it by [B, 1, W]."""
    return torch.addcmul(shift, normalize(hidden), 1 + scale)


def rotate(tensor: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of [B, heads, n, head_dim] by [B, n, rotary_dim] cosines and sines.

    The same numbers as transformers' `apply_rotary_pos_emb`, whose halves of each table are alike,
    with fewer copies.
    """
    half = cosine.shape[-1] // 2
    cosine, sine = cosine[:, None, :, :half], sine[:, None, :, :half]
    first, second, rest = tensor.split([half, half, tensor.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)


class Block(nn.Module):
    """Joint bidirectional attention and a GELU MLP, both gated by AdaLN-Zero."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        width, inner = config.width, config.heads * config.head_dim
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.query_norm = nn.RMSNorm(config.head_dim, eps=_NORM_EPSILON)
        self.key_norm = nn.RMSNorm(config.head_dim, eps=_NORM_EPSILON)
        self.attention_out = nn.Linear(inner, width)
        self.mlp_in = nn.Linear(width, config.mlp_ratio * width)
        self.mlp_out = nn.Linear(config.mlp_ratio * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """[B, W] -> shift, scale, gate of attention, then of the MLP, [B, 1, W] each."""
        return self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, dim=-1)

    def project(
        self, hidden: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B, n, W] -> rotated queries and keys, and values: [B, heads, n, head_dim] each."""
        batch, length, _ = hidden.shape
        query, key, value = (
            self.qkv(hidden).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        return rotate(self.query_norm(query), *rotary), rotate(self.key_norm(key), *rotary), value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """Attention output [B, n, W]; `visible` [B, 1, 1, keys] bool."""
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.attention_out(mixed.transpose(1, 2).flatten(2))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """The MLP, [B, n, W] -> [B, n, W]."""
        return self.mlp_out(F.gelu(self.mlp_in(hidden)))

    def forward(
        self,
        hidden: Tensor,
        modulations: tuple[Tensor, ...],
        rotary: tuple[Tensor, Tensor],
        visible: Tensor,
        outputs: int,
    ) -> Tensor:
        """Run the single stream; only the last `outputs` tokens come back, [B, outputs, W].

        The last block is asked for the action tokens alone: nobody reads its context tokens.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulations
        query, key, value = self.project(modulate(hidden, shift, scale), rotary)
        mixed = self.attend(query[:, :, -outputs:], key, value, visible)
        hidden = torch.addcmul(hidden[:, -outputs:], gate, mixed)
        mixed = self.feed_forward(modulate(hidden, mlp_shift, mlp_scale))
        return torch.addcmul(hidden, mlp_gate, mixed)

    def prefix(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Prefix variant: queries, keys and values of the unmodulated context [B, L, W]."""
        return self.project(normalize(hidden), rotary)

    def offered(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values of `prefix` alone, for a context that asks nothing."""
        batch, length, _ = hidden.shape
        weight = self.qkv.weight[self.qkv.out_features // 3 :]
        key, value = (
            F.linear(normalize(hidden), weight)
            .view(batch, length, 2, self.heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        return rotate(self.key_norm(key), *rotary), value

    def advance(self, hidden: Tensor, projected: tuple[Tensor, ...], visible: Tensor) -> Tensor:
        """Prefix variant: the context's next state [B, L, W]."""
        query, key, value = projected
        hidden = hidden + self.attend(query, key, value, visible)
        return hidden + self.feed_forward(normalize(hidden))

    def suffix(
        self,
        hidden: Tensor,
        modulations: tuple[Tensor, ...],
        rotary: tuple[Tensor, Tensor],
        visible: Tensor,
        context: tuple[Tensor, ...],
    ) -> Tensor:
        """Prefix variant: action tokens [B * R, H, W] attend to their context and their own chunk.

        The R chunks of one context stand side by side in one attention call, `visible`
        [1 or B, 1, R * H, L + R * H] keeping them apart, so that its keys and values
        (`context`, [B, heads, L, head_dim] each) are never copied R times.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulations
        side_by_side = modulate(hidden, shift, scale).view(len(context[0]), -1, hidden.shape[-1])
        query, key, value = self.project(side_by_side, rotary)
        key, value = torch.cat([context[0], key], dim=2), torch.cat([context[1], value], dim=2)
        mixed = self.attend(query, key, value, visible).view_as(hidden)
        hidden = torch.addcmul(hidden, gate, mixed)
        mixed = self.feed_forward(modulate(hidden, mlp_shift, mlp_scale))
        return torch.addcmul(hidden, mlp_gate, mixed)
