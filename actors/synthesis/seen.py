"""What cameras show of one table: images, and which pixels belong to which object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.facts import DIRECTIONS, Facts
from envservers.tabletop.renderer import CAMERAS
from envservers.tabletop.workbench import Workbench
from vlarl.data.boxes import Place

CLEAR_SHARE = 0.0008
"""Share of an image's pixels from which an object is clearly visible (13 of 128 x 128)."""

APART = 0.02
"""Share of the picture by which two places differ beyond doubt."""


@dataclass(frozen=True)
class Seen:
    """One table, its truth, and its pictures."""

    facts: Facts
    images: dict[str, NDArray[np.uint8]]
    """camera -> [size, size, 3]"""
    masks: dict[str, dict[str, NDArray[np.bool_]]]
    """camera -> present object -> [size, size] where its pixels are."""

    def name(self, thing: str) -> str:
        """What people call it."""
        return self.facts.layout.name(thing)

    def visible(self, camera: str = CAMERAS[0]) -> list[str]:
        """Objects that are clearly seen, in the order of `OBJECTS`."""
        return [n for n, mask in self.masks[camera].items() if mask.mean() >= CLEAR_SHARE]

    def hidden(self, camera: str = CAMERAS[0]) -> list[str]:
        """Objects of which not one pixel is seen; some are neither visible nor hidden."""
        return [n for n, mask in self.masks[camera].items() if not mask.any()]

    def box(self, thing: str, camera: str = CAMERAS[0]) -> Place:
        """The box around the object's visible pixels."""
        rows, columns = np.nonzero(self.masks[camera][thing])
        size = len(self.masks[camera][thing])
        corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return Place(self.name(thing), tuple(float(corner / size) for corner in corners))

    def offset(self, thing: str, other: str) -> tuple[float, float]:
        """From the other's place in the fixed camera's picture to the thing's: right, down."""
        one, two = self.box(thing).coordinates, self.box(other).coordinates
        return (one[0] + one[2] - two[0] - two[2]) / 2, (one[1] + one[3] - two[1] - two[3]) / 2

    def is_seen(self, thing: str, direction: str, other: str) -> bool:
        """Whether a direction holds on the table and in the picture alike.

        Perspective draws what is far towards the middle, so that either can hold alone.
        """
        across, down = self.offset(thing, other)
        along = {"to the left of": -across, "to the right of": across}
        along |= {"in front of": down, "behind": -down}
        return along[direction] > APART and DIRECTIONS[direction](self.facts, thing, other)

    def point(self, thing: str, camera: str = CAMERAS[0]) -> Place:
        """The visible pixel nearest to the middle of those that are visible."""
        pixels = np.argwhere(self.masks[camera][thing])
        gaps = np.linalg.norm(pixels - pixels.mean(axis=0), axis=1)
        row, column = (pixels[gaps.argmin()] + 0.5) / len(self.masks[camera][thing])
        return Place(self.name(thing), (float(column), float(row)))


def look(bench: Workbench, ids: NDArray[np.int64]) -> list[Seen]:
    """What all cameras show of the tables in slots `ids`."""
    pictures = {camera: bench.render(ids, camera) for camera in CAMERAS}
    owner = np.array(bench.owner)
    found = []
    for row, sim in enumerate(ids):
        facts = bench.facts(int(sim))
        masks = {}
        for camera, (_, geoms) in pictures.items():
            # Geom -1 is the background, which indexes the owners' last entry: mask it out.
            owners = np.where(geoms[row] >= 0, owner[geoms[row]], "")
            masks[camera] = {name: owners == name for name in facts.layout.present}
        images = {camera: drawn[row] for camera, (drawn, _) in pictures.items()}
        found.append(Seen(facts, images, masks))
    return found
