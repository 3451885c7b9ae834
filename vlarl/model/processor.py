"""Images and sentences -> the backbone's input tensors. No weights, no randomness.

One layout for training, rollout, evaluation and serving: the contract's cameras in their order,
each in its view tags, then the prompt, in a minimal chat template. A history is a video before the
first camera's present image, laid out as transformers does for Qwen3.5: a timestamp before each
pair of frames. Questions about images are asked without one. Batches have a fixed length
(`contract.prompt_tokens`), padded on the right, so that any of them can be stacked. Images must
have the contract's size; nothing is resized here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from vlarl.contract import Contract
from vlarl.model.patches import PatchLayout
from vlarl.model.tokenizer import CONTROL_TOKENS, token_id
from vlarl.observations import Observations
from vlarl.prompt import prompt
from vlarl.state import BINS, StateCodec
from vlarl.types import VIEWS, CameraSpec

IGNORED_LABEL = -100
_TEXT, _IMAGE, _VIDEO = 0, 1, 2
"""`mm_token_type_ids`, as transformers numbers them."""
_REMEMBERED_PROMPTS = 4096


class PromptError(ValueError):
    """A text that the model cannot be told."""


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
        """Raises ValueError for what cannot be shown.

        That is a camera without view tags, a size without a patch grid, and a history that is no
        multiple of the frames that share a patch.
        """
        every = [*contract.cameras, *chain(*contract.further_cameras)]
        unknown = [camera.name for camera in every if camera.name not in VIEWS]
        if unknown:
            raise ValueError(f"cameras {unknown} have no view tags; allowed: {', '.join(VIEWS)}")
        self.tokenizer = tokenizer
        self.contract = contract
        self.layout = layout or PatchLayout()
        self.state = StateCodec.of_unit_range(contract.state_dim) if contract.shows_state else None
        self.grids = [self.layout.grid(camera.height, camera.width) for camera in contract.cameras]
        if contract.history % self.layout.temporal_patch_size:
            raise ValueError(
                f"history {contract.history} is not a multiple of the "
                f"{self.layout.temporal_patch_size} frames that share a patch"
            )
        pairs = contract.history // self.layout.temporal_patch_size
        self.video_grid = (pairs, *self.grids[0][1:]) if pairs else (0, 0, 0)
        self.image_token = token_id(tokenizer, "<|image_pad|>")
        self.video_token = token_id(tokenizer, "<|video_pad|>")
        self._views = self._views_text(past="")
        self._views_with_history = self._views_text(past=self._video_text())
        self._grid = torch.tensor(self.grids)
        self._rows: dict[tuple[str, str | None, bool], _Row] = {}
        self._others = {
            cameras: self._seeing(cameras)
            for cameras in dict.fromkeys(contract.further_cameras)
            if cameras != contract.cameras
        }

    def _seeing(self, cameras: tuple[CameraSpec, ...]) -> Processor:
        """The processor for embodiments with these cameras, with as much room for text."""
        whole = replace(self.contract, cameras=cameras, further_cameras=())
        other = Processor(self.tokenizer, whole, self.layout)
        ours, theirs = (len(self.tokenizer.encode(each._views)) for each in (self, other))
        tokens = self.contract.prompt_tokens + theirs - ours
        return Processor(self.tokenizer, replace(whole, prompt_tokens=tokens), self.layout)

    def _views_text(self, past: str) -> str:
        """Every camera's image in its view tags; in the first's, `past` before it."""
        views = []
        for index, camera in enumerate(self.contract.cameras):
            pads = "<|image_pad|>" * self.layout.tokens(camera.height, camera.width)
            image = f"{past if index == 0 else ''}<|vision_start|>{pads}<|vision_end|>"
            views.append(f"<|{camera.name}_start|>{image}<|{camera.name}_end|>")
        return "".join(views)

    def _video_text(self) -> str:
        """The history: each pair of frames after the mean of their times, in seconds."""
        if not self.contract.history:
            return ""
        together, rate = self.layout.temporal_patch_size, self.contract.history_hz
        camera = self.contract.cameras[0]
        pads = "<|video_pad|>" * self.layout.tokens(camera.height, camera.width)
        views = []
        for pair in range(self.video_grid[0]):
            first, last = together * pair / rate, (together * (pair + 1) - 1) / rate
            time = f"<{(first + last) / 2:.1f} seconds>"
            views.append(f"{time}<|vision_start|>{pads}<|vision_end|>")
        return "".join(views)

    def tokens_of(self, text: str) -> tuple[int, int]:
        """How many tokens of `chat(text)` are images or video, and how many are not."""
        ids = self.tokenizer.encode(self.chat(text), add_special_tokens=False)
        seen = ids.count(self.image_token) + ids.count(self.video_token)
        return seen, len(ids) - seen

    def chat(self, text: str, with_history: bool = True) -> str:
        """The chat template around views and text, up to where the assistant speaks."""
        views = self._views_with_history if with_history else self._views
        return f"<|im_start|>user\n{views}{text}<|im_end|>\n<|im_start|>assistant\n"

    def __call__(self, observations: Observations) -> TensorDict:
        """Inputs that ask for actions.

        Args:
            observations: `B` of them, of embodiments with the same cameras.

        Returns:
            TensorDict of batch size [B]: `input_ids`, `attention_mask`, `mm_token_type_ids` [B, L],
            `position_ids` [B, 3, L]; over all cameras, if there are any, `pixel_values`
            [B, P, patch_dim] and `image_grid_thw` [B, I, 3]; of a history `pixel_values_videos`
            [B, P', patch_dim] and `video_grid_thw` [B, 1, 3]; `state` [B, d] in [-1, 1] where the
            action expert sees it; `embodiment` [B] where there are several; `steps` [B] where
            observations say them.

        Raises:
            ValueError: for a missing camera or state, a wrong shape or type, NaN in the state, an
                unknown embodiment or such as see different cameras, an instruction that is empty or
                no text, or one that is too long.
        """
        if isinstance(observations.instructions, str):
            raise ValueError(
                f"instructions = {observations.instructions!r:.60}: must be a sequence of "
                "sentences, one for each observation; put it into a list"
            )
        if not len(observations):
            raise ValueError("no observations: give at least one image and one instruction")
        robots = self.contract.embodiments
        which = self._embodiments_of(observations)
        if self._others:
            (cameras, *more) = {self.contract.cameras_of(place) for place in np.unique(which)}
            if more:
                raise ValueError("these embodiments see different cameras: ask for each apart")
            if cameras in self._others:
                return self._others[cameras](observations)
        steps = observations.steps
        horizons = np.array(self.contract.horizons)[which] if steps is None else steps
        # A text with a state in it hardly comes again: remembering it would push out the others.
        row, said = self._row, [None] * len(observations)
        if self.state is not None and self.contract.state_mode == "vlm_prompt":
            row, said = self._tokenize, self.state.bins(_state_of(observations)).tolist()
        texts = [
            prompt(robots[index], sentence, horizon, state)
            for index, sentence, horizon, state in zip(
                which.tolist(), observations.instructions, horizons.tolist(), said, strict=True
            )
        ]
        inputs = self._assemble(observations.images, [row(text, None, True) for text in texts])
        if self.contract.history:
            inputs["pixel_values_videos"] = self._past_pixels(observations)
            grid = torch.tensor([self.video_grid])
            inputs["video_grid_thw"] = grid.expand(len(texts), -1, -1).clone()
        if steps is not None:
            inputs["steps"] = torch.from_numpy(steps)
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

    def check_instruction(self, instruction: str, place: int = 0) -> None:
        """Find out what `__call__` would say of it to embodiment `place`, without images.

        Raises:
            ValueError: if it is empty, no text, or too long.
        """
        contract = self.contract
        longest = [BINS - 1] * contract.state_dim if contract.state_mode == "vlm_prompt" else None
        robot, horizon = contract.embodiments[place], contract.horizons[place]
        text = prompt(robot, instruction, horizon, longest)
        self._others.get(contract.cameras_of(place), self)._row(text, None, with_history=True)

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
        texts = zip(question, answers, strict=True)
        rows = [self._row(text, said, with_history=False) for text, said in texts]
        inputs = self._assemble(images, rows)
        inputs["labels"] = torch.stack([row.labels for row in rows])
        return inputs

    def _assemble(self, images: Mapping[str, NDArray[np.uint8]], rows: list[_Row]) -> TensorDict:
        batch = len(rows)
        inputs = TensorDict(
            {
                "input_ids": torch.stack([row.input_ids for row in rows]),
                "attention_mask": torch.stack([row.attention_mask for row in rows]),
                "mm_token_type_ids": torch.stack([row.mm_token_type_ids for row in rows]),
                "position_ids": torch.stack([row.position_ids for row in rows]),
            },
            batch_size=[batch],
        )
        if self.contract.cameras:
            inputs["pixel_values"] = self.pixels(images, batch)
            inputs["image_grid_thw"] = self._grid.expand(batch, -1, -1).clone()
        return inputs

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

    def _past_pixels(self, observations: Observations) -> Tensor:
        """[B, P', patch_dim] of the history; where there is none, the present frame is repeated."""
        camera, frames = self.contract.cameras[0], self.contract.history
        past = observations.history
        if past is None:
            past = np.repeat(observations.images[camera.name][:, None], frames, axis=1)
        expected = (len(observations), frames, camera.height, camera.width, 3)
        if past.shape != expected or past.dtype != np.uint8:
            raise ValueError(f"history: expected uint8 {expected}, got {past.dtype} {past.shape}")
        return self.layout.patchify_video(torch.tensor(past))

    def _row(self, text: str, answer: str | None, with_history: bool) -> _Row:
        key = (text, answer, with_history)
        if key not in self._rows:
            if len(self._rows) >= _REMEMBERED_PROMPTS:
                self._rows.clear()
            self._rows[key] = self._tokenize(text, answer, with_history)
        return self._rows[key]

    def _tokenize(self, text: str, answer: str | None, with_history: bool) -> _Row:
        for token in CONTROL_TOKENS:
            # Otherwise a sentence from outside could close its turn or fake an image.
            if token in text or (answer is not None and token in answer):
                raise PromptError(f"the text contains the control token {token!r}")
        ids = self.tokenizer.encode(self.chat(text, with_history), add_special_tokens=False)
        supervised: list[int] = []
        if answer is not None:
            supervised = self.tokenizer.encode(f"{answer}<|im_end|>", add_special_tokens=False)
        length, total = self.contract.prompt_tokens, len(ids) + len(supervised)
        if total > length:
            raise PromptError(
                f"{total} tokens exceed the contract's prompt_tokens = {length}; shorten the text "
                f"by {total - length}: {text!r}"
            )
        pad = self.tokenizer.pad_token_id
        input_ids = torch.tensor([*ids, *supervised, *[pad] * (length - total)])
        labels = torch.full((length,), IGNORED_LABEL)
        labels[len(ids) : total] = torch.tensor(supervised, dtype=torch.long)
        kinds = _IMAGE * (input_ids == self.image_token) + _VIDEO * (input_ids == self.video_token)
        return _Row(
            input_ids=input_ids,
            attention_mask=(torch.arange(length) < total).long(),
            mm_token_type_ids=kinds,
            position_ids=self._positions(kinds.tolist(), total),
            labels=labels,
        )

    def _positions(self, kinds: list[int], total: int) -> Tensor:
        """[3, L] time, row and column of multi-section rotary embedding; 0 where padded.

        Each pair of a video's frames is laid out like an image: the text between them tells time.
        """
        positions = torch.zeros(3, len(kinds), dtype=torch.long)
        merge = self.layout.merge_size
        grids: dict[int, Iterator[tuple[int, int, int]]] = {
            _IMAGE: iter(self.grids),
            _VIDEO: repeat(self.grids[0] if self.grids else (0, 0, 0)),
        }
        place, position = 0, 0
        while place < total:
            if kinds[place] == _TEXT:
                positions[:, place] = position
                place, position = place + 1, position + 1
                continue
            _, rows, columns = next(grids[kinds[place]])
            rows, columns = rows // merge, columns // merge
            tokens = torch.arange(rows * columns)
            span = slice(place, place + rows * columns)
            positions[0, span] = position
            positions[1, span] = position + tokens // columns
            positions[2, span] = position + tokens % columns
            place, position = place + rows * columns, position + max(rows, columns)
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
