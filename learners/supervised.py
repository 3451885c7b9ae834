"""The supervised trainer: flow matching on actions, next-token loss on questions and conversations.

One trainer for every supervised stage; which parts train, with which losses, is
`SupervisedConfig`. Everything random is drawn from `(seed, step)`, so that a resumed run takes the
very same steps. Leaves out where data comes from, checkpoints' folders and evaluation, which the
caller hands in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor, nn

from learners.action_loss import draw, drawn_loss
from learners.ema import WeightAverage
from learners.mixed_losses import ACTION, CONVERSATION, mixed_losses, mixed_step
from learners.optimizer import build_optimizer, clip_gradients
from learners.prefetch import Prefetch
from learners.shares import Peers
from learners.step_data import (
    ACTION_STREAM,
    ActionRows,
    SeenChunks,
    StepLoader,
    conversation_processor,
    seed_of,
)
from learners.supervised_losses import BACKBONE, check_losses
from vlarl.config.schema import SupervisedConfig
from vlarl.data.conversations import ConversationSet
from vlarl.data.grounding import GroundingSet
from vlarl.data.mixed_batches import MixedBatch, MixedBatches
from vlarl.data.samples import ChunkSource
from vlarl.data.skipped import SkippedEpisodes
from vlarl.data.text_chunks import TextChunks
from vlarl.errors import CheckpointError
from vlarl.model.backbone import supervised_tokens
from vlarl.model.device import CPU, on
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.progress import Progress

Metrics = dict[str, float]
_Share = tuple[float, Tensor]
"""What share of a batch some rows are, and their mean loss."""


class MetricLog(Protocol):
    """Whatever takes metrics; a `RunFolder` does."""

    def log(self, step: int, **metrics: float) -> None:
        """Record the metrics of one step."""
        ...


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
        skipped: Sequence[SkippedEpisodes] = (),
        offload: bool = False,
    ) -> None:
        """Freeze the parts without a rate and build the optimizer.

        A `mixture` takes the place of `dataset` and `conversations`. `skipped` are the corrupt
        episodes of all of these, as far as they were met. `offload`: see `build_optimizer`.

        Raises:
            ConfigError: if a loss that has weight has no data, no loss has any, or a learning rate
                is given for a part that no loss can reach.
        """
        self.model, self.config, self.step = model, config, 0
        self._dataset = dataset if config.action_weight > 0 else None
        self._seed, self._run = seed, run
        self._peers = Peers.joined()
        check_losses(
            config,
            mixture is not None,
            dataset is not None,
            grounding is not None,
            conversations is not None,
        )
        self._loader = StepLoader(
            model,
            config,
            seed,
            self._dataset,
            grounding if config.grounding_batch_size > 0 else None,
            conversations if config.conversation_batch_size > 0 else None,
            mixture,
        )
        workers = config.data.workers
        load = self._loader.whole if workers else self._loader
        self._data = Prefetch(load, workers, skipped)
        self._parts = model.parts()
        self._frozen = not any(part in config.optimizer.learning_rates for part in BACKBONE)
        self._contexts: TensorDict | None = None
        self._context_of = np.arange(0)
        self._optimizer, self._scheduler = build_optimizer(
            self._parts, config.optimizer, config.steps, offload=offload
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
        data, speaking = self._data.at(self.step), self.config.vision_language_weight
        if data.mixed is not None:
            metrics |= self._mixed_step(data.mixed)
        if data.actions is not None:
            metrics |= self._action_step(data.actions)
        if data.scenes is not None:
            metrics["grounding_loss"] = self._backward(self._language_losses(data.scenes), speaking)
        if data.conversations is not None:
            losses = self._language_losses(data.conversations)
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

    def _mixed_step(self, batch: MixedBatch) -> Metrics:
        """Gradients of the weighted mean over all samples of a mixed batch (paper eq. 4)."""
        config = self.config
        weights = {ACTION: config.action_weight, CONVERSATION: config.vision_language_weight}
        opened = self.step >= config.expert_only_steps
        parts = mixed_losses(
            self.model,
            batch,
            config.flow,
            conversation_processor(self.model, config),
            torch.Generator().manual_seed(seed_of(self._seed, self.step, ACTION_STREAM)),
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

    def _action_step(self, rows: ActionRows) -> Metrics:
        """Gradients of the action loss; the loss, and of whole trajectories what was padding."""
        metrics: Metrics = {}
        if rows.steps is not None:
            longest = sum(
                int(rows.steps[part].max()) * len(rows.frames[part]) for part in rows.parts
            )
            metrics["padding_share"] = 1 - int(rows.steps.sum()) / self._peers.total(longest)
        found = self._backward(self._action_losses(rows), self.config.action_weight)
        return {"action_loss": found} | metrics

    def _action_losses(self, rows: ActionRows) -> Iterator[_Share]:
        clean, mask, inputs = rows.clean, rows.mask, iter(rows.inputs)
        opened = self.step >= self.config.expert_only_steps
        seed = seed_of(self._seed, self.step, ACTION_STREAM)
        draws = draw(clean.shape, self.config.flow, torch.Generator().manual_seed(seed))
        for part in rows.parts:
            steps = clean.shape[1] if rows.steps is None else int(rows.steps[part].max())
            frames = rows.frames[part]
            if self._contexts is not None:
                remembered = self._contexts[torch.from_numpy(self._context_of[frames])]
                context = on(self.model.device, remembered)
            else:
                with torch.set_grad_enabled(opened and not self._frozen):
                    context = self.model.encode(next(inputs))
            chosen = clean[part, :steps], mask[part, :steps], draws.part(part, steps)
            yield len(frames) / len(rows.frames), drawn_loss(self.model, context, *chosen)

    def _encode(self, seen: Observations) -> TensorDict:
        return self.model.encode(self.model.processor(seen))

    @torch.no_grad()
    def _remember_contexts(self) -> None:
        """What a frozen backbone says of every frame, if memory allows; the model's modes stay.

        Frames are remembered with their chunks, so that no file is read again. Prompts that many
        samples share are not: there may be more trajectories than memory holds.
        """
        dataset = self._dataset
        if dataset is None or not self._frozen or self._contexts is not None:
            return
        probe = dataset.chunks(np.arange(1))
        first = on(CPU, self._encode(probe.observations))
        frames, self._context_of = _contexts_of(dataset)
        size = (first.bytes() + probe.actions.nbytes) * len(frames)
        if size > 1e9 * self.config.context_gigabytes:
            return
        self._contexts = first.expand(len(frames)).clone()
        chunks = []
        with Progress("contexts", len(frames), "frames") as progress:
            for places in np.array_split(np.arange(len(frames)), -(-len(frames) // 256)):
                batch = dataset.chunks(frames[places])
                seen = self._encode(batch.observations)
                self._contexts[places[0] : places[-1] + 1] = on(CPU, seen)
                which = Observations({}, (), embodiment=batch.observations.embodiment)
                chunks.append(replace(batch, observations=which))
                progress.advance(len(places))
        self._loader.sees = False
        if not isinstance(dataset, TextChunks):
            self._loader.dataset = SeenChunks(chunks)
            # What is left to load is quicker done than asked for.
            self._data = Prefetch(self._loader)

    def _language_losses(self, parts: list[TensorDict]) -> Iterator[_Share]:
        """A part counts by its supervised tokens, over which the loss of the batch is a mean."""
        counts = [supervised_tokens(inputs["labels"]) for inputs in parts]
        total = self._peers.total(sum(counts))
        for inputs, count in zip(parts, counts, strict=True):
            yield count / total, self.model.language_loss(inputs)

    def train(
        self,
        until: int | None = None,
        save: Callable[[int], Metrics] | None = None,
        evaluate: Callable[[int], Metrics] | None = None,
        progress: Callable[[int, Metrics], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Metrics:
        """Train to step `until` (default: the configured end).

        Args:
            until: step to stop at; the schedule stays that of the whole run.
            save: called every `save_every` steps and at the end, with the step; what it returns is
                logged with the next metrics.
            evaluate: called every `eval_every` steps, with the step; what it returns is logged.
            progress: called after each step with the step and its metrics.
            stop: asked after each step whether to end early, as if this step were the last.

        Returns:
            The metrics logged last.
        """
        config = self.config
        until = config.steps if until is None else until
        evaluate = evaluate if config.eval_every else None
        logged: Metrics = {}
        saved: Metrics = {}
        window: list[Metrics] = []
        started = time.perf_counter()
        self.model.train()
        done = self.step >= until
        if not done:
            self._remember_contexts()
        with closing(self._data):
            while not done:
                window.append(self.train_step())
                done = self.step >= until or (stop is not None and stop())
                if progress is not None:
                    progress(self.step, window[-1])
                if done or self.step % config.log_every == 0:
                    elapsed = time.perf_counter() - started
                    speed = {"steps_per_second": len(window) / elapsed}
                    numbers, saved = self._summary(window) | speed | saved, {}
                    logged |= numbers
                    self._log(numbers)
                    window, started = [], time.perf_counter()
                if evaluate is not None and self.step % config.eval_every == 0:
                    found = evaluate(self.step)
                    logged |= found
                    self._log(found)
                    self.model.train()
                    started = time.perf_counter()
                if save is not None and (done or self.step % config.save_every == 0):
                    saved = save(self.step)
                    logged |= saved
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
