"""The supervised trainer: flow matching on actions, next-token loss on questions and conversations.

One trainer for every supervised stage; which parts train, with which losses, is
`SupervisedConfig`. Everything random is drawn from `(seed, step)`, so that a resumed run takes the
very same steps. Leaves out where data comes from, checkpoints' folders and evaluation, which the
caller hands in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor, nn

from learners.action_loss import draw, drawn_loss, encode_chunks
from learners.ema import WeightAverage
from learners.mixed_losses import ACTION, CONVERSATION, mixed_losses, mixed_step
from learners.optimizer import build_optimizer, clip_gradients
from learners.shares import Peers
from learners.supervised_losses import BACKBONE, check_losses
from vlarl.config.schema import SupervisedConfig
from vlarl.data.conversations import ConversationSet
from vlarl.data.grounding import GroundingSet, grounding_batch
from vlarl.data.mixed_batches import MixedBatches
from vlarl.data.samples import BatchSampler, ChunkBatch, ChunkSource
from vlarl.data.text_chunks import TextChunks
from vlarl.errors import CheckpointError
from vlarl.model.backbone import supervised_tokens
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.device import CPU, on
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.progress import Progress

Metrics = dict[str, float]
_Share = tuple[float, Tensor]
"""What share of a batch some rows are, and their mean loss."""
_Rows = slice | NDArray[np.int64]
_ACTION_STREAM, _QUESTION_STREAM = 0, 1


class MetricLog(Protocol):
    """Whatever takes metrics; a `RunFolder` does."""

    def log(self, step: int, **metrics: float) -> None:
        """Record the metrics of one step."""
        ...


def conversation_processor(model: QwenVLA, config: SupervisedConfig) -> ConversationProcessor:
    """What turns conversations into inputs of `model`, within the stage's budgets."""
    own, data = model.processor, config.data
    return ConversationProcessor(
        own.tokenizer, own.layout, data.conversation_tokens, data.image_tokens
    )


class SupervisedTrainer:
    """Owns optimizer, schedule and step count; the model is the caller's.

    Attributes:
        step: optimizer steps taken so far.
        average: of the weights that train, if the config asks for one.
    """

    def __init__(
        self,
        model: QwenVLA,
        config: SupervisedConfig,
        dataset: ChunkSource | None,
        grounding: GroundingSet | None,
        seed: int,
        run: MetricLog | None = None,
        conversations: ConversationSet | None = None,
        mixture: MixedBatches | None = None,
    ) -> None:
        """Freeze the parts without a rate and build the optimizer.

        A `mixture` takes the place of `dataset` and `conversations`.

        Raises:
            ConfigError: if a loss that has weight has no data, no loss has any, or a learning rate
                is given for a part that no loss can reach.
        """
        self.model, self.config, self.step = model, config, 0
        self._dataset = dataset if config.action_weight > 0 else None
        self._grounding = grounding if config.grounding_batch_size > 0 else None
        self._conversations = conversations if config.conversation_batch_size > 0 else None
        self._mixture = mixture
        self._seed, self._run = seed, run
        self._peers = Peers.joined()
        check_losses(
            config,
            mixture is not None,
            dataset is not None,
            grounding is not None,
            conversations is not None,
        )
        if self._dataset is not None:
            self._frames = BatchSampler(len(self._dataset), config.batch_size, seed)
        if self._grounding is not None:
            self._scenes = BatchSampler(len(self._grounding), config.grounding_batch_size, seed)
        if self._conversations is not None:
            batch = config.conversation_batch_size
            self._talks = BatchSampler(len(self._conversations), batch, seed)
        self._parts = model.parts()
        self._frozen = not any(part in config.optimizer.learning_rates for part in BACKBONE)
        self._contexts: TensorDict | None = None
        self._context_of = np.arange(0)
        self._optimizer, self._scheduler = build_optimizer(
            self._parts, config.optimizer, config.steps
        )
        self.average = WeightAverage(self._trained(), config.ema) if config.ema else None

    def _trained(self) -> list[nn.Parameter]:
        return [p for part in self._parts.values() for p in part if p.requires_grad]

    def train_step(self) -> Metrics:
        """One optimizer step.

        Returns:
            `action_loss`, `grounding_loss`, `conversation_loss` (where trained), `padding_share`
            (of a mixture, tokens of the language model; of whole trajectories, control steps),
            `grad_norm/<part>` before clipping.

        Raises:
            FloatingPointError: if the gradient is not finite; nothing was changed then.
        """
        self._optimizer.zero_grad(set_to_none=True)
        metrics: Metrics = {}
        if self._mixture is not None:
            metrics |= self._mixed_step(self._mixture)
        if self._dataset is not None:
            metrics |= self._action_step(self._dataset)
        speaking = self.config.vision_language_weight
        if self._grounding is not None and self.step >= self.config.expert_only_steps:
            losses = self._grounding_losses(self._grounding)
            metrics["grounding_loss"] = self._backward(losses, speaking)
        if self._conversations is not None and self.step >= self.config.expert_only_steps:
            losses = self._conversation_losses(self._conversations)
            metrics["conversation_loss"] = self._backward(losses, speaking)
        self._peers.add_gradients(self._trained())
        norms = clip_gradients(self._parts, self.config.optimizer.max_grad_norm)
        if not np.isfinite(norms["total"]):
            raise FloatingPointError(
                f"supervised step {self.step}: gradient norm is {norms['total']}; "
                "lower the learning rates"
            )
        self._optimizer.step()
        self._scheduler.step()
        if self.average is not None:
            self.average.update()
        self.step += 1
        return metrics | {f"grad_norm/{part}": norm for part, norm in norms.items()}

    def _mixed_step(self, mixture: MixedBatches) -> Metrics:
        """Gradients of the weighted mean over all samples of a mixed batch (paper eq. 4)."""
        config, batch = self.config, mixture.batch(self.step)
        weights = {ACTION: config.action_weight, CONVERSATION: config.vision_language_weight}
        opened = self.step >= config.expert_only_steps
        parts = mixed_losses(
            self.model,
            batch,
            config.flow,
            conversation_processor(self.model, config),
            torch.Generator().manual_seed(_mixed(self._seed, self.step, _ACTION_STREAM)),
            self._peers,
            config.micro_batch,
            opened=opened,
            through_backbone=opened and not self._frozen,
        )
        return mixed_step(batch, parts, weights, self._peers, opened)

    def _backward(self, losses: Iterator[_Share], weight: float) -> float:
        """Differentiate the parts of a loss one by one; the loss of the whole batch."""
        whole = 0.0
        for share, loss in losses:
            (weight * share * loss).backward()
            whole += share * float(loss.detach())
        return self._peers.total(whole)

    def _action_step(self, dataset: ChunkSource) -> Metrics:
        """Gradients of the action loss; the loss, and of whole trajectories what was padding."""
        frames, size = self._frames.indices(self.step), self.config.micro_batch
        batch = dataset.chunks(frames)
        parts: Sequence[_Rows]
        metrics: Metrics = {}
        steps = batch.observations.steps
        if steps is None:
            parts = self._peers.parts(len(frames), size)
        else:
            parts = groups = self._peers.alike(steps, size)
            computed = self._peers.total(sum(int(steps[g].max()) * len(g) for g in groups))
            metrics["padding_share"] = 1 - int(steps.sum()) / computed
        losses = self._action_losses(frames, batch, parts)
        return {"action_loss": self._backward(losses, self.config.action_weight)} | metrics

    def _action_losses(
        self, frames: NDArray[np.int64], batch: ChunkBatch, parts: Sequence[_Rows]
    ) -> Iterator[_Share]:
        seen = batch.observations
        clean, mask = encode_chunks((self.model.codec, *self.model.further_codecs), batch)
        opened = self.step >= self.config.expert_only_steps
        seed = _mixed(self._seed, self.step, _ACTION_STREAM)
        draws = draw(clean.shape, self.config.flow, torch.Generator().manual_seed(seed))
        for rows in parts:
            steps = clean.shape[1] if seen.steps is None else int(seen.steps[rows].max())
            if self._contexts is not None:
                places = self._context_of[frames[rows]]
                remembered = self._contexts[torch.from_numpy(places)]
                context = on(self.model.device, remembered)
            else:
                with torch.set_grad_enabled(opened and not self._frozen):
                    context = self._encode(seen.part(rows))
            part = clean[rows, :steps], mask[rows, :steps], draws.part(rows, steps)
            yield len(frames[rows]) / len(frames), drawn_loss(self.model, context, *part)

    def _encode(self, seen: Observations) -> TensorDict:
        return self.model.encode(self.model.processor(seen))

    @torch.no_grad()
    def _remember_contexts(self) -> None:
        """What a frozen backbone says of every frame, if memory allows; the model's modes stay."""
        dataset = self._dataset
        if dataset is None or not self._frozen or self._contexts is not None:
            return
        first = on(CPU, self._encode(dataset.chunks(np.arange(1)).observations))
        frames, self._context_of = _contexts_of(dataset)
        if first.bytes() * len(frames) > 1e9 * self.config.context_gigabytes:
            return
        self._contexts = first.expand(len(frames)).clone()
        with Progress("contexts", len(frames), "frames") as progress:
            for places in np.array_split(np.arange(len(frames)), -(-len(frames) // 256)):
                seen = self._encode(dataset.chunks(frames[places]).observations)
                self._contexts[places[0] : places[-1] + 1] = on(CPU, seen)
                progress.advance(len(places))

    def _grounding_losses(self, grounding: GroundingSet) -> Iterator[_Share]:
        random = np.random.default_rng(_mixed(self._seed, self.step, _QUESTION_STREAM))
        indices = self._scenes.indices(self.step)
        objects = self.config.data.objects_per_answer
        batch = grounding_batch(grounding, indices, objects, random)
        inputs = self.model.processor.question(batch.images, batch.questions, batch.answers)
        parts = self._peers.parts(len(indices), self.config.micro_batch)
        return self._language_losses([inputs[rows] for rows in parts])

    def _conversation_losses(self, conversations: ConversationSet) -> Iterator[_Share]:
        processor = conversation_processor(self.model, self.config)
        indices = self._talks.indices(self.step)
        parts = self._peers.parts(len(indices), self.config.micro_batch)
        samples = [[conversations[int(index)] for index in indices[rows]] for rows in parts]
        return self._language_losses([processor(part) for part in samples])

    def _language_losses(self, parts: list[TensorDict]) -> Iterator[_Share]:
        """A part counts by its supervised tokens, over which the loss of the batch is a mean."""
        counts = [supervised_tokens(inputs["labels"]) for inputs in parts]
        total = self._peers.total(sum(counts))
        for inputs, count in zip(parts, counts, strict=True):
            yield count / total, self.model.language_loss(inputs)

    def train(
        self,
        until: int | None = None,
        save: Callable[[int], None] | None = None,
        evaluate: Callable[[int], Metrics] | None = None,
        progress: Callable[[int, Metrics], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Metrics:
        """Train to step `until` (default: the configured end).

        Args:
            until: step to stop at; the schedule stays that of the whole run.
            save: called every `save_every` steps and at the end, with the step.
            evaluate: called every `eval_every` steps, with the step; what it returns is logged.
            progress: called after each step with the step and its metrics.
            stop: asked after each step whether to end early, as if this step were the last.

        Returns:
            The metrics logged last.
        """
        config = self.config
        until = config.steps if until is None else until
        logged: Metrics = {}
        window: list[Metrics] = []
        started = time.perf_counter()
        self.model.train()
        done = self.step >= until
        if not done:
            self._remember_contexts()
        while not done:
            window.append(self.train_step())
            done = self.step >= until or (stop is not None and stop())
            if progress is not None:
                progress(self.step, window[-1])
            if done or self.step % config.log_every == 0:
                elapsed = time.perf_counter() - started
                numbers = self._summary(window) | {"steps_per_second": len(window) / elapsed}
                logged |= numbers
                self._log(numbers)
                window, started = [], time.perf_counter()
            if evaluate is not None and config.eval_every and self.step % config.eval_every == 0:
                found = evaluate(self.step)
                logged |= found
                self._log(found)
                self.model.train()
                started = time.perf_counter()
            if save is not None and (done or self.step % config.save_every == 0):
                save(self.step)
        return logged

    def _summary(self, window: list[Metrics]) -> Metrics:
        """Means over the window, and the present rates."""
        # Not every batch of a mixture has samples of every kind.
        names = dict.fromkeys(name for metrics in window for name in metrics)
        means = {name: float(np.mean([m[name] for m in window if name in m])) for name in names}
        rates = {f"rate/{g['part']}": float(g["lr"]) for g in self._optimizer.param_groups}
        return means | rates

    def _log(self, metrics: Metrics) -> None:
        if self._run is not None:
            self._run.log(self.step, **metrics)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs beside the model's weights; `vlarl.training_state` writes it."""
        return {
            "step": self.step,
            "seed": self._seed,
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            **({} if self.average is None else {"average": self.average.state()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; the model's weights must be those of the same moment.

        Raises:
            CheckpointError: if the state is of a run with another seed, or lacks the average.
        """
        if state["seed"] != self._seed:
            raise CheckpointError(
                f"the training state is of seed {state['seed']}, this run's seed is {self._seed}"
            )
        if (self.average is not None) != ("average" in state):
            raise CheckpointError(
                f"supervised.ema = {self.config.ema:g}: the run that is continued was "
                f"{'with' if 'average' in state else 'without'} an average. Leave it as it was"
            )
        if self.average is not None:
            self.average.load(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self.step = state["step"]


def _contexts_of(dataset: ChunkSource) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples that have each context once, and which of these every sample has."""
    if isinstance(dataset, TextChunks):
        return dataset.representatives, dataset.context_of
    return np.arange(len(dataset)), np.arange(len(dataset))


def _mixed(seed: int, step: int, stream: int) -> int:
    """One seed of 64 bits for what `stream` draws at `step`."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)
