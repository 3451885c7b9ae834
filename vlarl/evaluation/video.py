"""Rollout videos as GIFs, written with Pillow alone: frames enlarged, captioned, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CAPTION_HEIGHT = 16
_HOLD_MILLISECONDS = 1000


def write_gif(
    path: str | Path,
    frames: NDArray[np.uint8],
    frames_per_second: float,
    caption: str = "",
    scale: int = 3,
) -> None:
    """Write one episode; its last frame is held for a second.

    Args:
        path: file to write, `.gif`.
        frames: [T, height, width, 3] RGB.
        frames_per_second: of simulated time; GIF timing is in hundredths of a second.
        caption: one line below the pictures; cut where it does not fit.
        scale: whole factor of enlargement.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames of shape {frames.shape}: needs [T, height, width, 3], T > 0")
    pictures = [_captioned(frame, caption, scale) for frame in frames]
    palette = pictures[len(pictures) // 2].quantize(128)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [max(20, round(1000 / frames_per_second))] * len(indexed)
    durations[-1] = _HOLD_MILLISECONDS
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    indexed[0].save(
        path, save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True
    )


def side_by_side(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two episodes [T, h, w, 3] in one picture; the shorter one waits at its last frame."""
    length = max(len(left), len(right))
    halves = [_held(left, length), np.full((length, left.shape[1], 2, 3), 255, np.uint8)]
    return np.concatenate([*halves, _held(right, length)], axis=2)


def join_frames(chunks: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The frames [executed, h, w, 3] of an episode's chunks, one after the other."""
    return np.concatenate([chunk for chunk in chunks if len(chunk)], axis=0)


def _held(frames: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    return frames[np.minimum(np.arange(length), len(frames) - 1)]


def _captioned(frame: NDArray[np.uint8], caption: str, scale: int) -> Image.Image:
    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    enlarged = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
    if not caption:
        return enlarged
    picture = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
    picture.paste(enlarged, (0, 0))
    font = ImageFont.load_default(11)
    ImageDraw.Draw(picture).text((3, height + 2), caption, fill="black", font=font)
    return picture
