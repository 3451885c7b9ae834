"""What a window of rollout cost and showed, counted as it runs; several workers' as one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


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
    seconds_waiting: float
    """In which there was nothing to do but wait for simulation."""
    seconds_policy: float
    dropped_decisions: int = 0
    """Thrown away because their server failed."""
    dropped_episodes: int = 0
    restarts: int = 0
    allocation: dict[str, int] = field(default_factory=dict)
    """task -> environments that were its own; empty where every environment meets all tasks."""
    running_success: dict[str, float] = field(default_factory=dict)
    """task -> running success rate after this window, from which the next allocation follows."""

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
            "waiting_seconds": self.seconds_waiting,
            "policy_seconds": self.seconds_policy,
            "dropped_decisions": self.dropped_decisions,
            "dropped_episodes": self.dropped_episodes,
            "restarts": self.restarts,
        }
        if episodes:
            values["success_rate"] = successes / episodes
        for task, count in sorted(self.episodes.items()):
            values[f"success_rate/{task}"] = self.successes.get(task, 0) / count
        values |= {f"allocation/{task}": count for task, count in self.allocation.items()}
        values |= {f"running_success/{task}": rate for task, rate in self.running_success.items()}
        return values


def merge_metrics(workers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Several workers' `RolloutStats.metrics` of one iteration as one: they ran side by side."""
    summed = ("decisions", "episodes", "dropped_decisions", "dropped_episodes", "restarts")
    rates = ("decisions_per_second", "env_steps_per_second")
    merged = {}
    for name in dict.fromkeys(name for metrics in workers for name in metrics):
        values = [metrics[name] for metrics in workers if name in metrics]
        adds_up = name in (*summed, *rates) or name.startswith("allocation/")
        merged[name] = sum(values) if adds_up else sum(values) / len(values)
    return merged


def ended(workers: Sequence[RolloutStats]) -> tuple[dict[str, int], dict[str, int]]:
    """Task -> episodes that ended in a window, and how many of them succeeded, of all workers."""
    tasks = dict.fromkeys(task for stats in workers for task in stats.episodes)
    return (
        {task: sum(stats.episodes.get(task, 0) for stats in workers) for task in tasks},
        {task: sum(stats.successes.get(task, 0) for stats in workers) for task in tasks},
    )


@dataclass
class Tally:
    """What is counted while a window runs."""

    waiting: float = 0.0
    policy: float = 0.0
    dropped_decisions: int = 0
    dropped_episodes: int = 0
    restarts: int = 0
    started: float = field(default_factory=time.perf_counter)
