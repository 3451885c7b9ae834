"""What a supervised step trains on, loaded and collated: a pure function of the seed and the step.

Needs no weights, only the model's processor and codecs, so that any process can do it ahead of
time (`prefetch`). Of a mixture the rows alone: their inputs are made part by part, as the losses
are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from learners.action_loss import encode_chunks
from learners.shares import Peers
from vlarl.config.schema import SupervisedConfig
from vlarl.data.conversations import ConversationSet
from vlarl.data.grounding import GroundingSet, grounding_batch
from vlarl.data.mixed_batches import MixedBatch, MixedBatches
from vlarl.data.samples import BatchSampler, ChunkBatch, ChunkSource
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations

Rows = slice | NDArray[np.int64]
ACTION_STREAM, _QUESTION_STREAM = 0, 1


@dataclass(frozen=True)
class ActionRows:
    """The `B` samples of an action loss, and this process' parts of them."""

    frames: NDArray[np.int64]
    """[B] their numbers in the dataset."""
    clean: Tensor
    """[B, H, K] normalized chunks."""
    mask: Tensor
    """[B, H, K] which entries count."""
    steps: NDArray[np.int64] | None
    """[B] control steps of each, if whole trajectories."""
    parts: Sequence[Rows]
    """Which rows are computed together."""
    inputs: Iterable[TensorDict]
    """Of each part, what the backbone sees; none at all if it need not see them."""


@dataclass(frozen=True)
class StepData:
    """Of one step. What the stage has no loss for is None."""

    actions: ActionRows | None
    scenes: list[TensorDict] | None
    """Questions about scenes, in this process' parts."""
    conversations: list[TensorDict] | None
    """Likewise."""
    mixed: MixedBatch | None
    """The rows of all processes."""


class SeenChunks:
    """The chunks of all samples, without what was seen: for those whose contexts are remembered."""

    def __init__(self, batches: Sequence[ChunkBatch]) -> None:
        """`batches` hold all samples in order, each with as many steps and channels."""
        self._actions = np.concatenate([batch.actions for batch in batches])
        channels = [batch.channels for batch in batches if batch.channels is not None]
        self._channels = np.concatenate(channels) if channels else None
        robots = [batch.observations.embodiment for batch in batches]
        which = [rows for rows in robots if rows is not None]
        self._embodiment = np.concatenate(which) if which else None

    def chunks(self, frames: NDArray[np.int64]) -> ChunkBatch:
        """The samples `frames` [B]."""
        channels = None if self._channels is None else self._channels[frames]
        embodiment = None if self._embodiment is None else self._embodiment[frames]
        seen = Observations({}, (), embodiment=embodiment)
        return ChunkBatch(seen, self._actions[frames], channels)


class StepLoader:
    """Loads the data of any step.

    Attributes:
        dataset: where the action loss has its chunks from.
        sees: whether the backbone has yet to see the samples of the action loss.
    """

    def __init__(
        self,
        model: QwenVLA,
        config: SupervisedConfig,
        seed: int,
        dataset: ChunkSource | None,
        grounding: GroundingSet | None,
        conversations: ConversationSet | None,
        mixture: MixedBatches | None,
    ) -> None:
        """Of `model`, processor and codecs are used; each source is None without its loss."""
        self.sees = True
        self._model, self._config, self._seed = model, config, seed
        self.dataset: ChunkSource | SeenChunks | None = dataset
        self._grounding = grounding
        self._conversations, self._mixture = conversations, mixture
        self._peers = Peers.joined()
        if dataset is not None:
            self._frames = BatchSampler(len(dataset), config.batch_size, seed)
        if grounding is not None:
            self._scenes = BatchSampler(len(grounding), config.grounding_batch_size, seed)
        if conversations is not None:
            self._talks = BatchSampler(len(conversations), config.conversation_batch_size, seed)

    def __call__(self, step: int) -> StepData:
        """The data of `step` (the first is 0), inputs of actions made as they are asked for.

        Raises:
            UserError: if too much of a dataset is corrupt, or a conversation cannot be read.
        """
        opened = step >= self._config.expert_only_steps
        speaks = opened and self._conversations is not None
        return StepData(
            None if self.dataset is None else self._actions(self.dataset, step),
            self._questions(self._grounding, step) if self._grounding and opened else None,
            self._answers(self._conversations, step) if speaks and self._conversations else None,
            None if self._mixture is None else self._mixture.batch(step),
        )

    def whole(self, step: int) -> StepData:
        """The same, with all inputs made, to be sent to another process."""
        found = self(step)
        if found.actions is None:
            return found
        actions = dataclasses.replace(found.actions, inputs=list(found.actions.inputs))
        return dataclasses.replace(found, actions=actions)

    def _actions(self, dataset: ChunkSource | SeenChunks, step: int) -> ActionRows:
        frames, size = self._frames.indices(step), self._config.micro_batch
        batch = dataset.chunks(frames)
        seen, steps = batch.observations, batch.observations.steps
        clean, mask = encode_chunks((self._model.codec, *self._model.further_codecs), batch)
        parts: Sequence[Rows]
        if steps is None:
            parts = self._peers.parts(len(frames), size)
        else:
            parts = self._peers.alike(steps, size)
        inputs = self._inputs(seen, parts) if self.sees else ()
        return ActionRows(frames, clean, mask, steps, parts, inputs)

    def _inputs(self, seen: Observations, parts: Sequence[Rows]) -> Iterator[TensorDict]:
        return (self._model.processor(seen.part(rows)) for rows in parts)

    def _questions(self, grounding: GroundingSet, step: int) -> list[TensorDict]:
        random = np.random.default_rng(seed_of(self._seed, step, _QUESTION_STREAM))
        indices = self._scenes.indices(step)
        objects = self._config.data.objects_per_answer
        batch = grounding_batch(grounding, indices, objects, random)
        inputs = self._model.processor.question(batch.images, batch.questions, batch.answers)
        parts = self._peers.parts(len(indices), self._config.micro_batch)
        return [inputs[rows] for rows in parts]

    def _answers(self, conversations: ConversationSet, step: int) -> list[TensorDict]:
        processor = conversation_processor(self._model, self._config)
        indices = self._talks.indices(step)
        parts = self._peers.parts(len(indices), self._config.micro_batch)
        return [processor([conversations[int(i)] for i in indices[rows]]) for rows in parts]


def conversation_processor(model: QwenVLA, config: SupervisedConfig) -> ConversationProcessor:
    """What turns conversations into inputs of `model`, within the stage's budgets."""
    own, data = model.processor, config.data
    return ConversationProcessor(
        own.tokenizer, own.layout, data.conversation_tokens, data.image_tokens
    )


def seed_of(seed: int, step: int, stream: int) -> int:
    """One seed of 64 bits for what `stream` draws at `step`."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)
