"""The table of two evaluations on the same episodes: success of each, gain, interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def print_gains(
    before: Mapping[str, Any], after: Mapping[str, Any], paired: Mapping[str, Any], *heads: str
) -> None:
    """Print it, a row for each task and one for all.

    Args:
        before: summary, as in `evaluation.json`.
        after: likewise, of the same episodes.
        paired: their comparison (`vlarl.evaluation.results.compare`).
        heads: what the two are called.
    """
    table = Table("task", *heads, "gain", "95% interval")
    for task in [*before["tasks"], "all"]:
        first, second, gain = (
            row if task == "all" else row["tasks"][task] for row in (before, after, paired)
        )
        low, high = gain["interval"]
        table.add_row(
            task.replace("_", " "),
            f"{first['success_rate']:.0%}",
            f"{second['success_rate']:.0%}",
            f"{100 * gain['difference']:+.0f}",
            f"{100 * low:+.0f} to {100 * high:+.0f}",
        )
    Console().print(table)
