"""Images that lie in files beside a set of conversations, and how they are scaled for a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_ASPECT = 200
"""Longer to shorter side; a strip beyond it is refused, as transformers refuses it."""


@dataclass(frozen=True)
class Picture:
    """One image of a conversation; its pixels stay in the file."""

    path: Path
    height: int
    width: int
    view: str = ""
    """Camera it was taken with; empty: not said."""
    seconds: float | None = None
    """Time since the start of the video whose frame it is; None: no frame of a video."""

    @staticmethod
    def open(path: Path, view: str = "", seconds: float | None = None) -> Picture:
        """Read the image's header.

        Raises:
            ValueError: if there is no such file, it is no image, or far too narrow.
        """
        try:
            with Image.open(path) as image:
                width, height = image.size
        except FileNotFoundError as error:
            raise ValueError(f"image {path} is missing") from error
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is no image that can be read: {error}") from error
        if max(height, width) > MAX_ASPECT * min(height, width):
            raise ValueError(f"image {path} is {width}x{height}: sides differ {MAX_ASPECT}-fold")
        return Picture(path, height, width, view, seconds)

    def pixels(self, height: int, width: int) -> NDArray[np.uint8]:
        """[height, width, 3] RGB, bicubic where the size differs.

        Raises:
            ValueError: if the file is broken, or is no longer the image that was opened.
        """
        try:
            with Image.open(self.path) as image:
                if image.size != (self.width, self.height):
                    raise ValueError(f"image {self.path} has changed: now {image.size}")
                colors = image.convert("RGB")
        except OSError as error:
            raise ValueError(f"{self.path} is no image that can be read: {error}") from error
        if colors.size != (width, height):
            colors = colors.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(colors)


def fitted_size(
    height: int, width: int, unit: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The size at which the model sees an image: transformers' `smart_resize`.

    Both sides become multiples of `unit`, their ratio is kept as well as that allows, and their
    product ends between the bounds wherever the ratio lets it.

    Args:
        height: of the image, pixels.
        width: likewise.
        unit: side of what becomes one token, pixels.
        min_pixels: smaller images are enlarged.
        max_pixels: bigger ones are reduced.
    """
    rows, columns = round(height / unit) * unit, round(width / unit) * unit
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(unit, math.floor(height / shrink / unit) * unit)
        columns = max(unit, math.floor(width / shrink / unit) * unit)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / unit) * unit
        columns = math.ceil(width * grow / unit) * unit
    return rows, columns
