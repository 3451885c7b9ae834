"""Images as PNG bytes, as they stand in parquet files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vlarl.types import CameraSpec


class MissingImage(ValueError):
    """There is no image where one should be."""


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """One image [height, width, 3] as PNG, lossless and fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(value: Any, camera: CameraSpec) -> NDArray[np.uint8]:
    """[height, width, 3] of one value of an image column (any format that Pillow knows).

    Raises:
        ValueError: if it is no image, a damaged one, or not of the camera's size.
    """
    content = value.get("bytes") if isinstance(value, dict) else None
    if not content:
        raise MissingImage("is missing")
    try:
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        # Pillow reports a broken PNG chunk as SyntaxError.
        raise ValueError("is damaged") from error
    if picture.shape != (camera.height, camera.width, 3):
        raise ValueError(
            f"is {picture.shape[1]} x {picture.shape[0]}, info.json says "
            f"{camera.width} x {camera.height}"
        )
    return picture
