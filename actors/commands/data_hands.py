"""`vlarl data hands`: eigengrasps fitted to a dataset of human hands (paper section 3.2.2)."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """Fit, report, write."""
    raise UserError(f"data hands {invocation.arguments[0]}: not written yet")


COMMAND = Command(
    usage="data hands DATASET [out=FILE_OR_DIR]",
    arguments=("DATASET",),
    settings={"out": "where the fit is written"},
    details="Fits the eigengrasps of section 3.2.2 to a dataset.",
    example="vlarl data hands datasets/hands out=datasets/hands/meta",
    run=run,
)
