"""Teaching a random language model to bind words to things: where is what the sentence names?

Follows localization (`localization.py`), and needs its tower. A throw-away linear head reads the
places of the objects that an instruction names, and of the hand, from the mean hidden state of the
backbone. That is the same question as the paper's spatial grounding, asked of the very prompts the
policy will see and answered in numbers instead of digits: binding takes hundreds of steps this way,
where the next-token loss stayed on a plateau for two thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from vlarl.errors import ConfigError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations

_SCALE, _KNEE = 4.0, 0.1
_DECIMETERS, _NEAR = 10.0, 0.5
"""Offsets are regressed in decimeters; one of length zero counts 1 / _NEAR times one of length
1 - _NEAR: the nearer the hand, the better it must know."""
_VISION_SHARE = 0.3
"""Learning rate of the tower, which knows its job by now, beside the language model's."""


def named_objects(sentence: str, objects: Sequence[str]) -> list[int]:
    """Indices of the objects that a sentence names, in its order.

    Where one name is within another (`block`, `green block`), the longer one counts.
    """
    found = {}
    for index in sorted(range(len(objects)), key=lambda i: -len(objects[i])):
        at = sentence.find(objects[index])
        if at >= 0:
            found[at] = index
            sentence = sentence.replace(objects[index], "#" * len(objects[index]))
    return [found[at] for at in sorted(found)]


class BindingTrainer:
    """Owns the throw-away head and the optimizer; the backbone is the model's.

    Args:
        model: whose vision and language parts learn.
        config: `binding_steps`, `binding_batch_size`, `binding_learning_rate`.
        scenes: images and places; names that no sentence mentions (the hand) are asked always.
        sentences: instructions, each naming the same number of objects.
        seed: of head, scenes and sentences.

    Raises:
        ConfigError: if the sentences name different numbers of objects, or none.
    """

    def __init__(
        self,
        model: QwenVLA,
        config: LocalizationConfig,
        scenes: GroundingSet,
        sentences: Sequence[str],
        seed: int,
    ) -> None:
        self._model, self._config, self._scenes, self._seed = model, config, scenes, seed
        self._sentences = list(sentences)
        named = [named_objects(sentence, scenes.objects) for sentence in sentences]
        if len({len(row) for row in named}) != 1 or not named[0]:
            raise ConfigError(
                f"supervised.localization.binding_steps: the instructions {self._sentences} must "
                f"each name the same number of the objects {scenes.objects}; set it to 0"
            )
        never = set(range(len(scenes.objects))) - {index for row in named for index in row}
        self._asked = np.array([[*row, *sorted(never)] for row in named])
        self._places = torch.from_numpy(scenes.places).to(model.device)
        self._visible = torch.from_numpy(scenes.visible).to(model.device)
        self._offsets = None
        if scenes.offsets is not None:
            self._offsets = torch.from_numpy(scenes.offsets).to(model.device)
        torch.manual_seed(seed)
        asked = self._asked.shape[1]
        self._shape = (len(model.contract.cameras), asked, 2)
        hidden = model.config.text_config.hidden_size
        # Drawn on the CPU: the same numbers for each device.
        self._head = nn.Linear(hidden, int(np.prod(self._shape)) + 3 * asked).to(model.device)
        self._sampler = BatchSampler(len(scenes), config.binding_batch_size, seed)
        parts = model.parts()
        self._parts = {
            "vision": parts["vision"],
            "language": parts["language"],
            "head": list(self._head.parameters()),
        }
        rate = config.binding_learning_rate
        rates = {"vision": _VISION_SHARE * rate, "language": rate, "head": rate}
        self._optimizer, self._scheduler = build_optimizer(
            self._parts,
            OptimizerConfig(learning_rates=rates, warmup_steps=50, final_fraction=0.05),
            config.binding_steps,
            orthogonal=linear_weights(model.backbone.model),
        )

    def train(
        self,
        progress: Callable[[int, dict[str, float]], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> float:
        """Take all steps.

        Args:
            progress: called now and then with the step and `error`.
            stop: asked after each step whether to end early, as if this step were the last.

        Returns:
            Mean error over the last steps, as a fraction of the image's width.
        """
        recent: list[float] = []
        for step in range(self._config.binding_steps):
            indices = self._sampler.indices(step)
            random = np.random.default_rng([self._seed, step, 0xB1])
            sentences = random.integers(len(self._sentences), size=len(indices))
            loss, error = self.loss(indices, sentences)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            clip_gradients(self._parts, 1.0)
            self._optimizer.step()
            self._scheduler.step()
            recent = [*recent[-99:], error]
            if progress is not None and (step + 1) % 20 == 0:
                progress(step + 1, {"error": float(np.mean(recent))})
            if stop is not None and stop():
                break
        return float(np.mean(recent))

    def loss(
        self, indices: NDArray[np.int64], sentences: NDArray[np.int64]
    ) -> tuple[Tensor, float]:
        """The loss of these scenes, each with its sentence, and the mean error of the places."""
        places, offsets = self.predict(indices, sentences)
        target, seen = self._truth(indices, sentences)
        error = _SCALE * (places - target)[seen]
        loss = _distance(error).mean()
        if self._offsets is not None:
            true = self._offsets[
                torch.from_numpy(indices)[:, None], torch.from_numpy(self._asked[sentences])
            ]
            weight = 1 / (_NEAR + _DECIMETERS * true.norm(dim=-1, keepdim=True))
            loss = loss + (weight * _distance(_DECIMETERS * (offsets - true))).mean()
        return loss, float(error.detach().abs().mean()) / _SCALE

    def predict(
        self, indices: NDArray[np.int64], sentences: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Of what each scene's sentence asks for, where it is.

        Returns:
            Places [B, cameras, asked, 2] and offsets [B, asked, 3].
        """
        images = {name: each[indices] for name, each in self._scenes.images.items()}
        words = [self._sentences[index] for index in sentences]
        processor = self._model.processor
        # Scenes come without the robot's state: the middle of every range stands in.
        state = None if processor.state is None else processor.state.middle(len(words))
        context = self._model.encode(processor(Observations(images, words, state=state)))
        weight = context["mask"].unsqueeze(-1).float()
        mean = (context["hidden"] * weight).sum(dim=1) / weight.sum(dim=1)
        numbers = self._head(mean)
        count = int(np.prod(self._shape))
        places = numbers[:, :count].view(-1, *self._shape) / _SCALE + 0.5
        return places, numbers[:, count:].view(len(mean), -1, 3) / _DECIMETERS

    def _truth(
        self, indices: NDArray[np.int64], sentences: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Places [B, cameras, asked, 2], and whether they are in view [B, cameras, asked]."""
        asked = torch.from_numpy(self._asked[sentences])[:, None, :]
        rows = torch.from_numpy(indices)[:, None, None]
        cameras = torch.arange(self._shape[0])[None, :, None]
        return self._places[rows, cameras, asked], self._visible[rows, cameras, asked]


def _distance(error: Tensor) -> Tensor:
    """Square near zero, absolute beyond the knee."""
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=_KNEE, reduction="none")
