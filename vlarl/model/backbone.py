"""The Qwen3.5 backbone as transformers has it, with two layers swapped for faster, equal ones.

Same parameters, same names, same numbers: batches of equally sized images go through attention as
one batch instead of one image at a time, and patches are embedded by a matrix product instead of a
3D convolution. Tests hold both equal to the originals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_5.modeling_qwen3_5 import (
    Qwen3_5VisionAttention,
    Qwen3_5VisionPatchEmbed,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)


class EqualImageAttention(Qwen3_5VisionAttention):
    """Vision attention that treats images of one size as a batch."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """[patches of all images, D] -> the same; `max_seqlen` is the patches of each image."""
        patches, images = hidden_states.shape[0], len(cu_seqlens) - 1
        if max_seqlen is None or max_seqlen * images != patches:
            return super().forward(
                hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs
            )
        assert position_embeddings is not None
        query, key, value = self.qkv(hidden_states).view(patches, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (
            tensor.reshape(images, max_seqlen, self.num_heads, -1).transpose(1, 2)
            for tensor in (query, key, value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        return self.proj(mixed.transpose(1, 2).reshape(patches, -1))


class LinearPatchEmbed(Qwen3_5VisionPatchEmbed):
    """Patch embedding as the matrix product that a convolution without overlap is."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[patches, patch_dim] -> [patches, D]."""
        weight = self.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1), self.proj.bias)


def build_backbone(config: Qwen3_5Config) -> Qwen3_5ForConditionalGeneration:
    """Random weights of this size, with the faster layers in place."""
    return with_faster_layers(Qwen3_5ForConditionalGeneration(config))


def with_faster_layers(
    backbone: Qwen3_5ForConditionalGeneration,
) -> Qwen3_5ForConditionalGeneration:
    """The same module and weights; only what its layers do with them is faster."""
    visual = backbone.model.visual
    visual.patch_embed.__class__ = LinearPatchEmbed
    for block in visual.blocks:
        block.attn.__class__ = EqualImageAttention
    return backbone


def vision_layout(backbone: Qwen3_5ForConditionalGeneration, grids: Tensor) -> dict[str, Any]:
    """Index tensors of the vision tower for `grids` [images, 3].

    Transformers computes them per image in Python; here once for each run of rows that repeats.
    """
    visual = backbone.model.visual
    merge = visual.spatial_merge_size
    indices, weights = get_vision_interpolation_indices_and_weights(
        grids,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    patches = grids.prod(dim=-1)
    if bool((grids == grids[0]).all()):
        positions = get_vision_position_ids(grids[:1], merge).repeat(len(grids), 1)
        longest = int(patches[0]) if int(grids[0, 0]) == 1 else None
    else:
        positions, longest = get_vision_position_ids(grids, merge), None
    return {
        "interp_indices": indices,
        "interp_weights": weights,
        "position_ids": positions,
        "cu_seqlens": get_vision_cu_seqlens(grids),
        "max_seqlen": longest,
    }


def view_tokens(
    backbone: Qwen3_5ForConditionalGeneration,
    pixel_values: Tensor,
    grids: Sequence[tuple[int, int, int]],
) -> list[Tensor]:
    """Merged vision tokens [B, tokens, D] of each view, without the language model.

    Args:
        backbone: whose tower runs.
        pixel_values: [B, P, patch_dim], the views' patches one after another.
        grids: time, rows and columns of each view's patches.
    """
    batch = len(pixel_values)
    rows = torch.tensor(grids).repeat(batch, 1)
    vision = backbone.model.visual(
        pixel_values.flatten(0, 1), grid_thw=rows, **vision_layout(backbone, rows)
    )
    tokens = vision.pooler_output.unflatten(0, (batch, -1))
    merged = backbone.model.visual.spatial_merge_size**2
    return list(tokens.split([t * h * w // merged for t, h, w in grids], dim=1))


def hidden_states(backbone: Qwen3_5ForConditionalGeneration, inputs: TensorDict) -> Tensor:
    """[B, L, D] final-normed hidden states of the processor's `inputs`, zero where padded.

    The inner model is called, so that no language head runs, and positions are always given: a
    cached rotary offset on the module would go stale. Inputs without images have no `pixel_values`.
    """
    seen = {}
    if "pixel_values" in inputs:
        grids = inputs["image_grid_thw"].flatten(0, 1)
        vision = backbone.model.visual(
            inputs["pixel_values"].flatten(0, 1), grid_thw=grids, **vision_layout(backbone, grids)
        )
        seen["image"] = BaseModelOutputWithPooling(pooler_output=(vision.pooler_output,))
    output = backbone.model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        position_ids=inputs["position_ids"].transpose(0, 1),
        mm_token_type_ids=inputs["mm_token_type_ids"],
        mm_encoder_outputs=seen or None,
        use_cache=False,
    )
    return output.last_hidden_state * inputs["attention_mask"].unsqueeze(-1).to(
        output.last_hidden_state.dtype
    )


def next_token_loss(
    backbone: Qwen3_5ForConditionalGeneration, hidden: Tensor, labels: Tensor
) -> Tensor:
    """Mean cross entropy (paper eq. 3) over the labels [B, L] that are not -100.

    The language head runs at the supervised positions alone.
    """
    supervised = labels[:, 1:] != -100
    logits = backbone.lm_head(hidden[:, :-1][supervised])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][supervised])
