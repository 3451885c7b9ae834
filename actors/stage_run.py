"""What every supervised stage does around its trainer: run folder, resuming, saving, the result.

Under `torchrun` each process runs all of this; the first alone writes, the others get a folder that
is thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from actors.controller import Interrupt
from actors.learner_group import backend
from actors.saving import Saving
from learners.sharding import gathered_state
from learners.shares import Peers
from learners.supervised import Metrics, SupervisedTrainer
from vlarl.config.schema import LoggingConfig, RunConfig
from vlarl.errors import SaveError, UserError
from vlarl.model.device import resolved
from vlarl.model.qwen_vla import QwenVLA
from vlarl.progress import Progress
from vlarl.runs import RunFolder
from vlarl.training_state import read_state, write_state

AVERAGE = "average"


@contextmanager
def process_group(config: RunConfig) -> Iterator[Peers]:
    """The processes that `torchrun` started together with this one; alone without it.

    Raises:
        UserError: if a batch cannot be shared evenly, or there is nobody to share a model with.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 and config.runtime.shard != "none":
        raise UserError(
            f"runtime.shard = {config.runtime.shard}: a single process has all of the model. Use "
            "runtime.shard=none, or several: torchrun --nproc-per-node=N -m actors.cli ..."
        )
    if world == 1:
        yield Peers()
        return
    stage = config.supervised
    for name in ("batch_size", "grounding_batch_size", "conversation_batch_size"):
        if getattr(stage, name) % world:
            raise UserError(
                f"supervised.{name} = {getattr(stage, name)}: {world} processes cannot share it "
                f"evenly. Use a multiple of {world}."
            )
    given = config.stage == "t2a" or stage.data.path or stage.data.mixture
    if not given or stage.localization.steps:
        raise UserError(
            "supervised.data.path is empty or supervised.localization.steps is not 0: data is made "
            "and localization learned by one process. Run without torchrun first."
        )
    device = resolved(config.runtime.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend())
    try:
        yield Peers.joined()
    finally:
        dist.destroy_process_group()


@contextmanager
def run_folder(config: RunConfig) -> Iterator[RunFolder]:
    """The run's folder, or a scratch one for all processes but the first."""
    peers = Peers.joined()
    # All have read what was there before the first one changes it.
    peers.wait()
    if peers.leads:
        run = RunFolder.create(config)
        yield run
        run.close()
    else:
        with TemporaryDirectory() as scratch:
            mute = replace(config, output=scratch, name="scratch", logging=LoggingConfig())
            yield RunFolder.create(mute)
    peers.wait()


def saver(
    run: RunFolder,
    model: QwenVLA,
    trainer: SupervisedTrainer,
    beside: Callable[[Path], None] | None = None,
) -> Callable[[int], None]:
    """What writes a checkpoint that can be resumed; `beside` adds files of the stage's own.

    On a full disk it raises SaveError on all processes, so that they go on alike.
    """

    def write(step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        with run.checkpoint(step) as folder:
            model.save_pretrained(folder, state=tensors)
            write_state(state, folder)
            if beside is not None:
                beside(folder)

    def save(step: int) -> None:
        # Of a divided model each process has a part.
        tensors, state = gathered_state(model), trainer.state_dict()
        peers, failed = Peers.joined(), None
        if peers.leads:
            try:
                write(step, tensors, state)
            except SaveError as error:
                failed = error
        if peers.total(float(failed is not None)):
            raise failed or SaveError(f"the first process could not write step {step}")

    return save


def resume(trainer: SupervisedTrainer, checkpoint: Path | None) -> None:
    """Go on from a checkpoint of `saver`, if there is one."""
    if checkpoint is not None:
        trainer.load_state_dict(read_state(checkpoint))


def train_stage(
    config: RunConfig,
    run: RunFolder,
    trainer: SupervisedTrainer,
    interrupt: Interrupt,
    saving: Saving,
    judge: Callable[[int], Metrics] | None = None,
) -> dict[str, Any]:
    """Train to the end, or until it is interrupted; writes the average of weights at the end.

    A checkpoint that cannot be written is counted, and the next tried in its turn.

    Returns:
        `run` and `checkpoint` (folders), `average` (likewise, if asked for), `steps`,
        `interrupted`, and the last metrics.

    Raises:
        SaveError: if the last checkpoint could not be written.
    """
    peers = Peers.joined()

    def save(step: int) -> Metrics:
        saving.attempt(step)
        return saving.metrics()

    with Progress(config.stage, config.supervised.steps) as progress:
        progress.reach(trainer.step)
        metrics = trainer.train(
            save=save,
            evaluate=judge,
            progress=lambda step, found: progress.reach(step, **_shown(found)),
            stop=lambda: peers.total(interrupt.pressed) > 0,
        )
    saving.finish(trainer.step)
    result: dict[str, Any] = {
        "run": str(run.path),
        "checkpoint": str(run.checkpoint_path(trainer.step)) if peers.leads else "",
        "steps": trainer.step,
        "interrupted": interrupt.pressed,
        **metrics,
    }
    if trainer.average is not None:
        with trainer.average.in_place():
            tensors = gathered_state(trainer.model)
            if peers.leads:
                trainer.model.save_pretrained(run.path / AVERAGE, state=tensors)
                result["average"] = str(run.path / AVERAGE)
    return result


def _shown(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if name.endswith("_loss")}
