"""What an evaluation found: outcomes per episode, summed up, compared, checked for a swap.

These records are the parts of a run folder's `evaluation.json`, which the report page is made of:

    {"sft": Summary, "instruct": Summary, "paired": Comparison,
     "swapped": {"sft": SwapSummary, "instruct": SwapSummary},
     "seconds": float, "machine": str}

Every part but `sft` may be missing. Plain dictionaries, so that they are JSON as they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from vlarl.evaluation.statistics import (
    PAIRED_METHOD,
    mcnemar,
    mean_interval,
    normal_interval,
    paired_counts,
    paired_interval,
    wilson,
)


@dataclass(frozen=True)
class Outcome:
    """One evaluated episode."""

    task: str
    seed: int
    success: bool
    steps: int
    """Control steps until the episode ended."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the suite's published tables hold beside success, such as `spl`."""


@dataclass(frozen=True)
class SwapOutcome:
    """One episode whose instruction was another task's, on the same scene."""

    task: str
    """The scene's own task, whose instruction was withheld."""
    named: str
    """The task whose instruction was given."""
    seed: int
    own_success: bool
    named_success: bool
    steps: int


def summarize(
    outcomes: Sequence[Outcome], seed: int, groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Success rate and Wilson interval, over all episodes and for each task.

    Args:
        outcomes: of the episodes.
        seed: first of the initial states.
        groups: name -> tasks, of a suite whose tables have them; every group has an episode.

    Returns:
        `{"success_rate", "interval": [low, high], "episodes", "seed", "tasks": {name: {...}},
        "outcomes": [...]}`, where the episodes have metrics, over all and for each task,
        `"metrics": {name: {"mean", "interval"}}` (None for the interval of one episode), and with
        groups `"groups": {name: {...}}` and `"mean_of_groups":
        {"success_rate", "interval", "episodes"}`, in which each group counts the same.

    Raises:
        ValueError: for no outcomes.
    """
    tasks = dict.fromkeys(outcome.task for outcome in outcomes)
    grouped = {
        name: [outcome.success for outcome in outcomes if outcome.task in own]
        for name, own in (groups or {}).items()
    }
    return {
        **_rate([outcome.success for outcome in outcomes]),
        **_metrics(outcomes),
        **(_groups(grouped) if grouped else {}),
        "seed": seed,
        "tasks": {task: _of_task([o for o in outcomes if o.task == task]) for task in tasks},
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def summarize_swap(outcomes: Sequence[SwapOutcome], seed: int) -> dict[str, Any]:
    """Success on the scene's own task and on the one that the instruction named.

    Returns:
        `{"own": {"success_rate", "interval", "episodes"}, "named": {...}, "episodes", "seed",
        "tasks": {name: {"own", "named"}}, "outcomes": [...]}`.
    """
    tasks = dict.fromkeys(outcome.task for outcome in outcomes)
    return {
        **_own_and_named(outcomes),
        "episodes": len(outcomes),
        "seed": seed,
        "tasks": {task: _own_and_named([o for o in outcomes if o.task == task]) for task in tasks},
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Compare two summaries episode by episode.

    Returns:
        `{"difference", "interval": [low, high], "episodes", "gained", "lost", "p_value", "method",
        "tasks": {name: the same}}`; `difference` is after minus before.

    Raises:
        ValueError: if the two did not meet the same episodes.
    """
    first, second = _by_episode(before["outcomes"]), _by_episode(after["outcomes"])
    if first.keys() != second.keys():
        missing = len(first.keys() ^ second.keys())
        raise ValueError(
            f"{missing} episodes are in only one of the two evaluations: evaluate both with the "
            "same seed, tasks and episodes"
        )
    tasks = dict.fromkeys(task for task, _ in first)
    return {
        **_paired([(first[key], second[key]) for key in first]),
        "method": PAIRED_METHOD,
        "tasks": {
            task: _paired([(first[key], second[key]) for key in first if key[0] == task])
            for task in tasks
        },
    }


def significant_falls(comparison: dict[str, Any], level: float = 0.05) -> list[str]:
    """Tasks that lost more episodes than they gained, with a McNemar p-value below `level`."""
    return [
        task
        for task, row in comparison["tasks"].items()
        if row["lost"] > row["gained"] and row["p_value"] < level
    ]


def _rate(successes: Sequence[bool]) -> dict[str, Any]:
    won = sum(successes)
    interval = wilson(won, len(successes))
    return {
        "success_rate": won / len(successes),
        "interval": list(interval),
        "episodes": len(successes),
    }


def _of_task(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {**_rate([outcome.success for outcome in outcomes]), **_metrics(outcomes)}


def _metrics(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means of what each of the episodes' metrics came to, of those that have it."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.metrics)
    found = {}
    for name in names:
        values = [outcome.metrics[name] for outcome in outcomes if name in outcome.metrics]
        interval = normal_interval(values) if len(values) > 1 else None
        found[name] = {
            "mean": fmean(values),
            "interval": None if interval is None else list(interval),
        }
    return {"metrics": found} if found else {}


def _groups(successes: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    counts = [(sum(own), len(own)) for own in successes.values()]
    return {
        "groups": {name: _rate(own) for name, own in successes.items()},
        "mean_of_groups": {
            "success_rate": sum(won / n for won, n in counts) / len(counts),
            "interval": list(mean_interval(counts)),
            "episodes": sum(n for _, n in counts),
        },
    }


def _own_and_named(outcomes: Sequence[SwapOutcome]) -> dict[str, Any]:
    return {
        "own": _rate([outcome.own_success for outcome in outcomes]),
        "named": _rate([outcome.named_success for outcome in outcomes]),
    }


def _by_episode(outcomes: Iterable[dict[str, Any]]) -> dict[tuple[str, int], bool]:
    rows = list(outcomes)
    found = {(row["task"], row["seed"]): bool(row["success"]) for row in rows}
    if len(found) < len(rows):
        raise ValueError("an evaluation holds the same task and seed twice")
    return found


def _paired(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    _, lost, gained, _ = paired_counts(before, after)
    return {
        "difference": (gained - lost) / len(pairs),
        "interval": list(paired_interval(before, after)),
        "episodes": len(pairs),
        "gained": gained,
        "lost": lost,
        "p_value": mcnemar(before, after),
    }
