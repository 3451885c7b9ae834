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

from vlarl.model.dit_block import Block, modulate
from vlarl.model.expert_config import ExpertConfig
from vlarl.model.projection import decoded, encoded, last_layers, make_decoder, make_encoder

TIMESTEP_FEATURES = 256


def timestep_features(tau: Tensor) -> Tensor:
    """[B] flow times in [0, 1] -> [B, 256] sines and cosines."""
    half = TIMESTEP_FEATURES // 2
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32, device=tau.device) * (-math.log(10_000.0) / half)
    )
    # Diffusion transformers count 1000 timesteps; flow time is scaled to that range.
    angles = 1000.0 * tau.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


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
        condition = self._condition(hidden, mask, tau, repeats)
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

    def _condition(self, hidden: Tensor, mask: Tensor, tau: Tensor, repeats: int) -> Tensor:
        """[B * R, W] what modulates the blocks: the flow time and, if pooled, the mean context."""
        condition = self.timestep(timestep_features(tau).to(hidden.dtype))
        if self.summary_in is None:
            return condition
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        return condition + self.summary_in(mean).repeat_interleave(repeats, dim=0)

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
