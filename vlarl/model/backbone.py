"""The Qwen3.5 backbone as transformers has it, with two layers swapped for faster, equal ones.

Same parameters, same names, same numbers: batches of equally sized images go through attention as
one batch instead of one image at a time, and patches are embedded by a matrix product instead of a
3D convolution. Tests hold both equal to the originals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_5.modeling_qwen3_5 import (
    Qwen3_5VisionAttention,
    Qwen3_5VisionPatchEmbed,
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
)
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

_FED = ("input_ids", "attention_mask", "position_ids", "mm_token_type_ids")
_REMEMBERED_LAYOUTS = 32
"""Each is a few numbers for every patch of a batch."""


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
        chosen = self.config._attn_implementation
        if chosen == "sdpa":
            mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
            mixed = mixed.transpose(1, 2)
        else:
            attention = ALL_ATTENTION_FUNCTIONS.get_interface(chosen, eager_attention_forward)
            mixed, _ = attention(
                self, query, key, value, None, scaling=self.scaling, dropout=0.0, is_causal=False
            )
        return self.proj(mixed.reshape(patches, -1))


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


def checkpoint_layers(backbone: Qwen3_5ForConditionalGeneration) -> None:
    """From now on each layer keeps its input alone, and runs again in the backward pass.

    Transformers' layers do so in training mode only, which the learners switch to.
    """
    # Nothing in a layer is random, so that no generator's state need be kept.
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    for module in backbone.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = again


def vision_layout(backbone: Qwen3_5ForConditionalGeneration, grids: Tensor) -> dict[str, Any]:
    """The tower's keywords for `grids` [images, 3] (on the CPU): the grids and index tensors.

    Transformers computes them per image in Python, for every forward; here they are remembered.
    """
    visual = backbone.model.visual
    return _layout(
        tuple(tuple(grid) for grid in grids.tolist()),
        visual.num_grid_per_side,
        visual.interpolation_mode,
        visual.interpolation_align_corners,
        visual.spatial_merge_size,
        visual.patch_embed.proj.weight.device,
    )


@lru_cache(maxsize=_REMEMBERED_LAYOUTS)
def _layout(
    rows: tuple[tuple[int, int, int], ...],
    side: int,
    mode: str,
    align_corners: bool,
    merge: int,
    device: torch.device,
) -> dict[str, Any]:
    grids = torch.tensor(rows)
    indices, weights = get_vision_interpolation_indices_and_weights(
        grids,
        num_grid_per_side=side,
        mode=mode,
        align_corners=align_corners,
        spatial_merge_size=merge,
    )
    patches = grids.prod(dim=-1)
    if bool((grids == grids[0]).all()):
        positions = get_vision_position_ids(grids[:1], merge).repeat(len(grids), 1)
        longest = int(patches[0]) if int(grids[0, 0]) == 1 else None
    else:
        positions, longest = get_vision_position_ids(grids, merge), None
    return {
        "grid_thw": grids.to(device),
        "interp_indices": indices.to(device),
        "interp_weights": weights.to(device),
        "position_ids": positions.to(device),
        "cu_seqlens": get_vision_cu_seqlens(grids).to(device),
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
    vision = backbone.model.visual(pixel_values.flatten(0, 1), **vision_layout(backbone, rows))
    tokens = vision.pooler_output.unflatten(0, (batch, -1))
    merged = backbone.model.visual.spatial_merge_size**2
    return list(tokens.split([t * h * w // merged for t, h, w in grids], dim=1))


def pictures(inputs: TensorDict) -> tuple[Tensor, Tensor]:
    """Patches and grids [pictures, 3] of all images, then of all videos, for one run of the tower.

    A video counts as one picture for each of its temporal patches: the tower attends within these
    alone, so that histories and images of one size make one batch.
    """
    pixels, grids = inputs["pixel_values"].flatten(0, 1), inputs["image_grid_thw"].flatten(0, 1)
    if "video_grid_thw" not in inputs:
        return pixels, grids
    videos = inputs["video_grid_thw"].flatten(0, 1)
    frames = videos.repeat_interleave(videos[:, 0], dim=0)
    frames[:, 0] = 1
    films = inputs["pixel_values_videos"].flatten(0, 1)
    return torch.cat([pixels, films]), torch.cat([grids, frames])


def _by_modality(
    tokens: Tensor, image_patches: int, merge: int
) -> dict[str, BaseModelOutputWithPooling]:
    """The tower's `tokens` of `pictures`, apart as the language model takes them.

    Counted by shapes: numbers in tensors would have to come back from the device.
    """
    images = tokens[: image_patches // merge**2]
    seen = {"image": BaseModelOutputWithPooling(pooler_output=(images,))}
    if len(images) < len(tokens):
        videos = BaseModelOutputWithPooling(pooler_output=(tokens[len(images) :],))
        seen["video"] = videos
    return seen


def hidden_states(backbone: Qwen3_5ForConditionalGeneration, inputs: TensorDict) -> Tensor:
    """[B, L, D] final-normed hidden states of the processor's `inputs`, zero where padded.

    Inputs may be on another device than the backbone; their grids should stay on the CPU. The inner
    model is called, so that no language head runs, and positions are always given: a cached rotary
    offset on the module would go stale. Inputs without images have no `pixel_values`.
    """
    ids, seen, positions, kinds = (inputs[key].to(backbone.device) for key in _FED)
    shown = None
    if "pixel_values" in inputs:
        pixels, grids = pictures(inputs)
        layout = vision_layout(backbone, grids)
        vision = backbone.model.visual(pixels.to(backbone.device), **layout)
        images = inputs["pixel_values"].shape[:2].numel()
        merge = backbone.model.visual.spatial_merge_size
        shown = _by_modality(vision.pooler_output, images, merge)
    output = backbone.model(
        input_ids=ids,
        attention_mask=seen,
        position_ids=positions.transpose(0, 1),
        mm_token_type_ids=kinds,
        mm_encoder_outputs=shown,
        use_cache=False,
    )
    return output.last_hidden_state * seen.unsqueeze(-1).to(output.last_hidden_state.dtype)


def next_token_loss(
    backbone: Qwen3_5ForConditionalGeneration, hidden: Tensor, labels: Tensor
) -> Tensor:
    """Mean cross entropy (paper eq. 3) over the labels [B, L] that are not -100.

    The language head runs at the supervised positions alone.
    """
    supervised = labels[:, 1:] != -100
    logits = backbone.lm_head(hidden[:, :-1][supervised])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][supervised])


def supervised_tokens(labels: Tensor) -> int:
    """How many tokens `next_token_loss` is a mean over."""
    return int((labels[:, 1:] != -100).sum())
