"""Where the time of an RL iteration goes: its seconds by cause, from a row of `metrics.jsonl`.

Causes follow one another in the process that drives the run, so that they add up; what goes on at
the same time is not among them: env servers' work, and with `rollout.mode: async` all of rollout.
"""

from __future__ import annotations

from collections.abc import Mapping

CAUSES = {
    "policy": "policy_seconds",
    "waiting for simulation": "waiting_simulation_seconds",
    "waiting for resets": "waiting_reset_seconds",
    "waiting for decisions": "learner_waiting_seconds",
    "update": "update_seconds",
    "publishing": "publishing_seconds",
    "evaluation": "evaluation_seconds",
    "saving": "saving_seconds",
}
"""Cause -> its metric."""
_OF_ROLLOUT = ("policy", "waiting for simulation", "waiting for resets")
"""Beside learning, not in turn with it, where learning has to wait for decisions."""
OTHER = "other"
_WHOLE = ("iteration_seconds", "evaluation_seconds", "saving_seconds")


def seconds_by_cause(row: Mapping[str, float]) -> dict[str, float]:
    """Cause -> seconds of one iteration; with `other` they add up to all of it.

    Args:
        row: of an RL run's metrics.
    """
    found = {cause: row.get(metric) or 0.0 for cause, metric in CAUSES.items()}
    if CAUSES["waiting for decisions"] in row:
        found |= dict.fromkeys(_OF_ROLLOUT, 0.0)
    whole = sum(row.get(metric) or 0.0 for metric in _WHOLE)
    return {**found, OTHER: max(0.0, whole - sum(found.values()))}
