"""What a row of an RL run's metrics says of the iterations before it: smoothed success, totals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_EMA = 0.9
_TOTALS = {"restarts_total": "restarts", "dropped_episodes_total": "dropped_episodes"}
"""Sum over the run -> what it adds up."""


class RunningNumbers:
    """Goes on from the rows of the iterations done so far.

    Args:
        rows: of `metrics.jsonl`, oldest first.
    """

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()) -> None:
        self._smooth: float | None = None
        self._totals = dict.fromkeys(_TOTALS, 0.0)
        for row in rows:
            self._smooth = row.get("success_rate_smooth", self._smooth)
            self._totals = {name: row.get(name, total) for name, total in self._totals.items()}

    def of(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Take in one iteration; `success_rate_smooth`, once an episode ended, and the totals."""
        for name, part in _TOTALS.items():
            self._totals[name] += metrics.get(part, 0.0)
        if "success_rate" not in metrics:
            return dict(self._totals)
        self._smooth = _blend(self._smooth, metrics["success_rate"])
        return {"success_rate_smooth": self._smooth, **self._totals}


def _blend(smooth: float | None, value: float) -> float:
    return value if smooth is None else _EMA * smooth + (1 - _EMA) * value
