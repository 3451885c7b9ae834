"""Images and sentences -> the backbone's input tensors. No weights, no randomness.

One layout for training, rollout, evaluation and serving: the contract's cameras in their order,
each in its view tags, then the prompt, in a minimal chat template. Batches have a fixed length
(`contract.prompt_tokens`), padded on the right, so that any of them can be stacked. Images must
have the contract's size; nothing is resized here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from vlarl.contract import Contract
from vlarl.model.tokenizer import CONTROL_TOKENS, token_id
from vlarl.observations import Observations
from vlarl.prompt import prompt
from vlarl.state import BINS, StateCodec
from vlarl.types import VIEWS

IGNORED_LABEL = -100
_REMEMBERED_PROMPTS = 4096


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
        mean, std = (
            torch.tensor(each)[:, None, None] for each in (self.image_mean, self.image_std)
        )
        # Moved about as single bytes, which is a quarter of the work.
        blocks = blocks.contiguous().float().mul_(1.0 / (255.0 * std)).sub_(mean / std)
        repeated = blocks.unsqueeze(6).expand(*shape[:6], self.temporal_patch_size, *shape[6:])
        return repeated.reshape(batch, rows * columns, -1)


@dataclass(frozen=True)
class _Row:
    """Tensors of one text with its image placeholders, [L] each and [3, L] positions."""

    input_ids: Tensor
    attention_mask: Tensor
    mm_token_type_ids: Tensor
    position_ids: Tensor
    labels: Tensor


class Processor:
    """Builds the inputs of `QwenVLA` for one contract.

    Attributes:
        state: what states are mapped by, if the contract shows them; its ranges are a dataset's.
    """

    def __init__(
        self, tokenizer: Qwen3_5Tokenizer, contract: Contract, layout: PatchLayout | None = None
    ) -> None:
        """Raises ValueError for a camera without view tags, or a size without a patch grid."""
        unknown = [camera.name for camera in contract.cameras if camera.name not in VIEWS]
        if unknown:
            raise ValueError(f"cameras {unknown} have no view tags; allowed: {', '.join(VIEWS)}")
        self.tokenizer = tokenizer
        self.contract = contract
        self.layout = layout or PatchLayout()
        self.state = StateCodec.of_unit_range(contract.state_dim) if contract.shows_state else None
        self.grids = [self.layout.grid(camera.height, camera.width) for camera in contract.cameras]
        self.image_token = token_id(tokenizer, "<|image_pad|>")
        self._views = "".join(self._view_text(index) for index in range(len(contract.cameras)))
        self._grid = torch.tensor(self.grids)
        self._rows: dict[tuple[str, str | None], _Row] = {}

    def _view_text(self, index: int) -> str:
        camera = self.contract.cameras[index]
        pads = "<|image_pad|>" * self.layout.tokens(camera.height, camera.width)
        return f"<|{camera.name}_start|><|vision_start|>{pads}<|vision_end|><|{camera.name}_end|>"

    def tokens_of(self, text: str) -> tuple[int, int]:
        """How many tokens of `chat(text)` are images, and how many are not."""
        ids = self.tokenizer.encode(self.chat(text), add_special_tokens=False)
        images = ids.count(self.image_token)
        return images, len(ids) - images

    def chat(self, text: str) -> str:
        """The chat template around views and text, up to where the assistant speaks."""
        return f"<|im_start|>user\n{self._views}{text}<|im_end|>\n<|im_start|>assistant\n"

    def __call__(self, observations: Observations) -> TensorDict:
        """Inputs that ask for actions.

        Args:
            observations: `B` of them.

        Returns:
            TensorDict of batch size [B]: `input_ids`, `attention_mask`, `mm_token_type_ids` [B, L],
            `position_ids` [B, 3, L], `pixel_values` [B, P, patch_dim] over all cameras,
            `image_grid_thw` [B, I, 3]; `state` [B, d] in [-1, 1] where the action expert sees it;
            `embodiment` [B] where there are several.

        Raises:
            ValueError: for a missing camera or state, a wrong shape or type, NaN in the state, an
                unknown embodiment, an instruction that is empty or no text, or one that is too
                long.
        """
        if isinstance(observations.instructions, str):
            raise ValueError(
                f"instructions = {observations.instructions!r:.60}: must be a sequence of "
                "sentences, one for each observation; put it into a list"
            )
        if not len(observations):
            raise ValueError("no observations: give at least one image and one instruction")
        robots, horizons = self.contract.embodiments, self.contract.horizons
        which = self._embodiments_of(observations)
        # A text with a state in it hardly comes again: remembering it would push out the others.
        row, said = self._row, [None] * len(observations)
        if self.state is not None and self.contract.state_mode == "vlm_prompt":
            row, said = self._tokenize, self.state.bins(_state_of(observations)).tolist()
        texts = [
            prompt(robots[index], sentence, horizons[index], state)
            for index, sentence, state in zip(
                which.tolist(), observations.instructions, said, strict=True
            )
        ]
        inputs = self._assemble(observations.images, [row(text, None) for text in texts])
        if len(robots) > 1:
            inputs["embodiment"] = torch.from_numpy(which)
        if self.state is not None and self.contract.state_mode == "dit":
            unit = self.state.normalize(_state_of(observations))
            inputs["state"] = torch.from_numpy(unit)
        return inputs

    def _embodiments_of(self, observations: Observations) -> NDArray[np.int64]:
        count, known = len(observations), len(self.contract.embodiments)
        if observations.embodiment is None:
            return np.zeros(count, np.int64)
        which = observations.embodiment
        if which.shape != (count,) or not ((which >= 0) & (which < known)).all():
            raise ValueError(
                f"Observations.embodiment is {which.tolist()}: expected {count} places in the "
                f"contract's {known} embodiments, 0 to {known - 1}"
            )
        return which

    def check_instruction(self, instruction: str) -> None:
        """Find out what `__call__` would say of it, without images.

        Raises:
            ValueError: if it is empty, no text, or too long.
        """
        contract = self.contract
        longest = [BINS - 1] * contract.state_dim if contract.state_mode == "vlm_prompt" else None
        self._row(prompt(contract.embodiment, instruction, contract.horizon, longest), None)

    def question(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        question: Sequence[str],
        answer: Sequence[str] | None = None,
    ) -> TensorDict:
        """Inputs for next-token training: as `__call__`, plus `labels` [B, L].

        Labels stand at the answer and the `<|im_end|>` after it, -100 elsewhere. Without `answer`
        the text ends where the assistant would begin and nothing is supervised.
        """
        answers: Sequence[str | None] = [None] * len(question) if answer is None else answer
        if len(answers) != len(question):
            raise ValueError(f"{len(question)} questions but {len(answers)} answers")
        rows = [self._row(*text) for text in zip(question, answers, strict=True)]
        inputs = self._assemble(images, rows)
        inputs["labels"] = torch.stack([row.labels for row in rows])
        return inputs

    def _assemble(self, images: Mapping[str, NDArray[np.uint8]], rows: list[_Row]) -> TensorDict:
        batch = len(rows)
        return TensorDict(
            {
                "input_ids": torch.stack([row.input_ids for row in rows]),
                "attention_mask": torch.stack([row.attention_mask for row in rows]),
                "mm_token_type_ids": torch.stack([row.mm_token_type_ids for row in rows]),
                "position_ids": torch.stack([row.position_ids for row in rows]),
                "pixel_values": self.pixels(images, batch),
                "image_grid_thw": self._grid.expand(batch, -1, -1).clone(),
            },
            batch_size=[batch],
        )

    def pixels(self, images: Mapping[str, NDArray[np.uint8]], batch: int) -> Tensor:
        """[B, P, patch_dim] float32 over the contract's cameras; checks names, shapes and types."""
        parts = []
        for camera in self.contract.cameras:
            if camera.name not in images:
                raise ValueError(f"no image of camera {camera.name!r}; given: {sorted(images)}")
            image = images[camera.name]
            if not isinstance(image, np.ndarray):
                raise ValueError(
                    f"camera {camera.name!r}: expected a numpy array, got {type(image).__name__}"
                )
            expected = (batch, camera.height, camera.width, 3)
            if image.shape != expected or image.dtype != np.uint8:
                raise ValueError(
                    f"camera {camera.name!r}: expected uint8 {expected}, "
                    f"got {image.dtype} {image.shape}. Nothing is resized or converted here"
                )
            parts.append(self.layout.patchify(torch.tensor(image)))
        return torch.cat(parts, dim=1)

    def _row(self, text: str, answer: str | None) -> _Row:
        key = (text, answer)
        if key not in self._rows:
            if len(self._rows) >= _REMEMBERED_PROMPTS:
                self._rows.clear()
            self._rows[key] = self._tokenize(text, answer)
        return self._rows[key]

    def _tokenize(self, text: str, answer: str | None) -> _Row:
        for token in CONTROL_TOKENS:
            # Otherwise a sentence from outside could close its turn or fake an image.
            if token in text or (answer is not None and token in answer):
                raise ValueError(f"the text contains the control token {token!r}")
        ids = self.tokenizer.encode(self.chat(text), add_special_tokens=False)
        supervised: list[int] = []
        if answer is not None:
            supervised = self.tokenizer.encode(f"{answer}<|im_end|>", add_special_tokens=False)
        length, total = self.contract.prompt_tokens, len(ids) + len(supervised)
        if total > length:
            raise ValueError(
                f"{total} tokens exceed the contract's prompt_tokens = {length}; shorten the text "
                f"by {total - length}: {text!r}"
            )
        pad = self.tokenizer.pad_token_id
        input_ids = torch.tensor([*ids, *supervised, *[pad] * (length - total)])
        labels = torch.full((length,), IGNORED_LABEL)
        labels[len(ids) : total] = torch.tensor(supervised, dtype=torch.long)
        is_image = (input_ids == self.image_token).long()
        return _Row(
            input_ids=input_ids,
            attention_mask=(torch.arange(length) < total).long(),
            mm_token_type_ids=is_image,
            position_ids=self._positions(is_image.tolist(), total),
            labels=labels,
        )

    def _positions(self, is_image: list[int], total: int) -> Tensor:
        """[3, L] time, row and column of multi-section rotary embedding; 0 where padded."""
        positions = torch.zeros(3, len(is_image), dtype=torch.long)
        merge = self.layout.merge_size
        image, place, position = 0, 0, 0
        while place < total:
            if not is_image[place]:
                positions[:, place] = position
                place, position = place + 1, position + 1
                continue
            _, rows, columns = (
                self.grids[image][axis] // (merge if axis else 1) for axis in range(3)
            )
            tokens = torch.arange(rows * columns)
            span = slice(place, place + rows * columns)
            positions[0, span] = position
            positions[1, span] = position + tokens // columns
            positions[2, span] = position + tokens % columns
            image, place, position = (
                image + 1,
                place + rows * columns,
                position + max(rows, columns),
            )
        return positions


def _state_of(observations: Observations) -> NDArray[np.float32]:
    if observations.state is None:
        raise ValueError(
            "the model is shown the robot's state, but the observations have none: give "
            "Observations.state"
        )
    if len(observations.state) != len(observations):
        raise ValueError(f"{len(observations.state)} states but {len(observations)} observations")
    return observations.state
