"""Teaching a random vision tower to see: where is every object, in every view?

A backbone from the hub comes with eyes; the tiny preset starts from random weights, and learning to
see from action losses alone takes millions of samples. Here throw-away linear heads read the
places of all objects at once from the merged tokens, a hundred times more signal for each image
than a chunk of actions gives. One head sees all tokens of a view side by side, and learns fast. The
other sees nothing but the mean token of all views, and so makes every token speak one code that
attention can add up; what each head is worth was not measured apart. Only the
tower is kept. Nothing here knows of language.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.muon import linear_weights
from learners.optimizer import build_optimizer, clip_gradients
from vlarl.config.schema import LocalizationConfig, OptimizerConfig
from vlarl.data.grounding import GroundingSet
from vlarl.data.samples import BatchSampler
from vlarl.model.qwen_vla import QwenVLA

_SCALE = 4.0
"""Places are regressed as `scale * (place - 0.5)`, so that their spread is about one."""
_KNEE = 0.1
"""Error, in those units, where the loss turns from square to absolute: 2.5% of the image."""
_VISIBILITY_WEIGHT = 0.3
_SHIFT = 2
"""Pixels by which views are shifted at most, each by its own amount: many scenes out of one."""


class LocalizationTrainer:
    """Owns the throw-away heads, one for each camera, and the optimizer."""

    def __init__(
        self, model: QwenVLA, config: LocalizationConfig, scenes: GroundingSet, seed: int
    ) -> None:
        """Heads with random weights, drawn from `seed`."""
        self._model, self._config, self._scenes = model, config, scenes
        self._seed = seed
        cameras = model.contract.cameras
        widths = [
            model.processor.layout.tokens(camera.height, camera.width)
            * model.config.vision_config.out_hidden_size
            for camera in cameras
        ]
        torch.manual_seed(seed)
        outputs = len(scenes.objects) * 3
        self._heads = nn.ModuleList(nn.Linear(width, outputs) for width in widths)
        self._shared_head = nn.Linear(
            model.config.vision_config.out_hidden_size, len(cameras) * outputs
        )
        # Drawn on the CPU: the same numbers for each device.
        self._heads.to(model.device)
        self._shared_head.to(model.device)
        self._sampler = BatchSampler(len(scenes), config.batch_size, seed)
        self._parts = {
            "vision": model.parts()["vision"],
            "heads": [*self._heads.parameters(), *self._shared_head.parameters()],
        }
        rates = dict.fromkeys(self._parts, config.learning_rate)
        self._optimizer, self._scheduler = build_optimizer(
            self._parts,
            OptimizerConfig(learning_rates=rates, warmup_steps=100, final_fraction=0.02),
            config.steps,
            orthogonal=linear_weights(model.backbone.model.visual),
        )

    def train(
        self,
        progress: Callable[[int, dict[str, float]], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> float:
        """Take all steps.

        Args:
            progress: called now and then with the step and `pixel_error`.
            stop: asked after each step whether to end early, as if this step were the last.

        Returns:
            Mean error over the last steps, as a fraction of the image's width.
        """
        recent: list[float] = []
        for step in range(self._config.steps):
            indices = self._sampler.indices(step)
            images, truth = self._shifted(indices, np.random.default_rng([self._seed, step, 0x5F]))
            by_view, (places, visibility) = self._read(images)
            loss = _loss(*by_view, truth) + _loss(places, visibility, truth)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            clip_gradients(self._parts, 1.0)
            self._optimizer.step()
            self._scheduler.step()
            error = (places.detach() - truth).abs()[_visible(truth)].mean()
            recent = [*recent[-99:], float(error)]
            if progress is not None and (step + 1) % 20 == 0:
                progress(step + 1, {"error": float(np.mean(recent))})
            if stop is not None and stop():
                break
        return float(np.mean(recent))

    def predict(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """What the mean token says of these scenes.

        Returns:
            Places [B, cameras, objects, 2] as fractions, visibility logits [B, cameras, objects].
        """
        images = {name: each[indices] for name, each in self._scenes.images.items()}
        return self._read(images)[1]

    def _shifted(
        self, indices: NDArray[np.int64], random: np.random.Generator
    ) -> tuple[dict[str, NDArray[np.uint8]], Tensor]:
        """Images of these scenes, each moved a little, its edge repeated; and the new places."""
        images, places = {}, self._scenes.places[indices].copy()
        rows = np.arange(len(indices))[:, None, None]
        for view, (name, each) in enumerate(self._scenes.images.items()):
            height, width = each.shape[1:3]
            down, right = random.integers(-_SHIFT, _SHIFT + 1, (2, len(indices), 1))
            y = np.clip(np.arange(height) + down, 0, height - 1)[:, :, None]
            x = np.clip(np.arange(width) + right, 0, width - 1)[:, None, :]
            images[name] = each[indices][rows, y, x]
            places[:, view, :, 0] -= right / width
            places[:, view, :, 1] -= down / height
        return images, torch.from_numpy(places).to(self._model.device)

    def _read(
        self, images: dict[str, NDArray[np.uint8]]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """What the heads of the views say, and what the shared one says."""
        count = len(next(iter(images.values())))
        pixels = self._model.processor.pixels(images, count)
        views = [tokens.float() for tokens in self._model.view_tokens(pixels)]
        by_view = [head(tokens.flatten(1)) for head, tokens in zip(self._heads, views, strict=True)]
        shared = self._shared_head(torch.cat(views, dim=1).mean(dim=1))
        return _places_of(torch.stack(by_view, dim=1)), _places_of(
            shared.unflatten(1, (len(views), -1))
        )


def _places_of(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """[B, cameras, objects * 3] -> places and visibility logits."""
    found = numbers.unflatten(2, (-1, 3))
    return found[..., :2] / _SCALE + 0.5, found[..., 2]


def _visible(places: Tensor) -> Tensor:
    """[B, cameras, objects] whether places [B, cameras, objects, 2] are within the image."""
    return ((places >= 0) & (places < 1)).all(dim=-1)


def _loss(places: Tensor, visibility: Tensor, truth: Tensor) -> Tensor:
    seen = _visible(truth)
    error = _SCALE * (places[seen] - truth[seen])
    distance = F.smooth_l1_loss(error, torch.zeros_like(error), beta=_KNEE)
    presence = F.binary_cross_entropy_with_logits(visibility, seen.float())
    return distance + _VISIBILITY_WEIGHT * presence
