"""The losses of a mixed batch, one backbone forward after another, without padding to spare.

Rows that see the same cameras go together, cut to the longest text among them; conversations go by
length. Each loss comes with its share, so that their weighted sum is the mean over all samples,
however the batch was divided, among processes too. Every part has a backward pass of its own, and
no graph is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from learners.action_loss import draw, drawn_loss, encode_chunks
from learners.shares import Peers, divided, length_buckets
from vlarl.config.schema import FlowConfig
from vlarl.data.mixed_batches import MixedBatch
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.qwen_vla import QwenVLA

ACTION, CONVERSATION = "action_loss", "conversation_loss"
_BUCKET = 8
"""Rows of actions are cut to a multiple of this many tokens."""


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
    peers: Peers,
    micro_batch: int = 0,
    opened: bool = True,
    through_backbone: bool = True,
) -> Iterator[PartLoss]:
    """The losses of this process' parts of a batch, each computed when it is asked for.

    Args:
        model: whose losses they are.
        batch: the rows of all processes.
        flow: how flow times are drawn.
        conversations: makes inputs of conversations.
        generator: draws flow times and noise of the whole batch, so that no division changes them.
        peers: the processes that share the batch.
        micro_batch: rows that are computed at a time; 0: as many as go together.
        opened: whether conversations are asked for.
        through_backbone: whether gradients of actions reach the backbone.
    """
    total, codecs = len(batch), (model.codec, *model.further_codecs)
    rows = sum(len(part.actions) for part in batch.chunks)
    first = 0
    for part in batch.chunks:
        clean, mask = encode_chunks(codecs, part)
        draws = draw(clean.shape, flow, generator)
        for own in divided(peers.own(len(part.actions), first), micro_batch):
            inputs = trimmed(model.processor(part.observations.part(own)))
            with torch.set_grad_enabled(through_backbone):
                context = model.encode(inputs)
            drawn = draws.part(own, clean.shape[1])
            loss = drawn_loss(model, context, clean[own], mask[own], drawn)
            yield PartLoss(ACTION, loss, len(own) / total, len(own) / rows, *_padding(inputs))
        first += len(part.actions)
    if not (batch.conversations and opened):
        return
    talks = batch.conversations
    words = [conversations.answer_tokens(talk) for talk in talks]
    for bucket in length_buckets([conversations.token_count(talk) for talk in talks]):
        for own in divided(peers.own(len(bucket), first), micro_batch):
            places = bucket[own]
            inputs = conversations([talks[place] for place in places])
            part_of_kind = sum(words[place] for place in places) / sum(words)
            share = part_of_kind * len(talks) / total
            loss = model.language_loss(inputs)
            yield PartLoss(CONVERSATION, loss, share, part_of_kind, *_padding(inputs))
        first += len(bucket)


def mixed_step(
    batch: MixedBatch,
    parts: Iterator[PartLoss],
    weights: Mapping[str, float],
    peers: Peers,
    opened: bool = True,
) -> dict[str, float]:
    """Differentiate the parts one by one.

    Args:
        batch: the rows of all processes.
        parts: of `mixed_losses`; `opened` as given there.
        weights: of each kind of loss.
        peers: who share the batch, and who all call this.
        opened: whether conversations were asked for.

    Returns:
        Of the whole batch: the loss of each kind that it has, and `padding_share`.
    """
    losses = {ACTION: 0.0} if batch.chunks else {}
    if batch.conversations and opened:
        losses[CONVERSATION] = 0.0
    tokens, padding = 0, 0
    for part in parts:
        (weights[part.kind] * part.share * part.loss).backward()
        losses[part.kind] += part.share_of_kind * float(part.loss.detach())
        tokens, padding = tokens + part.tokens, padding + part.padding
    found = {kind: peers.total(loss) for kind, loss in losses.items()}
    return found | {"padding_share": peers.total(padding) / max(1, peers.total(tokens))}


def _padding(inputs: TensorDict) -> tuple[int, int]:
    """Tokens of the inputs, and how many of them are padding."""
    mask = inputs["attention_mask"]
    return mask.numel(), mask.numel() - int(mask.sum())
