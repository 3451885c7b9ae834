"""Cameras stored as mp4: exact frames out of files that stay open, and writing of such files.

Needs PyAV, which is an extra (`pip install 'vlarl[video]'`): datasets with PNG images do without.
One `VideoFiles` belongs to one process, like `parquet_rows.EpisodeRows`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.data.png import MissingImage
from vlarl.errors import UserError
from vlarl.types import CameraSpec

OPEN_VIDEOS = 16
"""At most, of each process: a decoder holds megabytes."""
CODECS = ("h264", "libsvtav1")
"""Encoders that LeRobot uses too."""
_TOLERANCE = 0.25
"""How far a frame may be from the time asked for, in frame periods: at half, it is another's."""
_READ_ON = 8
"""Frames that are decoded to get ahead; from there on, seeking is quicker."""
_GROUP_OF_PICTURES, _QUALITY = "2", "30"
"""LeRobot's: every other frame stands for itself, so that a seek decodes two at most."""


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UserError(
            "this dataset stores images as mp4, which needs PyAV: pip install 'vlarl[video]'"
        ) from error
    return av


class VideoFile:
    """One mp4 file, of which the frame at any time can be had.

    Raises:
        UserError: if it is missing, broken, or PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        """Open it and read its index."""
        self._errors = (_av().FFmpegError, EOFError, OSError)
        if not path.is_file():
            raise UserError(f"{path} is missing")
        try:
            self._container = _av().open(str(path))
            self._stream = self._container.streams.video[0]
        except (*self._errors, IndexError) as error:
            raise UserError(f"{path} is truncated or no video: {error}") from error
        # Without this, a damaged frame comes out as a smeared copy of the one before.
        self._stream.codec_context.options = {"err_detect": "explode"}
        # What has threads of its own cannot be freed after a fork, which has none of them.
        self._stream.codec_context.thread_count = 1
        self._base = float(self._stream.time_base)
        self._frames: Iterator[Any] | None = None
        self._now: Any = None

    def image(self, seconds: float, fps: float, camera: CameraSpec) -> NDArray[np.uint8]:
        """[height, width, 3] RGB of the frame at `seconds` from the file's start.

        Raises:
            ValueError: if there is none, or it is damaged or not of the camera's size.
        """
        try:
            frame = self._frame(seconds, fps)
        except self._errors as error:
            self._frames = self._now = None
            raise ValueError(f"at {seconds:.3f} s is damaged: {error}") from error
        if frame is None or abs(self._time(frame) - seconds) > _TOLERANCE / fps:
            raise MissingImage(f"at {seconds:.3f} s is missing")
        if frame.is_corrupt:
            raise ValueError(f"at {seconds:.3f} s is damaged")
        if (frame.height, frame.width) != (camera.height, camera.width):
            raise ValueError(
                f"is {frame.width} x {frame.height}, info.json says "
                f"{camera.width} x {camera.height}"
            )
        # One thread here too, for the same reason.
        pixels: NDArray[np.uint8] = frame.reformat(format="rgb24", threads=1).to_ndarray()
        return pixels

    def close(self) -> None:
        """Free the file and its decoder."""
        self._container.close()

    def _time(self, frame: Any) -> float:
        return float(frame.pts * self._base)

    def _frame(self, seconds: float, fps: float) -> Any:
        """The last frame that is not later than `seconds`, give or take; None at the end."""
        early = seconds - _TOLERANCE / fps
        ahead = self._now is not None and seconds - self._time(self._now)
        if self._now is None or not -_TOLERANCE / fps <= ahead <= _READ_ON / fps:
            self._seek(seconds)
            # A file whose index leads past the frame: from its start then.
            if self._now is not None and self._time(self._now) > seconds + _TOLERANCE / fps:
                self._seek(0.0)
        assert self._frames is not None
        while self._now is not None and self._time(self._now) < early:
            self._now = next(self._frames, None)
        return self._now

    def _seek(self, seconds: float) -> None:
        self._container.seek(max(0, round(seconds / self._base)), stream=self._stream)
        self._frames = self._container.decode(self._stream)
        self._now = next(self._frames, None)


class VideoFiles:
    """Video files by path, the last `OPEN_VIDEOS` kept open.

    Attributes:
        opened: how many were opened so far.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._process, self.opened = os.getpid(), 0
        self._files: OrderedDict[Path, VideoFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: decoders stay with their process."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget()

    def get(self, path: Path) -> VideoFile:
        """The file, opened unless it is.

        Raises:
            UserError: if it is missing or broken.
        """
        if self._process != os.getpid():
            self._forget()
        if path not in self._files:
            self._files[path] = VideoFile(path)
            self.opened += 1
            if len(self._files) > OPEN_VIDEOS:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]


def check_encodable(camera: CameraSpec, codec: str) -> None:
    """Refuse what `VideoEncoder` cannot write.

    Raises:
        UserError: for an unknown codec, an odd image size, or without PyAV.
    """
    if codec not in CODECS:
        raise UserError(f"video codec {codec!r}: choose one of {', '.join(CODECS)}")
    if camera.height % 2 or camera.width % 2:
        raise UserError(
            f"camera {camera.name} is {camera.width} x {camera.height}: mp4 needs even sizes; "
            "store PNG images instead"
        )
    _av()


class VideoEncoder:
    """Writes one mp4 file, yuv420p, frame after frame at a steady rate.

    Attributes:
        frames, bytes: taken in and written so far; the encoder holds some frames back.
    """

    def __init__(self, path: Path, fps: float, camera: CameraSpec, codec: str) -> None:
        """Create the file and its folders, for what passes `check_encodable`."""
        self._av = _av()
        # Its banner would otherwise stand between the lines of a command.
        os.environ.setdefault("SVT_LOG", "1")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = self.bytes = 0
        self._container = self._av.open(str(path), "w")
        options = {"g": _GROUP_OF_PICTURES, "crf": _QUALITY}
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream(codec, rate, options=options)
        self._stream.pix_fmt = "yuv420p"
        self._stream.height, self._stream.width = camera.height, camera.width

    def add(self, images: NDArray[np.uint8]) -> None:
        """Append [T, height, width, 3]; the first of them can be decoded without those before."""
        for number, image in enumerate(images):
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = self.frames
            if number == 0:
                frame.pict_type = self._av.video.frame.PictureType.I
            self._mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        self._mux(self._stream.encode())
        self._container.close()

    def _mux(self, packets: list[Any]) -> None:
        self.bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)
