"""Deterministic evaluation of a policy: success on held-out initial states, and the swap control.

Playing is in `player.py`, statistics and the shape of the results in `vlarl.evaluation.results`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.episodes import held_out_starts, swapped_starts
from actors.player import EpisodeRecord, Progress, play
from actors.rollout import Restart
from vlarl.env_protocol import EnvClient
from vlarl.evaluation.results import Outcome, SwapOutcome, summarize, summarize_swap
from vlarl.evaluation.video import write_gif
from vlarl.policy import Policy

__all__ = ["EvalResult", "EvaluationRequest", "evaluate", "held_out_starts", "write_videos"]


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate on; the same request for every checkpoint that is to be compared."""

    episodes: int
    seed: int
    """First scene seed."""
    tasks: tuple[str, ...] = ()
    """Empty: all tasks of the suite."""
    videos: int = 0
    """How many of the first episodes to film."""
    swap: bool = False
    """The control: tell the policy another task than the scene's own."""


@dataclass(frozen=True)
class EvalResult:
    """One evaluation."""

    summary: dict[str, Any]
    """As `vlarl.evaluation.results.summarize` (or `summarize_swap`) says."""
    films: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list)
    """Caption and frames [steps, height, width, 3] of the filmed episodes."""


def evaluate(
    policy: Policy,
    clients: Sequence[EnvClient],
    request: EvaluationRequest,
    *,
    restart: Restart | None = None,
    max_restarts: int = 3,
    progress: Progress | None = None,
) -> EvalResult:
    """Play the request's episodes and sum them up.

    Raises:
        UserError: for a request that cannot be met (too few tasks to swap, a seed of training).
        EnvServerError: naming a server that failed more often than allowed.
    """
    tasks = request.tasks or clients[0].spec.tasks
    starts = held_out_starts(tasks, request.episodes, request.seed)
    own = [start.task for start in starts]
    if request.swap:
        starts = swapped_starts(starts, tasks)
    records = play(
        policy,
        clients,
        starts,
        record=request.videos,
        restart=restart,
        max_restarts=max_restarts,
        progress=progress,
    )
    films = [(_caption(record), record.frames) for record in records if record.frames is not None]
    if request.swap:
        columns = clients[0].spec.tasks
        swapped = [
            _swap_outcome(record, task, columns.index(task))
            for record, task in zip(records, own, strict=True)
        ]
        return EvalResult(summarize_swap(swapped, request.seed), films)
    outcomes = [Outcome(r.start.task, r.start.seed, r.success, r.steps) for r in records]
    return EvalResult(summarize(outcomes, request.seed), films)


def write_videos(result: EvalResult, folder: Path, prefix: str, control_hz: float) -> list[Path]:
    """Write the filmed episodes as `PREFIX_N.gif`; returns the files."""
    files = []
    for number, (caption, frames) in enumerate(result.films):
        files.append(folder / f"{prefix}_{number}.gif")
        write_gif(files[-1], frames, control_hz, caption)
    return files


def _swap_outcome(record: EpisodeRecord, own: str, column: int) -> SwapOutcome:
    return SwapOutcome(
        task=own,
        named=record.start.task,
        seed=record.start.seed,
        own_success=bool(record.achieved[column]),
        named_success=record.success,
        steps=record.steps,
    )


def _caption(record: EpisodeRecord) -> str:
    return f"{record.start.task}: {'success' if record.success else 'failure'}"
