"""Learns: the PPO learner with its model, its checkpoints, and, by default, a rollout worker.

A plain class. When the worker lives here it acts with the very same model object, so there are no
weights to move and no second copy of anything, even while it learns (`rollout.mode: async`);
otherwise batches come in and weights go out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from actors.env_host import EnvAccess
from actors.evaluation import EvalResult, EvaluationRequest
from actors.learner_group import divide
from actors.player import Progress
from actors.process_stats import process_use
from actors.rollout_worker import RolloutWorker
from actors.run_model import load_model
from actors.segment import joined
from actors.weights import Bytes, WeightsUpdate, extract_weights
from learners.ppo import PPOLearner
from learners.sharding import gathered_state
from learners.shares import Peers
from vlarl.config.schema import RunConfig
from vlarl.timeline import Timeline
from vlarl.training_state import read_state, write_state
from vlarl.types import EnvSpec


class Learner:
    """One model being trained, by this process or by several that joined (`learner_group`).

    Args:
        config: of the run.
        access: env servers, if this process acts too; closed with the learner.
        specs: of the environments, by suite, where no worker lives here.
        checkpoint: a checkpoint of this run to continue from.
    """

    def __init__(
        self,
        config: RunConfig,
        access: EnvAccess | None,
        specs: dict[str, EnvSpec] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        torch.set_num_threads(config.runtime.threads)
        if access is not None:
            specs = access.specs
        assert specs is not None
        self._config = config
        self.model = load_model(config, *specs.values(), checkpoint=checkpoint)
        divide(config, self.model)
        self.timeline = Timeline("learner")
        self.worker: RolloutWorker | None = None
        if access is not None:
            self.worker = RolloutWorker(
                config, self.model, access, timeline=self.timeline, version=lambda: self.version
            )
        self._learner = PPOLearner(
            self.model,
            config.ppo,
            config.sampling,
            config.ppo.iterations,
            config.seed,
            timeline=self.timeline,
            weights_lock=None if self.worker is None else self.worker.weights_lock,
            offload=config.runtime.offload == "optimizer",
        )
        if checkpoint is not None:
            state = read_state(checkpoint)
            self._learner.load_state_dict(state["learner"])
            if self.worker is not None:
                self.worker.load_state_dict(state["workers"][0])

    @property
    def version(self) -> int:
        """Of the weights: updates so far."""
        return self._learner.version

    def iterate(self) -> dict[str, float]:
        """The decisions of one iteration and the update they allow; metrics of both."""
        assert self.worker is not None
        batch, stats = self.worker.collect()
        # By the end of the update, the servers are done with the window's last resets.
        return {**stats.metrics(), **self.update([batch]), **self.worker.servers_use()}

    def update(self, batches: Sequence[TensorDict]) -> dict[str, float]:
        """Learn from the workers' batches of one iteration; each numbers its streams from 0."""
        started = time.perf_counter()
        batch = joined(batches)
        rollout = self._config.rollout
        staleness = rollout.max_staleness if rollout.mode == "async" else None
        ages = self._learner.version - batch["version"]
        metrics = self._learner.update(batch, max_staleness=staleness)
        self.timeline.add("learner", "update", started)
        return {
            **process_use("learner", self.model.device),
            "batch_age": float(ages.max()),
            **metrics,
            "batch_bytes_per_decision": batch.bytes() / batch.shape[0],
            "update_seconds": time.perf_counter() - started,
        }

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """See `RolloutWorker.evaluate`."""
        assert self.worker is not None
        return self.worker.evaluate(request, progress)

    def weights(self, put: Callable[[Bytes], Any]) -> WeightsUpdate:
        """For workers in other processes, put where they find them; see `extract_weights`.

        All learners of a run call this; the first one's is the update, and it alone puts.
        """
        if not Peers.joined().leads:
            put = _dropped
        return extract_weights(self.model, self._learner.version, put)

    def save(self, folder: Path, workers: Sequence[dict[str, Any]] = ()) -> None:
        """Write a checkpoint folder: the model's, and the training state beside it.

        Args:
            folder: to write into; its content is replaced.
            workers: states of the rollout workers in other processes.

        All learners of a run call this; the first one writes.
        """
        tensors, learner = gathered_state(self.model), self._learner.state_dict()
        if not Peers.joined().leads:
            return
        self.model.save_pretrained(folder, state=tensors)
        states = [*workers] if self.worker is None else [self.worker.state_dict()]
        write_state({"learner": learner, "workers": states}, folder)

    def close(self) -> None:
        """Disconnect the worker that lives here."""
        if self.worker is not None:
            self.worker.close()


def _dropped(_part: Bytes) -> None:
    """What a learner that only helps to gather does with the bytes."""
