"""VLN-CE's episodes, read from its own files.

Habitat's dataset classes are not needed for that, and exist for R2R alone.
"""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.held_out import HELD_OUT
from envservers.vlnce.tasks import Benchmark
from vlarl.errors import UserError


@dataclass(frozen=True)
class Episode:
    """One instruction, and the way that it describes. Habitat's world: y is up, meters."""

    scene: str
    """File below `scene_datasets`."""
    start: NDArray[np.float64]
    """[3]."""
    heading: float
    """Radians about y; at 0 the agent looks along -z."""
    goal: NDArray[np.float64]
    """[3]."""
    instruction: str
    reference: NDArray[np.float64]
    """[m, 3] where the demonstration went."""


class Dataset:
    """The episodes of one benchmark: a split for evaluation, another for training.

    Args:
        folder: that holds `datasets` and `scene_datasets`.
        benchmark: which.
        split: whose episodes the held-out seeds are.
        training_split: from which the other seeds draw.
    """

    def __init__(self, folder: Path, benchmark: Benchmark, split: str, training_split: str) -> None:
        self._folder, self._benchmark = folder, benchmark
        self._splits = {True: split, False: training_split}
        self._read: dict[bool, tuple[Episode, ...]] = {}

    def file(self, held_out: bool, template: str) -> Path:
        """A split's file; it need not exist."""
        found = sorted((self._folder / "datasets").glob(self._benchmark.folder))
        base = found[-1] if found else self._folder / "datasets" / self._benchmark.folder
        return base / template.format(split=self._splits[held_out])

    def missing(self) -> list[Path]:
        """What evaluation needs and is not there."""
        needed = [
            self.file(True, self._benchmark.episodes),
            self.file(True, self._benchmark.truth),
            self._folder / "scene_datasets",
        ]
        return [path for path in needed if not path.exists()]

    def episode(self, seed: int) -> Episode:
        """Whose episode a seed is.

        Raises:
            UserError: if its split is not there.
        """
        held_out = seed >= HELD_OUT
        episodes = self.episodes(held_out)
        if held_out:
            return episodes[(seed - HELD_OUT) % len(episodes)]
        return episodes[int(np.random.default_rng(seed).integers(len(episodes)))]

    def episodes(self, held_out: bool) -> tuple[Episode, ...]:
        """Those of a split, in its file's order.

        Raises:
            UserError: if it is not there, or holds none.
        """
        if held_out not in self._read:
            self._read[held_out] = self._load(held_out)
        return self._read[held_out]

    def scene_file(self, episode: Episode) -> Path:
        """The building that an episode is in.

        Raises:
            UserError: if it is not there.
        """
        path = self._folder / "scene_datasets" / episode.scene
        if not path.exists():
            raise UserError(
                f"suite 'vln-ce': no scene {path}: Matterport3D's scenes come with its own "
                "download_mp.py --task habitat (docs/suites/vln-ce.md)"
            )
        return path

    def _load(self, held_out: bool) -> tuple[Episode, ...]:
        own = self._benchmark
        stored = self._json(held_out, own.episodes)["episodes"]
        truth = self._json(held_out, own.truth)
        episodes = tuple(
            _episode(entry, truth[str(entry["episode_id"])]["locations"])
            for entry in stored
            if not own.languages or entry["instruction"]["language"] in own.languages
        )
        if not episodes:
            raise UserError(f"suite 'vln-ce': {self.file(held_out, own.episodes)} has no episode")
        return episodes

    def _json(self, held_out: bool, template: str) -> Any:
        path = self.file(held_out, template)
        if not path.exists():
            raise UserError(f"suite 'vln-ce': no file {path} (docs/suites/vln-ce.md)")
        with gzip.open(path, "rt") as stream:
            return json.load(stream)


def _episode(entry: dict[str, Any], locations: list[list[float]]) -> Episode:
    _, y, _, w = entry["start_rotation"]
    return Episode(
        scene=entry["scene_id"].removeprefix("data/scene_datasets/"),
        start=np.array(entry["start_position"], np.float64),
        heading=2 * math.atan2(y, w),
        goal=np.array(entry["goals"][0]["position"], np.float64),
        instruction=entry["instruction"]["instruction_text"].strip(),
        reference=np.array(locations, np.float64),
    )
