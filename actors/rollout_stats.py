"""What a window of rollout cost and showed, counted as it runs; several workers' as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from actors.segment import Segment


@dataclass(frozen=True)
class RolloutStats:
    """What one window cost and showed."""

    decisions: int
    control_steps: int
    """Executed in the decisions that count."""
    episodes: dict[str, int]
    """task -> episodes that ended in this window."""
    successes: dict[str, int]
    """task -> how many of them succeeded."""
    mean_length: float
    """Control steps of the episodes that ended; 0 if none did."""
    mean_reward: float
    """For each decision."""
    seconds: float
    seconds_waiting_simulation: float
    """In which there was nothing to do but wait, and a chunk's answer ended it."""
    seconds_waiting_resets: float
    """Likewise, ended by the answer to resets."""
    seconds_policy: float
    policy_calls: int
    batch_fill: float | None = None
    """Mean environments of a call of the policy over their bound; None where there is none."""
    dropped_decisions: int = 0
    """Thrown away because their server failed."""
    dropped_episodes: int = 0
    restarts: int = 0
    allocation: dict[str, int] = field(default_factory=dict)
    """task -> environments that were its own; empty where every environment meets all tasks."""
    running_success: dict[str, float] = field(default_factory=dict)
    """task -> running success rate after this window, from which the next allocation follows."""
    dropped_queue_full: int | None = None
    """Decisions thrown away because learning was slower than rollout; None if it takes turns."""
    seconds_learner_waiting: float | None = None
    """In which learning waited for decisions; None likewise."""

    def of_stream(self, dropped_queue_full: int, seconds_learner_waiting: float) -> RolloutStats:
        """The same, of a rollout that goes on while others learn."""
        return dataclasses.replace(
            self,
            dropped_queue_full=dropped_queue_full,
            seconds_learner_waiting=seconds_learner_waiting,
        )

    def metrics(self) -> dict[str, float]:
        """The same, flat, as `metrics.jsonl` holds them."""
        episodes, successes = sum(self.episodes.values()), sum(self.successes.values())
        values: dict[str, float] = {
            "decisions": self.decisions,
            "episodes": episodes,
            "episode_length": self.mean_length,
            "reward": self.mean_reward,
            "decisions_per_second": self.decisions / self.seconds,
            "env_steps_per_second": self.control_steps / self.seconds,
            "rollout_seconds": self.seconds,
            "waiting_seconds": self.seconds_waiting_simulation + self.seconds_waiting_resets,
            "waiting_simulation_seconds": self.seconds_waiting_simulation,
            "waiting_reset_seconds": self.seconds_waiting_resets,
            "policy_seconds": self.seconds_policy,
            "policy_calls": self.policy_calls,
            "dropped_decisions": self.dropped_decisions,
            "dropped_episodes": self.dropped_episodes,
            "restarts": self.restarts,
        }
        optional = {
            "batch_fill": self.batch_fill,
            "dropped_queue_full": self.dropped_queue_full,
            "learner_waiting_seconds": self.seconds_learner_waiting,
        }
        values |= {name: value for name, value in optional.items() if value is not None}
        if episodes:
            values["success_rate"] = successes / episodes
        for task, count in sorted(self.episodes.items()):
            values[f"success_rate/{task}"] = self.successes.get(task, 0) / count
        values |= {f"allocation/{task}": count for task, count in self.allocation.items()}
        values |= {f"running_success/{task}": rate for task, rate in self.running_success.items()}
        return values


@dataclass
class Tally:
    """What is counted while decisions are made; sums only."""

    waiting_simulation: float = 0.0
    waiting_resets: float = 0.0
    policy: float = 0.0
    calls: int = 0
    acted_for: int = 0
    """Environments of all calls of the policy."""
    dropped_decisions: int = 0
    dropped_episodes: int = 0
    restarts: int = 0

    def waited(self, seconds: float, cause: str) -> None:
        """Count a wait that ended with the answer to a step (`simulation`) or to `resets` alone."""
        if cause == "resets":
            self.waiting_resets += seconds
        else:
            self.waiting_simulation += seconds

    def add(self, other: Tally) -> None:
        """Count what another counted, too."""
        for each in dataclasses.fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def summarize(
    segments: Sequence[Segment],
    tally: Tally,
    tasks: Sequence[str],
    seconds: float,
    batch_environments: int = 0,
) -> RolloutStats:
    """What segments showed, and what was counted in the `seconds` that they took.

    `batch_environments` is the bound of a call of the policy; 0: none.
    """
    finished = [episode for segment in segments for episode in segment.finished]
    episodes = {task: sum(e.task == task for e in finished) for task in tasks}
    wins = {task: sum(e.task == task and e.success for e in finished) for task in tasks}
    decisions = sum(len(segment.rows) for segment in segments)
    rewards = torch.cat([segment.rows["reward"] for segment in segments])
    fill = tally.acted_for / (tally.calls * batch_environments) if batch_environments else None
    return RolloutStats(
        decisions=decisions,
        control_steps=sum(segment.control_steps for segment in segments),
        episodes={task: count for task, count in episodes.items() if count},
        successes={task: wins[task] for task, count in episodes.items() if count},
        mean_length=float(np.mean([e.length for e in finished])) if finished else 0.0,
        mean_reward=float(rewards.mean()),
        seconds=seconds,
        seconds_waiting_simulation=tally.waiting_simulation,
        seconds_waiting_resets=tally.waiting_resets,
        seconds_policy=tally.policy,
        policy_calls=tally.calls,
        batch_fill=fill,
        dropped_decisions=tally.dropped_decisions,
        dropped_episodes=tally.dropped_episodes,
        restarts=tally.restarts,
    )


def merge_metrics(workers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Several workers' `RolloutStats.metrics` of one iteration as one: they ran side by side."""
    counts = ("decisions", "episodes", "policy_calls", "restarts")
    dropped = ("dropped_decisions", "dropped_episodes", "dropped_queue_full")
    rates = ("decisions_per_second", "env_steps_per_second")
    merged = {}
    for name in dict.fromkeys(name for metrics in workers for name in metrics):
        values = [metrics[name] for metrics in workers if name in metrics]
        adds_up = name in (*counts, *dropped, *rates) or name.startswith("allocation/")
        merged[name] = sum(values) if adds_up else sum(values) / len(values)
    return merged


def ended(workers: Sequence[RolloutStats]) -> tuple[dict[str, int], dict[str, int]]:
    """Task -> episodes that ended in a window, and how many of them succeeded, of all workers."""
    tasks = dict.fromkeys(task for stats in workers for task in stats.episodes)
    return (
        {task: sum(stats.episodes.get(task, 0) for stats in workers) for task in tasks},
        {task: sum(stats.successes.get(task, 0) for stats in workers) for task in tasks},
    )
