"""Rollout videos as GIFs, written with Pillow alone: frames enlarged and captioned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CAPTION_HEIGHT = 16
"""Of each line, in pixels."""
_FONT_SIZE = 11
_MARGIN = 3
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
        caption: below the pictures, in as many lines as it takes.
        scale: whole factor of enlargement.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames of shape {frames.shape}: needs [T, height, width, 3], T > 0")
    lines = _lines(caption, frames.shape[2] * scale - 2 * _MARGIN)
    pictures = [_captioned(frame, lines, scale) for frame in frames]
    palette = pictures[len(pictures) // 2].quantize(128)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [max(20, round(1000 / frames_per_second))] * len(indexed)
    durations[-1] = _HOLD_MILLISECONDS
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    indexed[0].save(
        path, save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True
    )


def _lines(caption: str, width: int) -> list[str]:
    """The caption in lines of at most `width` pixels, broken behind spaces and in names of tasks.

    A part that is wider alone has a line alone, and is cut.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    lines: list[str] = []
    for part in re.split(r"(?<=[ _/])", caption):
        if lines and font.getlength(lines[-1] + part.rstrip()) <= width:
            lines[-1] += part
        elif part:
            lines.append(part)
    return lines


def _captioned(frame: NDArray[np.uint8], lines: Sequence[str], scale: int) -> Image.Image:
    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    enlarged = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
    if not lines:
        return enlarged
    picture = Image.new("RGB", (width, height + CAPTION_HEIGHT * len(lines)), "white")
    picture.paste(enlarged, (0, 0))
    font, draw = ImageFont.load_default(_FONT_SIZE), ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        place = _MARGIN, height + CAPTION_HEIGHT * number + 2
        draw.text(place, line, fill="black", font=font)
    return picture
