"""What the present weights say of decisions that were made earlier, or by others.

They score stored chunks with the very functions that the sampler uses (`vlarl.sampler`). Rows come
from wherever the batch lies and go to the model's device; several processes share a whole batch.
Leaves out what is learned from it.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from learners.shares import Peers
from vlarl.config.schema import SamplingConfig
from vlarl.mixed_rows import encode_rows
from vlarl.model.device import on
from vlarl.policy import PolicyModel
from vlarl.sampler import score


class Scorer:
    """Reads the batches of one learner with its model.

    Args:
        model: of which every call takes the weights that it has then.
        sampling: with which the chunks were made.
        encodes: whether the backbone changes, so that contexts are computed from `inputs`;
            otherwise they are in the batch.
        micro_batch: rows at a time, where whole batches are read.
    """

    def __init__(
        self, model: PolicyModel, sampling: SamplingConfig, encodes: bool, micro_batch: int
    ) -> None:
        self._model, self._sampling, self._encodes = model, sampling, encodes
        self._micro_batch = micro_batch
        self._peers = Peers.joined()
        self._device = model.exploration_log_std.device

    def context(self, batch: TensorDict, rows: Tensor) -> TensorDict:
        """[b] what the policy saw in these rows; with gradients where the backbone trains."""
        if self._encodes:
            return encode_rows(self._model, batch["inputs"][rows])
        return on(self._device, batch["context"][rows])

    def log_prob(self, context: TensorDict, chunk: TensorDict) -> Tensor:
        """[b] log-probability of stored chunks [b], on the model's device."""
        return score(
            lambda y, tau: self._model.velocity(context, y, tau, chunk["mask"]),
            chunk,
            self._sampling.denoising_steps,
            self._sampling.exploration,
            self._sampling.rollout_temperature,
            self._model.exploration_log_std,
        )

    @torch.no_grad()
    def scored(self, batch: TensorDict) -> tuple[Tensor, Tensor]:
        """[M] log-probabilities and [M] values of a whole batch, on the CPU."""

        def rows_scored(rows: Tensor) -> Tensor:
            context, chunk = self.context(batch, rows), on(self._device, batch["chunk"][rows])
            return torch.stack([self.log_prob(context, chunk), self._model.value(context)], dim=1)

        log_prob, value = self._peers.gathered(len(batch), rows_scored, self._micro_batch).T.cpu()
        return log_prob, value

    @torch.no_grad()
    def pooled(self, batch: TensorDict) -> TensorDict:
        """[M] contexts of a single token, the mean of the unmasked ones: the value is the same."""

        def pooled(rows: Tensor) -> Tensor:
            context = self.context(batch, rows)
            weight = context["mask"].unsqueeze(1).float()
            return torch.bmm(weight, context["hidden"].float()) / weight.sum(-1, True)

        hidden = self._peers.gathered(len(batch), pooled, self._micro_batch)
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=self._device)
        seen = batch["inputs" if self._encodes else "context"]
        elapsed = seen["elapsed"].to(self._device)
        return TensorDict(
            {"hidden": hidden, "mask": mask, "elapsed": elapsed}, batch_size=[len(batch)]
        )
