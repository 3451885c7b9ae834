"""Reads LeRobot datasets, v3.0 and v2.1, with images in parquet (PNG) or as mp4.

Opening a dataset reads and checks its `meta` folder; `episode` reads and decodes one episode,
`numbers` and `images` parts of one, out of files that stay open. Whatever is missing or broken is a
`UserError` that names the file, the episode and the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlarl.data.episode import ACTION, IMAGE_PREFIX, STATE, Episode
from vlarl.data.lerobot_meta import EpisodeRow, read_meta
from vlarl.data.parquet_rows import EpisodeRows, matrix_of
from vlarl.data.png import decode_image
from vlarl.data.pseudo_actions import pseudo_actions
from vlarl.data.video_files import VideoFiles
from vlarl.errors import UserError
from vlarl.types import CameraSpec

Pixels = Callable[[int], NDArray[np.uint8]]
"""One image [height, width, 3] of an episode by its frame; ValueError if it is damaged."""


@dataclass(frozen=True)
class Numbers:
    """What an episode holds beside its images."""

    state: NDArray[np.float32]
    """[T, d]; `d` is 0 where the dataset has no state."""
    action: NDArray[np.float32]
    """[T, c]"""


class LeRobotReader:
    """A dataset folder.

    Attributes:
        meta: what it says of itself; `info` is its `info.json`.
        fps: control frequency, Hz.
        cameras: in the order of `info.json`, or of `chosen`.
        chosen: name here -> name in the dataset, of the cameras that are read; empty: all of them.
        action_names: of the `c` channels; empty if the dataset does not say.
        state_dim: `d`, numbers of a state; 0 where there is none.
        state_names: of the state's numbers, likewise.
        episodes: one row for each episode.
        stored: which of state and action the data files hold.
        rows, videos: the files that are open.

    Raises:
        UserError: if the folder is no dataset of a version that is read here, or is incomplete, or
            has no camera of a chosen name.
    """

    def __init__(
        self, path: str | Path, cache_bytes: int = 0, chosen: Mapping[str, str] | None = None
    ) -> None:
        """Read and check `meta`; rows of up to `cache_bytes` are remembered as they are stored."""
        self.path = Path(path)
        self.meta = read_meta(self.path)
        self.info = self.meta.info
        self.chosen = dict(chosen or {})
        self.fps, self.cameras = self.meta.fps, self._cameras()
        self.episodes = self.meta.episodes
        features = self.info["features"]
        self.stored = tuple(key for key in (STATE, ACTION) if key in features)
        self.action_names = self.meta.names(ACTION if ACTION in features else STATE)
        self.state_dim, self.state_names = self.meta.width(STATE), self.meta.names(STATE)
        self._keys = {c.name: _camera_key(features, self._theirs(c)) for c in self.cameras}
        self.rows, self.videos = EpisodeRows(cache_bytes), VideoFiles()

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def has_actions(self) -> bool:
        """Whether actions were recorded; otherwise they are made from the state."""
        return ACTION in self.stored

    @property
    def decoded_bytes(self) -> int:
        """What all images take as uint8."""
        return self.meta.total_frames * sum(3 * c.height * c.width for c in self.cameras)

    def episode(self, index: int) -> Episode:
        """Read and decode one episode.

        Raises:
            UserError: if its file is missing or broken, or holds other frames than `meta` says.
        """
        row, numbers = self.episodes[index], self.numbers(index)
        images = self.images(index, range(row.length))
        return Episode(images, numbers.state, numbers.action, row.instruction, row.extra)

    def numbers(self, index: int) -> Numbers:
        """State and action of one episode; without recorded actions, pseudo-actions.

        Raises:
            UserError: as `episode`.
        """
        row = self.episodes[index]
        table = self._table(row, self.stored)
        found = {key: self._matrix(row, table, key) for key in self.stored}
        state = found.get(STATE, np.zeros((row.length, 0), np.float32))
        if self.has_actions:
            return Numbers(state, found[ACTION])
        return Numbers(state, self._pseudo_actions(row, state))

    def state(self, index: int) -> NDArray[np.float32]:
        """[T, d] the state of one episode.

        Raises:
            UserError: as `episode`, or if the dataset has no state.
        """
        row = self.episodes[index]
        return self._matrix(row, self._table(row, (STATE,)), STATE)

    def images(self, index: int, frames: Sequence[int]) -> dict[str, NDArray[np.uint8]]:
        """By camera [n, height, width, 3] of `frames`, which count from the episode's first.

        Raises:
            UserError: as `episode`.
        """
        return {camera.name: self.view(index, camera, frames) for camera in self.cameras}

    def view(self, index: int, camera: CameraSpec, frames: Sequence[int]) -> NDArray[np.uint8]:
        """[n, height, width, 3] what one camera saw, as `images`."""
        row = self.episodes[index]
        pixels = self.pixels(row, camera, row.length)
        found = np.empty((len(frames), camera.height, camera.width, 3), np.uint8)
        for place, frame in enumerate(frames):
            try:
                found[place] = pixels(frame)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(
                    f"{self.file_of(row, camera)}: episode {row.index}, image {frame} of "
                    f"{camera.name} {error}"
                ) from error
        return found

    def states(self) -> NDArray[np.float32]:
        """[M, d] every state of the dataset, in the order of episodes.

        Raises:
            UserError: as `state`.
        """
        return np.concatenate([self.state(row.index) for row in self.episodes])

    def file_of(self, row: EpisodeRow, camera: CameraSpec) -> Path:
        """Where the images of a camera are."""
        span = row.videos.get(self._theirs(camera))
        return row.file if span is None else span.file

    def actions(self) -> NDArray[np.float32]:
        """[M, c] every action of the dataset, in the order of episodes.

        Raises:
            UserError: as `episode`.
        """
        return np.concatenate([self.numbers(row.index).action for row in self.episodes])

    def pixels(self, row: EpisodeRow, camera: CameraSpec, rows: int) -> Pixels:
        """How to get at one camera's images of an episode with `rows` rows in its data file.

        Raises:
            UserError: if the file is missing or broken, or holds another number of rows.
        """
        span = row.videos.get(self._theirs(camera))
        if span is not None:
            video, start = self.videos.get(span.file), span.start
            return lambda frame: video.image(start + frame / self.fps, self.fps, camera)
        key = self._keys[camera.name]
        column = self.rows.read(row.file, row.index, rows, (key,))[key]
        return lambda frame: decode_image(column[frame].as_py(), camera)

    def _theirs(self, camera: CameraSpec) -> str:
        """What the dataset calls a camera."""
        return self.chosen.get(camera.name, camera.name)

    def _cameras(self) -> tuple[CameraSpec, ...]:
        if not self.chosen:
            return self.meta.cameras
        theirs = {camera.name: camera for camera in self.meta.cameras}
        for ours, name in self.chosen.items():
            if name not in theirs:
                raise UserError(
                    f"dataset {self.path} has no camera {name!r}, which `cameras` says is {ours}; "
                    f"it has: {', '.join(theirs) or 'none'}"
                )
        return tuple(replace(theirs[name], name=ours) for ours, name in self.chosen.items())

    def _table(self, row: EpisodeRow, columns: tuple[str, ...]) -> pa.Table:
        return self.rows.read(row.file, row.index, row.length, columns)

    def _matrix(self, row: EpisodeRow, table: pa.Table, key: str) -> NDArray[np.float32]:
        try:
            values = matrix_of(table[key])
        except (ValueError, pa.ArrowException) as error:
            raise UserError(f"{row.file}: {key} of episode {row.index}: {error}") from error
        if values.shape[1] != self.meta.width(key):
            raise UserError(
                f"{row.file}: {key} of episode {row.index} has {values.shape[1]} channels, "
                f"info.json says {self.meta.width(key)}"
            )
        return values

    def _pseudo_actions(self, row: EpisodeRow, state: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return pseudo_actions(state, self.state_names)
        except ValueError as error:
            raise UserError(f"{self.path}: {STATE}: {error}") from error


def _camera_key(features: dict[str, object], camera: str) -> str:
    return IMAGE_PREFIX + camera if IMAGE_PREFIX + camera in features else camera
