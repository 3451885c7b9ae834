"""The action expert: a single-stream diffusion transformer over [context | actions] (paper 2.2).

Sizes, the count of 1.15B parameters and the choices the paper leaves open are explained in the
documentation of the model. Sampling, losses and normalization live elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextRotaryEmbedding

from vlarl.model.expert_config import ExpertConfig
from vlarl.model.projection import decoded, encoded, last_layers, make_decoder, make_encoder

TIMESTEP_FEATURES = 256
_NORM_EPSILON = 1e-6


def timestep_features(tau: Tensor) -> Tensor:
    """[B] flow times in [0, 1] -> [B, 256] sines and cosines."""
    half = TIMESTEP_FEATURES // 2
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32, device=tau.device) * (-math.log(10_000.0) / half)
    )
    # Diffusion transformers count 1000 timesteps; flow time is scaled to that range.
    angles = 1000.0 * tau.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


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


class ActionExpert(nn.Module):
    """Velocity of a noisy action chunk, given the backbone's hidden states."""

    def __init__(self, config: ExpertConfig, text: Qwen3_5TextConfig) -> None:
        """`text` brings the width of the hidden states and the rotary embedding.

        Raises:
            ValueError: if the head size differs from the backbone's.
        """
        super().__init__()
        if config.head_dim != text.head_dim:
            raise ValueError(
                f"head_dim {config.head_dim} must equal the backbone's {text.head_dim}: "
                "the expert reuses its rotary embedding"
            )
        self.config = config
        self.checkpoint_blocks = False
        """Whether each block keeps its input alone, and runs again in the backward pass."""
        width = config.width
        self.rotary = Qwen3_5TextRotaryEmbedding(text)
        self.context_in = nn.Linear(text.hidden_size, width)
        self.state_in = (
            nn.Sequential(nn.Linear(config.state_dim, width), nn.SiLU(), nn.Linear(width, width))
            if config.state_dim
            else None
        )
        self.action_in = make_encoder(config)
        self.timestep = nn.Sequential(
            nn.Linear(TIMESTEP_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.summary_in = (
            nn.Sequential(
                nn.Linear(text.hidden_size, config.mlp_ratio * width),
                nn.SiLU(),
                nn.Linear(config.mlp_ratio * width, width),
            )
            if config.pooled
            else None
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.modulation = nn.Linear(width, 2 * width)
        self.action_out = make_decoder(config)
        self.reset()

    def reset(self) -> None:
        """Fresh weights: AdaLN and output layers at zero, so every block starts as identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        gates = [block.modulation for block in self._stack()]
        for layer in (*gates, self.modulation, *last_layers(self.action_out)):
            nn.init.zeros_(layer.weight)

    def last_biases(self) -> list[nn.Parameter]:
        """What the last layers add to every chunk, whatever the expert sees."""
        block = self._stack()[-1]
        last = [layer.bias for layer in last_layers(self.action_out)]
        return [block.attention_out.bias, block.mlp_out.bias, *last]

    def _stack(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _run(self, step: Callable[..., Any], *inputs: Any) -> Any:
        """`step(*inputs)`, a block or one of its methods, checkpointed if so wished."""
        if self.checkpoint_blocks and torch.is_grad_enabled():
            # Nothing in a block is random, so that no generator's state need be kept.
            return checkpoint(step, *inputs, use_reentrant=False, preserve_rng_state=False)
        return step(*inputs)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor,
        positions: Tensor,
        actions: Tensor,
        tau: Tensor,
        shared: Tensor | None = None,
        state: Tensor | None = None,
        embodiment: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        """Velocity field (paper section 2.5).

        Args:
            hidden: [B, L, D] final hidden states of the backbone.
            mask: [B, L] bool, False where padded.
            positions: [B, 3, L] of the context; actions go on after the last one on all three axes.
            actions: [B * R, H, K] noisy chunks, zero where padded; rows b * R ... b * R + R - 1
                share context b.
            tau: [B * R] flow times.
            shared: of `shared_states`, to save the work of a context that comes again.
            state: [B, d] in [-1, 1], where the expert has a token for it.
            embodiment: [B] which embodiment each context is of; None: the first.
            rotary: of `rotary_tables`, likewise.
            steps: [B] control steps of each context's chunks; no token sees those beyond, so that
                they might as well not be there. None: all of `H` are seen.

        Returns:
            [B * R, H, K] float32.
        """
        repeats = actions.shape[0] // hidden.shape[0]
        assert repeats * hidden.shape[0] == actions.shape[0]
        condition = self.timestep(timestep_features(tau).to(hidden.dtype))
        if self.summary_in is not None:
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
            condition = condition + self.summary_in(mean).repeat_interleave(repeats, dim=0)
        which = None if embodiment is None else embodiment.repeat_interleave(repeats)
        tokens = encoded(self.action_in, self.config, actions.to(hidden.dtype), which)
        horizon = actions.shape[1]
        rotary = self.rotary_tables(mask, positions, horizon) if rotary is None else rotary
        valid = (
            None if steps is None else torch.arange(horizon, device=mask.device) < steps[:, None]
        )
        seen = self._seen(mask)
        if shared is not None:
            tokens = self._prefixed(
                shared.unbind(1), tokens, condition, rotary, seen, repeats, valid
            )
        elif self.config.prefix:
            states = self._walk(self._context(hidden, state), seen, rotary)
            tokens = self._prefixed(states, tokens, condition, rotary, seen, repeats, valid)
        else:
            context = self._context(hidden, state)
            tokens = self._joint(context, tokens, condition, rotary, seen, repeats, valid)
        shift, scale = self.modulation(F.silu(condition)).unsqueeze(1).chunk(2, dim=-1)
        # In the format of the last layers, which are float32 where the blocks are not.
        last = next(self.action_out.parameters()).dtype
        tokens = modulate(tokens.to(last), shift.to(last), scale.to(last))
        return decoded(self.action_out, self.config, tokens, which).float()

    def shared_states(
        self, hidden: Tensor, mask: Tensor, positions: Tensor, state: Tensor | None = None
    ) -> Tensor:
        """Prefix variant: keys and values of the context, [B, blocks, 2, heads, L, head_dim]."""
        assert self.config.prefix
        rotary = self.rotary_tables(mask, positions)
        states = self._walk(self._context(hidden, state), self._seen(mask), rotary)
        return torch.stack([torch.stack(pair, 1) for pair in states], 1)

    def _context(self, hidden: Tensor, state: Tensor | None) -> Tensor:
        """Context tokens [B, L, W]; the state, if there is one, is the last of L + 1."""
        assert (state is None) == (self.state_in is None)
        context = self.context_in(hidden)
        if self.state_in is None or state is None:
            return context
        return torch.cat([context, self.state_in(state.to(hidden.dtype)).unsqueeze(1)], dim=1)

    def _seen(self, mask: Tensor) -> Tensor:
        """Which tokens of `_context` count."""
        return mask if self.state_in is None else F.pad(mask, (0, 1), value=True)

    def rotary_tables(
        self, mask: Tensor, positions: Tensor, horizon: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, L + H, rotary_dim] of context and action positions.

        With a state there is one more, between the two.
        """
        valid = positions.masked_fill(~mask.unsqueeze(1), -1)
        start = valid.amax(dim=(1, 2)) + 1
        following = (horizon or self.config.horizon) + (self.state_in is not None)
        steps = start[:, None] + torch.arange(following, device=start.device)
        joint = torch.cat([positions, steps.unsqueeze(1).expand(-1, 3, -1)], dim=2)
        cosine, sine = self.rotary(self.context_in.weight, joint.transpose(0, 1))
        return cosine, sine

    def _joint(
        self,
        context: Tensor,
        tokens: Tensor,
        condition: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor,
        repeats: int,
        valid: Tensor | None,
    ) -> Tensor:
        """The paper's single stream, every token modulated; `valid` [B, H] actions are seen."""
        stream = torch.cat([context.repeat_interleave(repeats, dim=0), tokens], dim=1)
        cosine, sine = (part.repeat_interleave(repeats, dim=0) for part in rotary)
        if valid is None:
            visible = F.pad(mask, (0, tokens.shape[1]), value=True)
        else:
            visible = torch.cat([mask, valid], dim=1)
        visible = visible.repeat_interleave(repeats, dim=0)[:, None, None, :]
        last = len(self.blocks) - 1
        for index, block in enumerate(self._stack()):
            outputs = tokens.shape[1] if index == last else stream.shape[1]
            modulations = block.modulations(condition)
            stream = self._run(block, stream, modulations, (cosine, sine), visible, outputs)
        return stream

    def _walk(
        self, context: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Prefix variant: keys and values [B, heads, L, head_dim] of the context, by block."""
        length, visible = context.shape[1], mask[:, None, None, :]
        before = (rotary[0][:, :length], rotary[1][:, :length])
        if self.config.pooled:
            return [self._run(block.offered, context, before) for block in self._stack()]
        states = []
        for block in self._stack():
            query, key, value = self._run(block.prefix, context, before)
            states.append((key, value))
            # Nobody reads the context after the last block.
            if len(states) < len(self._stack()):
                context = self._run(block.advance, context, (query, key, value), visible)
        return states

    def _prefixed(
        self,
        states: Sequence[tuple[Tensor, Tensor] | Tensor],
        tokens: Tensor,
        condition: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor,
        repeats: int,
        valid: Tensor | None,
    ) -> Tensor:
        """The prefix variant: action tokens alone pass through, `states` [blocks] beside them."""
        length, horizon = mask.shape[1], tokens.shape[1]
        after = (
            rotary[0][:, length:].repeat(1, repeats, 1),
            rotary[1][:, length:].repeat(1, repeats, 1),
        )
        chunk = torch.arange(repeats * horizon, device=mask.device) // horizon
        same_chunk = (chunk[:, None] == chunk).expand(len(mask), -1, -1)
        if valid is not None:
            same_chunk = same_chunk & valid.repeat(1, repeats)[:, None, :]
        seen_context = mask[:, None, :].expand(-1, repeats * horizon, -1)
        visible = torch.cat([seen_context, same_chunk], dim=2).unsqueeze(1)
        for block, state in zip(self._stack(), states, strict=True):
            key, value = state if isinstance(state, tuple) else state.unbind(1)
            modulations = block.modulations(condition)
            tokens = self._run(block.suffix, tokens, modulations, after, visible, (key, value))
        return tokens
