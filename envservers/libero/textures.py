"""Smaller copies of the scenes' textures, for pictures that show nothing of the difference.

A scene of LIBERO carries up to 190 MB of textures, walls of 4096 pixels among them, and the
renderer keeps them several times over. A policy's image has at most a few hundred pixels.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from xml.etree import ElementTree


def shrink(xml: str, limit: int) -> str:
    """The model's XML with every texture file of more than `limit` pixels a side replaced.

    Copies are kept under the virtual environment, made when first needed.
    """
    root = ElementTree.fromstring(xml)
    for texture in root.iter("texture"):
        file = texture.get("file")
        if file:
            texture.set("file", str(_copy(Path(file), limit)))
    return ElementTree.tostring(root, encoding="unicode")


def _copy(file: Path, limit: int) -> Path:
    from PIL import Image

    with Image.open(file) as image:
        longest = max(image.size)
        if longest <= limit:
            return file
        named = f"{file}:{file.stat().st_size}"
        place = Path(sys.prefix) / "share" / f"vlarl-textures-{limit}"
        copy = place / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.png"
        if not copy.exists():
            place.mkdir(parents=True, exist_ok=True)
            size = [max(1, side * limit // longest) for side in image.size]
            small = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BOX)
            # Another server may be making the same one: replacing is atomic.
            draft = place / f".{copy.stem}.{os.getpid()}.png"
            small.save(draft)
            draft.replace(copy)
    return copy
