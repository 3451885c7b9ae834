"""One camera of a dataset that is being written, as mp4 files of many episodes each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.data.episode import IMAGE_PREFIX
from vlarl.data.video_files import VideoEncoder, check_encodable
from vlarl.types import CameraSpec

VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNKS_SIZE, VIDEO_MEGABYTES = 1000, 200
"""Files of one folder, and the size from which on a file takes no further episode."""
_CODEC_NAMES = {"h264": "h264", "libsvtav1": "av1"}


class VideoTrack:
    """Appends episodes to the present file, and begins another when it is large."""

    def __init__(self, camera: CameraSpec, fps: float, codec: str) -> None:
        """Nothing is written before the first episode.

        Raises:
            UserError: for an unknown codec, an odd image size, or without PyAV.
        """
        check_encodable(camera, codec)
        self._camera, self._fps, self._codec = camera, fps, codec
        self._encoder: VideoEncoder | None = None
        self._file = 0

    def add(self, dataset: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
        """Append [T, height, width, 3].

        Returns:
            The columns of the episode's row that say where its frames are.
        """
        key = IMAGE_PREFIX + self._camera.name
        if self._encoder is not None and self._encoder.bytes > VIDEO_MEGABYTES * 2**20:
            self.close()
            self._file += 1
        place = {"chunk_index": self._file // CHUNKS_SIZE, "file_index": self._file % CHUNKS_SIZE}
        if self._encoder is None:
            path = dataset / VIDEO_PATH.format(video_key=key, **place)
            self._encoder = VideoEncoder(path, self._fps, self._camera, self._codec)
        start = self._encoder.frames
        self._encoder.add(images)
        times = {
            "from_timestamp": start / self._fps,
            "to_timestamp": (start + len(images)) / self._fps,
        }
        return {f"videos/{key}/{name}": value for name, value in (place | times).items()}

    def close(self) -> None:
        """Finish the present file."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    @property
    def info(self) -> dict[str, Any]:
        """What `info.json` says of the feature beside its shape."""
        return {
            "video.height": self._camera.height,
            "video.width": self._camera.width,
            "video.codec": _CODEC_NAMES[self._codec],
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": self._fps,
            "video.channels": 3,
            "has_audio": False,
        }
