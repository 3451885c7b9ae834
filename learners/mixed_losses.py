"""The losses of a mixed batch, one backbone forward after another, without padding to spare.

Rows that see the same cameras go together, cut to the longest text among them; conversations go by
length. Each loss comes with its share, so that their weighted sum is the mean over all samples,
however the batch was divided. The caller runs one backward pass for each and keeps no graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from learners.action_loss import action_loss, encode_chunks
from vlarl.config.schema import FlowConfig
from vlarl.data.mixed_batches import MixedBatch
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.processor import IGNORED_LABEL
from vlarl.model.qwen_vla import QwenVLA

ACTION, CONVERSATION = "action_loss", "conversation_loss"
_BUCKET = 8
"""Rows of actions are cut to a multiple of this many tokens."""
_SHORTEST = 0.75
"""Length of the shortest row of a forward, as a share of the longest."""


@dataclass(frozen=True)
class PartLoss:
    """The loss of one forward."""

    kind: str
    """`ACTION` or `CONVERSATION`."""
    loss: Tensor
    """Scalar: the mean over its samples; of conversations, over their supervised tokens."""
    share: float
    """What it counts in the mean over all samples of the batch; these sum to 1."""
    share_of_kind: float
    """What it counts among those of its kind."""
    tokens: int
    """That the language model ran on, padding included."""
    padding: int
    """How many of these were padding."""


def length_buckets(lengths: Sequence[int], shortest: float = _SHORTEST) -> list[NDArray[np.int64]]:
    """Places of `lengths` in groups, of which none holds a length below `shortest` of its longest.

    Longest first. With 0.75 no more than a quarter of any row is padding.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    groups: list[list[int]] = []
    for place in order.tolist():
        if groups and lengths[place] >= shortest * lengths[groups[-1][0]]:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [np.array(group) for group in groups]


def trimmed(inputs: TensorDict) -> TensorDict:
    """The processor's inputs without the columns that are padding in every row, but for a few."""
    longest = int(inputs["attention_mask"].sum(dim=1).max())
    length = min(inputs["input_ids"].shape[1], -(-longest // _BUCKET) * _BUCKET)
    cut = inputs.copy()
    for key in ("input_ids", "attention_mask", "mm_token_type_ids", "position_ids"):
        cut[key] = inputs[key][..., :length]
    return cut


def mixed_losses(
    model: QwenVLA,
    batch: MixedBatch,
    flow: FlowConfig,
    conversations: ConversationProcessor,
    generator: torch.Generator,
    opened: bool = True,
    through_backbone: bool = True,
) -> Iterator[PartLoss]:
    """The losses of all parts of a batch, each computed when it is asked for.

    Args:
        model: whose losses they are.
        batch: the rows.
        flow: how flow times are drawn.
        conversations: makes inputs of conversations.
        generator: draws flow times and noise, for one part after another.
        opened: whether conversations are asked for.
        through_backbone: whether gradients of actions reach the backbone.
    """
    total, codecs = len(batch), (model.codec, *model.further_codecs)
    rows = sum(len(part.actions) for part in batch.chunks)
    for part in batch.chunks:
        clean, mask = encode_chunks(codecs, part)
        inputs = trimmed(model.processor(part.observations))
        with torch.set_grad_enabled(through_backbone):
            context = model.encode(inputs)
        loss = action_loss(model, context, clean, mask, flow, generator)
        count = len(part.actions)
        yield PartLoss(ACTION, loss, count / total, count / rows, *_padding(inputs))
    if not (batch.conversations and opened):
        return
    talks = batch.conversations
    buckets = length_buckets([conversations.token_count(talk) for talk in talks])
    prepared = [conversations([talks[place] for place in bucket]) for bucket in buckets]
    words = [int((inputs["labels"][:, 1:] != IGNORED_LABEL).sum()) for inputs in prepared]
    for inputs, own in zip(prepared, words, strict=True):
        part_of_kind = own / sum(words)
        share = part_of_kind * len(talks) / total
        loss = model.language_loss(inputs)
        yield PartLoss(CONVERSATION, loss, share, part_of_kind, *_padding(inputs))


def _padding(inputs: TensorDict) -> tuple[int, int]:
    """Tokens of the inputs, and how many of them are padding."""
    mask = inputs["attention_mask"]
    return mask.numel(), mask.numel() - int(mask.sum())
