"""Evaluates one checkpoint on env servers of its own, in this process. Behind `vlarl eval`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from actors.env_host import EnvAccess, EnvHost
from actors.evaluation import EvaluationRequest
from actors.rollout_worker import RolloutWorker
from actors.run_model import load_model
from actors.suite_checks import check_run
from vlarl.config.schema import RunConfig
from vlarl.progress import Progress


def reported(progress: Progress) -> Callable[[int, int], None]:
    """What an evaluation tells of its episodes (done, in all), shown by `progress`."""
    shown = 0

    def advance(done: int, _total: int) -> None:
        nonlocal shown
        progress.advance(done - shown)
        shown = done

    return advance


def evaluate_checkpoint(
    checkpoint: str | Path, config: RunConfig, swap: bool = False
) -> dict[str, Any]:
    """Deterministic evaluation on `config.evaluation`'s held-out initial states.

    Args:
        checkpoint: folder, or name of a packaged one.
        config: its env, sampling and evaluation sections count.
        swap: the control, in which the policy is told another task than the scene's own.

    Returns:
        The summary of `vlarl.evaluation.results`.

    Raises:
        UserError: for a checkpoint that does not fit the environments, an unknown suite or task.
    """
    torch.set_num_threads(config.runtime.threads)
    model = dataclasses.replace(config.model, checkpoint=str(checkpoint))
    config = dataclasses.replace(config, model=model)
    check_run(config)
    host = None if config.env.mode == "inprocess" else EnvHost(config.env)
    try:
        access = EnvAccess(config.env, host)
        worker = RolloutWorker(config, load_model(config, *access.specs.values()), access)
        request = EvaluationRequest(
            config.evaluation.episodes, config.evaluation.seed, config.env.tasks, swap=swap
        )
        with Progress("evaluate", request.episodes, "episodes") as progress:
            summary = worker.evaluate(request, reported(progress)).summary
        worker.close()
    finally:
        if host is not None:
            host.close()
    return summary
