"""`vlarl data hands`: eigengrasps fitted to a dataset of human hands (paper section 3.2.2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """Fit, print what ten components lose, write the file."""
    from vlarl.config.embodiments import load_embodiment
    from vlarl.data.hand_fit import FIT, fit_hands
    from vlarl.data.lerobot_reader import LeRobotReader

    out = Path(invocation.settings.get("out", ""))
    if out == Path():
        raise UserError("data hands needs out=FILE_OR_DIR, where the fit is written.")
    file = out if out.suffix == ".json" else out / FIT
    if file.exists():
        raise UserError(f"{file} exists already: choose another name or remove it")
    fit = fit_hands(LeRobotReader(invocation.arguments[0]), load_embodiment("human_hands").horizon)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(fit, indent=1))
    _print(fit)
    print(f"fit: {file}")
    found = {key: fit[key] for key in ("horizon", "frames", "reconstruction", "action_stats")}
    return {"out": str(file), **found}


def _print(fit: dict[str, Any]) -> None:
    found = fit["reconstruction"]
    print(f"10 of 45 components hold {found['explained_variance']:.1%} of the variance")
    print("hand   joint  frames  explained  mean, degrees  95th percentile, degrees")
    for side, frames in fit["frames"].items():
        if side not in found:
            print(f"{side:<5}  never seen")
            continue
        hand = found[side]
        joints = zip(*(hand["joints"][key] for key in ("mean_degrees", "p95_degrees")), strict=True)
        mean, p95 = hand["mean_degrees"], hand["p95_degrees"]
        explained = f"{hand['explained_variance']:.1%}"
        print(f"{side:<5}  all    {frames:>6}  {explained:>9}  {mean:>13.2f}  {p95:>24.2f}")
        for number, (mean, p95) in enumerate(joints, start=1):
            print(f"{side:<5}  {number:>5}  {'':>6}  {'':>9}  {mean:>13.2f}  {p95:>24.2f}")


COMMAND = Command(
    usage="data hands DATASET out=FILE_OR_DIR",
    arguments=("DATASET",),
    settings={"out": "file (.json) or folder to write the fit to; must not exist"},
    details=(
        "Fits the eigengrasps of human hands to a LeRobot dataset whose state holds absolute\n"
        "hand poses, and says what the first 10 of 45 components lose."
    ),
    example="vlarl data hands datasets/hands out=datasets/hands.json",
    run=run,
)
