"""Deterministic evaluation of a policy: success on held-out initial states, and the swap control.

Playing is in `player.py`, statistics and the shape of the results in `vlarl.evaluation.results`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.arena import Arena, named
from actors.episodes import held_out_starts, swapped_starts
from actors.player import EpisodeRecord, Progress, play_together
from actors.rollout import Restart
from envservers.task_groups import expand, published_metrics, reported_groups
from vlarl.env_protocol import EnvClient
from vlarl.evaluation.results import Outcome, SwapOutcome, summarize, summarize_swap
from vlarl.evaluation.video import write_gif
from vlarl.policy import EvaluatedPolicy

__all__ = ["EvalResult", "EvaluationRequest", "evaluate", "held_out_starts", "write_videos"]


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate on; the same request for every checkpoint that is to be compared."""

    episodes: int
    seed: int
    """First scene seed."""
    tasks: tuple[str, ...] = ()
    """Names of tasks or of the suite's groups; empty: all tasks of the suite."""
    videos: int = 0
    """How many of the first episodes to film."""
    swap: bool = False
    """The control: tell the policy another task than the scene's own."""


class Film(NamedTuple):
    """One filmed episode."""

    caption: str
    frames: NDArray[np.uint8]
    """[steps, height, width, 3] of the first camera."""
    control_hz: float


@dataclass(frozen=True)
class EvalResult:
    """One evaluation."""

    summary: dict[str, Any]
    """As `vlarl.evaluation.results.summarize` (or `summarize_swap`) says."""
    films: list[Film] = field(default_factory=list)


def evaluate(
    policy: EvaluatedPolicy,
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
    spec = clients[0].spec
    tasks = expand(spec.suite, request.tasks) or spec.tasks
    arena = Arena(policy, dict(enumerate(clients)), tasks)
    return evaluate_arenas(
        [arena], request, restart=restart, max_restarts=max_restarts, progress=progress
    )


def evaluate_arenas(
    arenas: Sequence[Arena],
    request: EvaluationRequest,
    *,
    restart: Restart | None = None,
    max_restarts: int = 3,
    progress: Progress | None = None,
) -> EvalResult:
    """As `evaluate`, in several suites at the same time, over the tasks that each arena names.

    Episodes are spread evenly over the tasks of all suites. A suite with a single task has none to
    swap it with, and takes no part in that.
    """
    if request.swap and len(arenas) > 1:
        arenas = [arena for arena in arenas if len(arena.tasks) > 1]
    home = {named(arena.suite, task): (arena, task) for arena in arenas for task in arena.tasks}
    drawn = held_out_starts(list(home), request.episodes, request.seed)
    arena_of = [home[start.task][0] for start in drawn]
    starts = [dataclasses.replace(start, task=home[start.task][1]) for start in drawn]
    own = [[i for i, its in enumerate(arena_of) if its is arena] for arena in arenas]
    scenes = [start.task for start in starts]
    if request.swap:
        for arena, places in zip(arenas, own, strict=True):
            told = swapped_starts([starts[place] for place in places], arena.tasks)
            for place, start in zip(places, told, strict=True):
                starts[place] = start
    records = play_together(
        arenas,
        starts,
        own,
        record=request.videos,
        restart=restart,
        max_restarts=max_restarts,
        progress=progress,
    )
    played = list(zip(arena_of, records, strict=True))
    films = [
        Film(_caption(arena, record), record.frames, arena.spec.control_hz)
        for arena, record in played
        if record.frames is not None
    ]
    if request.swap:
        swapped = [
            _swap_outcome(arena, record, scene)
            for (arena, record), scene in zip(played, scenes, strict=True)
        ]
        return EvalResult(summarize_swap(swapped, request.seed), films)
    # Groups are of one suite: over several of them a mean would say nothing.
    groups = reported_groups(arenas[0].spec.suite, arenas[0].tasks) if len(arenas) == 1 else {}
    outcomes = [_outcome(arena, record) for arena, record in played]
    by_name = {name: [named(arenas[0].suite, t) for t in own] for name, own in groups.items()}
    return EvalResult(summarize(outcomes, request.seed, by_name), films)


def write_videos(result: EvalResult, folder: Path, prefix: str) -> list[Path]:
    """Write the filmed episodes as `PREFIX_N.gif`; returns the files."""
    files = []
    for number, film in enumerate(result.films):
        files.append(folder / f"{prefix}_{number}.gif")
        write_gif(files[-1], film.frames, film.control_hz, film.caption)
    return files


def _outcome(arena: Arena, record: EpisodeRecord) -> Outcome:
    return Outcome(
        task=named(arena.suite, record.start.task),
        seed=record.start.seed,
        success=record.success,
        steps=record.steps,
        metrics={name: record.info[name] for name in published_metrics(arena.spec.suite)},
    )


def _swap_outcome(arena: Arena, record: EpisodeRecord, own: str) -> SwapOutcome:
    column = arena.spec.tasks.index(own)
    return SwapOutcome(
        task=named(arena.suite, own),
        named=named(arena.suite, record.start.task),
        seed=record.start.seed,
        own_success=bool(record.achieved[column]),
        named_success=record.success,
        steps=record.steps,
    )


def _caption(arena: Arena, record: EpisodeRecord) -> str:
    outcome = "success" if record.success else "failure"
    return f"{named(arena.suite, record.start.task)}: {outcome}"
