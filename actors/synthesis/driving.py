"""Driving-like trajectories as one more channel layout: waypoints beside what the car sees.

Roads at random, a car that follows them, a picture at each waypoint; only drives that arrive, in
their lane and without touching anything, are kept (paper sections 2.1 and 2.4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from envservers.driving.car import Drive, drive, waypoints
from envservers.driving.roads import Road, sample_road
from envservers.driving.view import RoadView
from vlarl.config.embodiments import load_embodiment
from vlarl.data.episode import Episode
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.types import CameraSpec

EMBODIMENT = "driving_car"
_CAMERA = "ego"


def synthesize_drives(
    out: str | Path,
    episodes: int,
    seed: int = 0,
    image_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write `episodes` successful drives to the folder `out`, a LeRobot v3.0 dataset.

    Returns:
        `episodes`, `frames`, `kinds`, `failures` by reason.

    Raises:
        UserError: if `out` exists already.
    """
    embodiment, view = load_embodiment(EMBODIMENT), RoadView(image_size)
    kinds: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    frames = number = 0
    with LeRobotWriter(
        out,
        fps=embodiment.control_hz,
        cameras=[CameraSpec(_CAMERA, image_size, image_size)],
        action_names=[channel.name for channel in embodiment.channels],
        state_dim=1,
        robot_type=embodiment.name,
    ) as writer:
        while kinds.total() < episodes:
            random = np.random.default_rng([seed, 0xD21, number])
            number += 1
            road = sample_road(random)
            driven = drive(road, random)
            if driven.defect:
                failures[f"{road.kind}: {driven.defect}"] += 1
                continue
            episode = _episode(road, driven, view)
            writer.add(episode)
            kinds[road.kind] += 1
            frames += len(episode)
            if progress is not None:
                progress(kinds.total())
    return {
        "episodes": episodes,
        "frames": frames,
        "kinds": dict(sorted(kinds.items())),
        "failures": dict(sorted(failures.items())),
    }


def _episode(road: Road, driven: Drive, view: RoadView) -> Episode:
    """What is seen at each pose, and the waypoint to the next; the state is the speed."""
    view.show(road)
    return Episode(
        images={_CAMERA: np.stack([view.render(pose) for pose in driven.poses[:-1]])},
        state=driven.speeds[:-1, None].astype(np.float32),
        action=waypoints(driven.poses),
        instruction=road.instruction,
        extra={"kind": road.kind},
    )
