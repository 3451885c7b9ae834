"""`vlarl report`: build the report page of a run again from its files."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation


def run(invocation: Invocation) -> dict[str, Any]:
    """Write `report.html` into the run folder."""
    from vlarl.evaluation.report import write_report

    path = write_report(invocation.arguments[0])
    print(path)
    return {"path": str(path)}


COMMAND = Command(
    usage="report RUN",
    arguments=("RUN",),
    settings={},
    details="Builds RUN/report.html from the run's evaluation.json, metrics.jsonl and videos.",
    example="vlarl report runs/demo",
    run=run,
)
