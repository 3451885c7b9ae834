"""How images and videos become the patches that the vision tower takes. No weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PatchLayout:
    """How images become patches; saved as `preprocessor_config.json`."""

    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        for name in ("patch_size", "merge_size", "temporal_patch_size"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be at least 1")

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Patches of one image: time, rows, columns.

        Raises:
            ValueError: if the size is no multiple of patch times merge.
        """
        unit = self.patch_size * self.merge_size
        if height % unit or width % unit:
            raise ValueError(f"image size {height}x{width} must be a multiple of {unit}")
        return 1, height // self.patch_size, width // self.patch_size

    def tokens(self, height: int, width: int) -> int:
        """Tokens of one image in the language model."""
        _, rows, columns = self.grid(height, width)
        return rows * columns // self.merge_size**2

    def patchify(self, images: Tensor) -> Tensor:
        """uint8 [B, h, w, 3] -> float32 [B, rows * columns, patch_dim].

        Patches come in blocks of merge x merge, each flattened as channel, time, row, column; a
        still image is repeated over time. Equals transformers' `Qwen2VLImageProcessorPil`.
        """
        batch, height, width, _ = images.shape
        _, rows, columns = self.grid(height, width)
        size, merge = self.patch_size, self.merge_size
        blocks = images.view(
            batch, rows // merge, merge, size, columns // merge, merge, size, 3
        ).permute(0, 1, 4, 2, 5, 7, 3, 6)
        shape = blocks.shape
        repeated = (
            self._normal(blocks, 2)
            .unsqueeze(6)
            .expand(*shape[:6], self.temporal_patch_size, *shape[6:])
        )
        return repeated.reshape(batch, rows * columns, -1)

    def patchify_video(self, frames: Tensor) -> Tensor:
        """uint8 [B, n, h, w, 3] -> float32 [B, t * rows * columns, patch_dim], `t` pairs of frames.

        Pairs are `temporal_patch_size` consecutive frames, of which `n` must be a multiple. Equals
        transformers' `Qwen3VLVideoProcessor`.
        """
        batch, count, height, width, _ = frames.shape
        _, rows, columns = self.grid(height, width)
        size, merge, together = self.patch_size, self.merge_size, self.temporal_patch_size
        pairs = count // together
        shape = (rows // merge, merge, size, columns // merge, merge, size, 3)
        blocks = frames.view(batch, pairs, together, *shape)
        ordered = self._normal(blocks.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8), 3)
        return ordered.reshape(batch, pairs * rows * columns, -1)

    def _normal(self, blocks: Tensor, trailing: int) -> Tensor:
        """uint8 -> float32 by the channels' mean and deviation, `trailing` dimensions after them.

        Blocks come as they are to lie: moved about as single bytes, which is a quarter of the work.
        """
        shape = (3, *[1] * trailing)
        mean, std = (torch.tensor(each).view(shape) for each in (self.image_mean, self.image_std))
        return blocks.contiguous().float().mul_(1.0 / (255.0 * std)).sub_(mean / std)
