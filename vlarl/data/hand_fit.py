"""The file that `vlarl data hands` writes and supervised training reads: what was fitted to hands.

    {"eigengrasps": {mean, basis, variance},   the basis that a model's channels are weights of
     "horizon": H, "action_stats": {low, high},   1st and 99th percentile of the 32 channels
     "frames": {left, right}, "reconstruction": {...}}

Only the eigengrasps are read back: one fit may serve several datasets, while the statistics belong
to the dataset that a model is trained on and are fitted anew there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vlarl.data.hand_recording import read_tracks, seen_poses
from vlarl.data.hand_samples import HandChunks
from vlarl.data.hands import Eigengrasps, fit_eigengrasps, joint_errors, reconstruction_error
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError

FIT = "hands.json"
"""Its name, in a folder of one's choice and in every checkpoint that was trained with it."""


def fit_hands(reader: LeRobotReader, horizon: int) -> dict[str, Any]:
    """Everything that the file holds, for chunks of `horizon` control steps.

    `reconstruction` has, for each hand that was seen, `mean_degrees` and `p95_degrees` over all
    joints and frames, the same for `joints` (15 each), and `explained_variance`; the fit's own
    `explained_variance` stands beside the hands.

    Raises:
        UserError: for a dataset that holds no hands, or too few.
    """
    episodes = read_tracks(reader)
    poses = seen_poses(episodes)
    try:
        grasps = fit_eigengrasps(poses["left"], poses["right"])
        stats = HandChunks(episodes, grasps, horizon).stats()
    except ValueError as error:
        raise UserError(f"dataset {reader.path}: {error}") from error
    return {
        "eigengrasps": grasps.to_dict(),
        "horizon": horizon,
        "action_stats": stats.to_dict(),
        "frames": {side: len(pose) for side, pose in poses.items()},
        "reconstruction": _reconstruction({s: p for s, p in poses.items() if len(p)}, grasps),
    }


def _reconstruction(poses: dict[str, Any], grasps: Eigengrasps) -> dict[str, Any]:
    errors = reconstruction_error(poses, grasps)
    found: dict[str, Any] = {"explained_variance": errors["explained_variance"]}
    for side, pose in poses.items():
        degrees = np.degrees(joint_errors(pose, grasps, side))
        found[side] = {
            "mean_degrees": float(np.degrees(errors[f"{side}/mean_angle"])),
            "p95_degrees": float(np.degrees(errors[f"{side}/p95_angle"])),
            "explained_variance": errors[f"{side}/explained_variance"],
            "joints": {
                "mean_degrees": degrees.mean(axis=0).tolist(),
                "p95_degrees": np.quantile(degrees, 0.95, axis=0).tolist(),
            },
        }
    return found


def fit_file(path: str | Path) -> Path:
    """The file itself, or the one in a folder."""
    return Path(path) / FIT if Path(path).is_dir() else Path(path)


def read_eigengrasps(path: str | Path) -> Eigengrasps:
    """The basis in the file, or in the file of that name in a folder.

    Raises:
        UserError: for a file that is missing or holds something else.
    """
    file = fit_file(path)
    if not file.is_file():
        raise UserError(f"{file} is missing; `vlarl data hands DATASET out={file}` makes it")
    try:
        return Eigengrasps.from_dict(json.loads(file.read_text())["eigengrasps"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no fit of `vlarl data hands`: {error!r}") from error
