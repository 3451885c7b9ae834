"""A folder of shards: what it is to hold, what it holds already, and access by index.

    dataset.json      what was asked for: seed, robots, templates, trajectories
    manifest.jsonl    one line for each complete shard, appended when the shard is written
    ROBOT/TEMPLATE/00000.safetensors ...

A shard counts if the manifest names it and its file has the size stated there; everything else is
made again. A line that was cut off by a crash is ignored.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.errors import UserError
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.shard import FORMAT, Shard, Trajectory, read_shard

DATASET_FILE, MANIFEST_FILE = "dataset.json", "manifest.jsonl"
SHARD_SIZE = 512
"""Trajectories of a full shard."""
_OPEN_SHARDS = 64


@dataclass(frozen=True)
class Recipe:
    """What decides every number of a dataset."""

    seed: int
    robots: tuple[str, ...]
    templates: tuple[str, ...]
    trajectories: int
    """In all, spread evenly over robots and templates."""

    def jobs(self) -> list[Job]:
        """The shards, the first ones of all robots and templates first."""
        pairs = [(robot, template) for robot in self.robots for template in self.templates]
        jobs = []
        for number, (robot, template) in enumerate(pairs):
            each, rest = divmod(self.trajectories, len(pairs))
            left = each + (number < rest)
            for index in range(-(-left // SHARD_SIZE)):
                count = min(SHARD_SIZE, left - index * SHARD_SIZE)
                jobs.append(Job(robot, template, index, count))
        return sorted(jobs, key=lambda job: job.index)


@dataclass(frozen=True)
class Job:
    """One shard to make."""

    robot: str
    template: str
    index: int
    count: int

    @property
    def name(self) -> str:
        """The file, relative to the dataset's folder."""
        return f"{self.robot}/{self.template}/{self.index:05d}.safetensors"


@dataclass(frozen=True)
class Entry:
    """A line of the manifest."""

    name: str
    robot: str
    template: str
    trajectories: int
    steps: int
    bytes: int


def open_folder(folder: Path, recipe: Recipe) -> dict[str, Entry]:
    """Make or continue a dataset's folder; its complete shards by name.

    Raises:
        UserError: if the folder holds something else, or a dataset of another recipe.
    """
    file = folder / DATASET_FILE
    wanted = {"format": FORMAT, "rate": RATE, **json.loads(json.dumps(asdict(recipe)))}
    if file.exists():
        found = _read_json(file)
        for key, value in wanted.items():
            if found.get(key) != value:
                raise UserError(
                    f"{folder} holds another dataset: {key} is {found.get(key)!r} there, {value!r} "
                    "here. Choose another folder, or the same settings to continue it."
                )
        _cut_torn_line(folder / MANIFEST_FILE)
        return read_manifest(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no such dataset: choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{DATASET_FILE}"
    temporary.write_text(json.dumps(wanted, indent=2) + "\n")
    temporary.replace(file)
    return {}


def append(folder: Path, entry: Entry) -> None:
    """Add a line for a shard that is written."""
    with (folder / MANIFEST_FILE).open("a") as file:
        file.write(json.dumps(asdict(entry)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Complete shards by name."""
    path = folder / MANIFEST_FILE
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    entries = [Entry(**json.loads(line)) for line in lines]
    return {entry.name: entry for entry in entries if _complete(folder, entry)}


def _complete(folder: Path, entry: Entry) -> bool:
    path = folder / entry.name
    return path.is_file() and path.stat().st_size == entry.bytes


def _cut_torn_line(path: Path) -> None:
    """Remove what a crash left of a line, so that the next one starts on its own."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable: {error}") from error
    return dict(found)


class SynthesisDataset:
    """Trajectories by index; files are mapped into memory, arrays are slices of them.

    Raises:
        UserError: if the folder holds no dataset, or none of its shards is complete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / DATASET_FILE).is_file():
            raise UserError(
                f"{self.folder}: no dataset of `vlarl synth t2a` ({DATASET_FILE} is missing)."
            )
        self.recipe: dict[str, Any] = _read_json(self.folder / DATASET_FILE)
        self.entries = sorted(read_manifest(self.folder).values(), key=lambda entry: entry.name)
        if not self.entries:
            raise UserError(
                f"{self.folder}: no shard is complete yet; run `vlarl synth t2a` again."
            )
        self._ends = list(accumulate(entry.trajectories for entry in self.entries))
        self._shard = lru_cache(_OPEN_SHARDS)(self._read)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Trajectory:
        """Trajectory `index`, in the order of the shards' names.

        Raises:
            IndexError: beyond the last.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"trajectory {index}: there are {len(self)}")
        place = bisect_right(self._ends, index)
        return self._shard(place).trajectory(index - self._first(place))

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[index] for index in range(len(self)))

    @property
    def robots(self) -> list[str]:
        """Those that have trajectories."""
        return sorted({entry.robot for entry in self.entries})

    @property
    def hours(self) -> float:
        """Of 50 Hz records."""
        return sum(entry.steps for entry in self.entries) / RATE / 3600

    def name(self, index: int) -> str:
        """Where a trajectory is: `ROBOT/TEMPLATE/SHARD:ROW`."""
        place = bisect_right(self._ends, index)
        entry = self.entries[place].name.removesuffix(".safetensors")
        return f"{entry}:{index - self._first(place)}"

    def lengths(self) -> NDArray[np.int64]:
        """[N] records of every trajectory."""
        return np.concatenate(
            [np.diff(self._shard(place).arrays["offsets"]) for place in range(len(self.entries))]
        )

    def indices(self, robot: str) -> list[int]:
        """All trajectories of a robot."""
        return [
            index
            for place, entry in enumerate(self.entries)
            if entry.robot == robot
            for index in range(self._first(place), self._ends[place])
        ]

    def _first(self, place: int) -> int:
        return self._ends[place - 1] if place else 0

    def _read(self, place: int) -> Shard:
        return read_shard(self.folder / self.entries[place].name)


def table(entries: list[Entry]) -> dict[str, dict[str, dict[str, float]]]:
    """Robot -> template -> `trajectories` and `hours`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for entry in entries:
        cell = found.setdefault(entry.robot, {}).setdefault(
            entry.template, {"trajectories": 0, "hours": 0.0}
        )
        cell["trajectories"] += entry.trajectories
        cell["hours"] += entry.steps / RATE / 3600
    return found
