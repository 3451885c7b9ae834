"""PPO on action chunks (paper section 4.2): one batch in, a few epochs, metrics out.

The losses are in `vlarl.ppo`, returns in `vlarl.returns`, the density in `scorer.py`; here is the
order of things. A batch stays where it is, its rows go to the model's device as they are used.
Leaves out where batches come from and where checkpoints go.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from learners.measurements import Measurements
from learners.optimizer import build_optimizer, clip_gradients, rate_of
from learners.scorer import Scorer
from learners.shares import Peers
from learners.staleness import weigh, young_enough
from vlarl.batch import validate
from vlarl.config.schema import PPOConfig, SamplingConfig
from vlarl.errors import ConfigError
from vlarl.model.device import on
from vlarl.policy import PolicyModel
from vlarl.ppo import (
    clipped_surrogate,
    clipped_value_loss,
    decoupled_surrogate,
    explained_variance,
)
from vlarl.returns import generalized_advantage, normalized
from vlarl.timeline import Timeline

Progress = Callable[[int, int], None]
"""Called with (minibatches done, minibatches in all)."""
_BACKBONE = ("vision", "language", "lora")


@dataclass
class _Work:
    """One batch while it is learned from."""

    batch: TensorDict
    advantage: Tensor
    """[M]"""
    target: Tensor
    """[M]"""
    old_log_prob: Tensor
    """[M]"""
    old_value: Tensor
    """[M]"""
    pooled: TensorDict | None
    """Contexts of one token, the mean one: all that the value needs. None while the backbone is
    being changed."""
    measured: Measurements
    weight: Tensor | None = None
    """[M] of the proximal policy against the one that acted; None: they are one and the same."""


class PPOLearner:
    """Owns optimizer, schedule and shuffling; the model is the caller's.

    Several processes (`Peers.joined`) are all given the whole batch: returns and minibatches are
    then the same on each, which computes its share of every minibatch's rows.

    Policy and value share no parameter that both losses reach, so their gradients are clipped
    apart. Rates decay by the cosine once for each update.

    Attributes:
        version: of the weights: updates so far.
    """

    def __init__(
        self,
        model: PolicyModel,
        config: PPOConfig,
        sampling: SamplingConfig,
        total_iterations: int,
        seed: int,
        timeline: Timeline | None = None,
        weights_lock: AbstractContextManager[Any] | None = None,
        offload: bool = False,
    ) -> None:
        """Freeze the parts without a rate, build the optimizer, if `offload` on the CPU.

        `timeline` is told of passes. Whoever acts with the same model in another thread holds
        `weights_lock` meanwhile: it is held here while weights change, so that nobody acts with
        half a step.

        Raises:
            ConfigError: unless the value head and another part have a learning rate.
        """
        rates = config.optimizer.learning_rates
        if "value" not in rates or len(rates) < 2:
            raise ConfigError(
                f"ppo.optimizer.learning_rates = {dict(rates)}: PPO trains the value head and at "
                "least one other part. Try {expert: 1e-5, value: 1e-3}."
            )
        self.version = 0
        self._model, self._config = model, config
        self._timeline = timeline or Timeline("learner")
        self._parts = model.parts()
        self._optimizer, self._scheduler = build_optimizer(
            self._parts, config.optimizer, total_iterations, offload=offload
        )
        self._peers = Peers.joined()
        self._trains_backbone = any(part in rates for part in _BACKBONE)
        self._scorer = Scorer(model, sampling, self._trains_backbone, config.micro_batch)
        self._denoising_steps = sampling.denoising_steps
        self._device = model.exploration_log_std.device
        self._generator = torch.Generator().manual_seed(seed)
        self._weights_lock = weights_lock or nullcontext()

    def update(
        self,
        batch: TensorDict,
        progress: Progress | None = None,
        max_staleness: int | None = None,
    ) -> dict[str, float]:
        """Learn from one batch, `config.epochs` times over or until `target_kl`.

        After that, and in the first `value_warmup_iterations`, only the value head learns.

        Args:
            batch: [M] as in `vlarl.batch`.
            progress: told of every minibatch.
            max_staleness: None if the present weights made the batch. Else other ones did, up to
                this many updates ago: decisions that are older are dropped, once they have served
                for the advantages of those before them, and the loss is decoupled from who acted
                (`vlarl.ppo.decoupled_surrogate`).

        Returns:
            Means over the update: `policy_loss`, `approximate_kl`, `clip_fraction` (the latter two
            also by denoising step), `value_loss`, `grad_norm/<part>` before clipping; of the batch:
            `explained_variance`, `value_mean`, `return_mean`, `advantage_std`; of the first
            minibatch: `ratio_start` (mean |ratio - 1|), `log_prob_gap` (largest |log ratio|);
            `epochs_run` of the policy, `learning_rate/<part>`. A warm-up has none of the policy's.
            With `max_staleness` also `batch_age`, `batch_age_mean` (updates), `dropped_over_age`
            (decisions), `behavior_weight_mean`, `behavior_weight_truncated` (share), `behavior_kl`.

        Raises:
            ConfigError: if the batch is too small for one minibatch and `drop_last` is on.
            FloatingPointError: if a gradient is not finite; the step is not taken.
        """
        config = self._config
        # Layers keep their inputs alone in this mode, if so configured; nothing else differs.
        self._model.train()
        work = self._prepare(batch, max_staleness)
        training_policy = self.version >= config.value_warmup_iterations
        if training_policy or max_staleness is not None:
            self._rescore(work, max_staleness is not None, training_policy)
        if not self._trains_backbone:
            self._pool(work)
        per_epoch = self._minibatches_in(len(work.batch))
        done, policy_minibatches = 0, 0
        for _ in range(config.epochs):
            kl_sum = 0.0
            minibatches = self._permutation(len(work.batch)).split(config.minibatch)
            for count, rows in enumerate(minibatches[:per_epoch], start=1):
                if training_policy:
                    kl_sum += self._accumulate(work, rows, policy=True, first=not done)
                    training_policy = not 0 < config.target_kl < kl_sum / count
                if not training_policy:
                    self._pool(work)
                    self._accumulate(work, rows, policy=False)
                self._step(work, policy=training_policy)
                policy_minibatches += training_policy
                done += 1
                if progress is not None:
                    progress(done, config.epochs * per_epoch)
        return self._finish(work, policy_minibatches / per_epoch)

    def policy_gradient(self, batch: TensorDict) -> dict[str, Tensor]:
        """Of each trained part but the value head, the gradient [P] of a whole batch's surrogate.

        Float32; nothing is learned.
        """
        work = self._prepare(batch)
        trained = {
            part: parameters
            for part, parameters in self._parts.items()
            if part != "value" and rate_of(part, self._config.optimizer) is not None
        }
        everything = [parameter for parameters in trained.values() for parameter in parameters]
        totals = [torch.zeros_like(each, dtype=torch.float32) for each in everything]
        for rows in torch.arange(len(batch)).split(self._config.micro_batch):
            loss, _ = self._surrogate(work, rows, self._scorer.context(batch, rows))
            share = len(rows) / len(batch)
            found = torch.autograd.grad(share * loss, everything, allow_unused=True)
            for total, gradient in zip(totals, found, strict=True):
                if gradient is not None:
                    total += gradient.float()
        summed = iter(totals)
        return {
            part: torch.cat([next(summed).flatten() for _ in parameters])
            for part, parameters in trained.items()
        }

    def _prepare(self, batch: TensorDict, max_staleness: int | None = None) -> _Work:
        """Returns and advantages, and what is measured of them; decisions over age are gone."""
        validate(batch)
        config = self._config
        advantage, target = generalized_advantage(
            batch, config.gamma, config.gae_lambda, config.bootstrap_time_limit
        )
        measured = Measurements(self._denoising_steps, self._device)
        if max_staleness is not None:
            young = young_enough(self.version - batch["version"], max_staleness, measured)
            # Indexing copies the batch.
            if not young.all():
                batch, advantage, target = batch[young], advantage[young], target[young]
        measured.add("explained_variance", explained_variance(batch["value"], target))
        measured.add("value_mean", batch["value"].mean())
        measured.add("return_mean", target.mean())
        measured.add("advantage_std", advantage.std(correction=0))
        if config.normalize_advantages:
            advantage = normalized(advantage)
        old = batch["chunk", "log_prob"], batch["value"]
        return _Work(batch, advantage, target, *old, None, measured)

    def _rescore(self, work: _Work, others_acted: bool, training_policy: bool) -> None:
        """Find what to stay near; if other weights acted, also values and weights of decisions.

        The rollout's serve where the same weights acted in float32. Below it, its kernels differ
        from the learner's by a good part of the clip range.
        """
        if not (others_acted or self._below_float32()):
            return
        behavior = work.old_log_prob
        work.old_log_prob, value = self._scorer.scored(work.batch)
        if others_acted:
            work.old_value = value
            if training_policy:
                cap = self._config.behavior_weight_cap
                work.weight = weigh(work.old_log_prob, behavior, cap, work.measured)

    def _below_float32(self) -> bool:
        return any(p.dtype != torch.float32 for part in self._parts.values() for p in part)

    def _pool(self, work: _Work) -> None:
        """Read what the value needs once: the backbone changes no more in this update."""
        if work.pooled is None:
            work.pooled = self._scorer.pooled(work.batch)

    def _finish(self, work: _Work, epochs_run: float) -> dict[str, float]:
        """Count the update and report it."""
        self.version += 1
        work.measured.add_up(self._peers)
        metrics = work.measured.metrics()
        for group in self._optimizer.param_groups:
            metrics[f"learning_rate/{group['part']}"] = float(group["lr"])
        if "policy_loss" in metrics:
            metrics["epochs_run"] = epochs_run
        self._scheduler.step()
        self._optimizer.zero_grad(set_to_none=True)
        return metrics

    def _permutation(self, size: int) -> Tensor:
        """[size] a fresh order for each epoch."""
        return torch.randperm(size, generator=self._generator)

    def _minibatches_in(self, size: int) -> int:
        """Minibatches of one epoch over `size` rows."""
        whole, rest = divmod(size, self._config.minibatch)
        count = whole + bool(rest and not self._config.drop_last)
        if not count:
            raise ConfigError(
                f"ppo.minibatch = {self._config.minibatch}: a batch has {size} decisions and "
                f"ppo.drop_last is on, so nothing is left. Use ppo.minibatch={size} or less."
            )
        return count

    def _accumulate(self, work: _Work, rows: Tensor, policy: bool, first: bool = False) -> float:
        """Gradients of one minibatch, micro-batch by micro-batch; returns its KL."""
        self._optimizer.zero_grad(set_to_none=True)
        kl = torch.zeros((), device=self._device)
        for micro, counting in self._peers.micro_batches(rows, self._config.micro_batch):
            started = time.perf_counter()
            share = counting / len(rows)
            work.measured.counting = counting > 0
            context = self._scorer.context(work.batch, micro) if policy else None
            loss = self._value_loss(work, micro, context)
            if context is not None:
                surrogate, stats = self._surrogate(work, micro, context)
                loss = surrogate + loss
                kl += share * stats["kl"].mean()
                if first:
                    self._measure_start(work, micro, stats["ratio"], share)
            self._timeline.add("learner", "forward", started)
            with self._timeline.span("learner", "backward"):
                (share * loss).backward()
        work.measured.counting = True
        return self._peers.total(float(kl)) if policy and self._config.target_kl > 0 else 0.0

    def _value_loss(self, work: _Work, rows: Tensor, context: TensorDict | None) -> Tensor:
        seen = context if work.pooled is None else work.pooled[rows]
        loss = clipped_value_loss(
            self._model.value(seen),
            work.old_value[rows].to(self._device),
            work.target[rows].to(self._device),
            self._config.value_clip,
        )
        work.measured.add("value_loss", loss, len(rows))
        return self._config.value_coefficient * loss

    def _surrogate(
        self, work: _Work, rows: Tensor, context: TensorDict
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chunk = on(self._device, work.batch["chunk"][rows])
        given = (
            self._scorer.log_prob(context, chunk),
            work.old_log_prob[rows].to(self._device),
            work.advantage[rows].to(self._device),
            self._config.clip_epsilon,
        )
        if work.weight is None:
            loss, stats = clipped_surrogate(*given)
        else:
            loss, stats = decoupled_surrogate(*given, work.weight[rows].to(self._device))
        work.measured.add_surrogate(loss, stats, chunk["step"])
        return loss, stats

    def _measure_start(self, work: _Work, rows: Tensor, ratio: Tensor, share: float) -> None:
        """Before anything was learned: the ratio, and the gap of the rollout's own density."""
        work.measured.add("ratio_start", (ratio - 1).abs().mean(), share)
        rollout, old = work.batch["chunk", "log_prob"][rows], work.old_log_prob[rows]
        gap = ratio.log() + old.to(self._device) - rollout.to(self._device)
        work.measured.largest("log_prob_gap", gap.abs().max())

    def _step(self, work: _Work, policy: bool) -> None:
        """One optimizer step with the gradients that are there."""
        started = time.perf_counter()
        max_norm = self._config.optimizer.max_grad_norm
        self._peers.add_gradients(p for part in self._parts.values() for p in part)
        groups = [{"value": self._parts["value"]}]
        if policy:
            groups.append({part: p for part, p in self._parts.items() if part != "value"})
        for parts in groups:
            norms = clip_gradients(parts, max_norm)
            if not math.isfinite(norms.pop("total")):
                raise FloatingPointError(
                    f"update {self.version + 1}: the gradient of {', '.join(norms)} is not finite; "
                    "lower ppo.optimizer.learning_rates"
                )
            for part, norm in norms.items():
                work.measured.add(f"grad_norm/{part}", norm)
        with self._weights_lock:
            self._optimizer.step()
        self._timeline.add("learner", "step", started)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs beside the model's weights; `vlarl.training_state` writes it."""
        return {
            "version": self.version,
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; the model's weights must be those of the same moment."""
        self.version = state["version"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._generator.set_state(state["generator"])
