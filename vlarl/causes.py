"""Where the time of an RL iteration goes: its seconds by cause, from a row of `metrics.jsonl`.

Causes follow one another in the process that drives the run, so that they add up; what env servers
do at the same time is not among them (`server_simulation_seconds` and the like).
"""

from __future__ import annotations

from collections.abc import Mapping

CAUSES = {
    "policy": "policy_seconds",
    "waiting for simulation": "waiting_simulation_seconds",
    "waiting for resets": "waiting_reset_seconds",
    "update": "update_seconds",
    "publishing": "publishing_seconds",
    "evaluation": "evaluation_seconds",
    "saving": "saving_seconds",
}
"""Cause -> its metric."""
OTHER = "other"
_WHOLE = ("iteration_seconds", "evaluation_seconds", "saving_seconds")


def seconds_by_cause(row: Mapping[str, float]) -> dict[str, float]:
    """Cause -> seconds of one iteration; with `other` they add up to all of it.

    Args:
        row: of an RL run's metrics.
    """
    found = {cause: row.get(metric) or 0.0 for cause, metric in CAUSES.items()}
    whole = sum(row.get(metric) or 0.0 for metric in _WHOLE)
    return {**found, OTHER: max(0.0, whole - sum(found.values()))}
