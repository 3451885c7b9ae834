"""Conversations about any images -> the backbone's input tensors, with labels on the answers.

Beside `Processor`, whose cameras and sizes are a contract's: here each image is scaled to a size of
its own within a budget of tokens, and rows are as long as the longest of the batch, rounded up, so
that few lengths occur. Chat template, view tags, patches and positions are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from vlarl.data.conversations import Conversation, Turn
from vlarl.data.pictures import Picture, fitted_size
from vlarl.errors import UserError
from vlarl.model.patches import PatchLayout
from vlarl.model.processor import IGNORED_LABEL
from vlarl.model.tokenizer import CONTROL_TOKENS, token_id
from vlarl.types import VIEWS

_BUCKET = 32
"""Rows have a multiple of this many tokens."""
_MIN_IMAGE_TOKENS = 4
"""Smaller images are enlarged to so many."""


@dataclass(frozen=True)
class _Piece:
    """Part of a conversation as tokens."""

    ids: list[int]
    supervised: bool


class ConversationProcessor:
    """Builds inputs for `QwenVLA.language_loss`."""

    def __init__(
        self,
        tokenizer: Qwen3_5Tokenizer,
        layout: PatchLayout,
        max_tokens: int,
        max_image_tokens: int,
    ) -> None:
        """Set the budgets.

        Args:
            tokenizer: of the backbone, with the view tags.
            layout: how images become patches.
            max_tokens: of one conversation with its images; longer ones are refused.
            max_image_tokens: of one image, which is scaled down to it.

        Raises:
            ValueError: for a budget below the smallest image's tokens.
        """
        if max_image_tokens < _MIN_IMAGE_TOKENS:
            raise ValueError(
                f"max_image_tokens = {max_image_tokens}: must be at least {_MIN_IMAGE_TOKENS}"
            )
        self.tokenizer, self.layout = tokenizer, layout
        self.max_tokens, self.max_image_tokens = max_tokens, max_image_tokens
        self._image_token = token_id(tokenizer, "<|image_pad|>")

    def size(self, picture: Picture) -> tuple[int, int]:
        """Height and width at which the model sees a picture."""
        unit = self.layout.patch_size * self.layout.merge_size
        bounds = (_MIN_IMAGE_TOKENS * unit**2, self.max_image_tokens * unit**2)
        return fitted_size(picture.height, picture.width, unit, *bounds)

    def token_count(self, conversation: Conversation) -> int:
        """Tokens of a conversation; no pixel is read.

        Raises:
            UserError: if it is too long, or its text contains a control token.
        """
        return sum(len(piece.ids) for piece in self._pieces(conversation))

    def answer_tokens(self, conversation: Conversation) -> int:
        """Tokens that `language_loss` is a mean over; errors as `token_count`."""
        return sum(len(piece.ids) for piece in self._pieces(conversation) if piece.supervised)

    def __call__(self, conversations: Sequence[Conversation]) -> TensorDict:
        """Inputs for next-token training on all turns of the assistant, and on nothing else.

        Args:
            conversations: `B` of them, with `I` images and `P` patches in all.

        Returns:
            TensorDict without batch size, as images are ragged: `input_ids`, `attention_mask`,
            `mm_token_type_ids`, `labels` [B, L], `position_ids` [B, 3, L]; and, if there are any
            images, `pixel_values` [1, P, patch_dim] and `image_grid_thw` [1, I, 3].

        Raises:
            UserError: for a conversation that is too long, with a control token in its text, or
                with an image that cannot be read.
        """
        rows = [self._pieces(conversation) for conversation in conversations]
        longest = max(sum(len(piece.ids) for piece in row) for row in rows)
        length = -(-longest // _BUCKET) * _BUCKET
        grids = [
            [self.layout.grid(*self.size(picture)) for picture in conversation.pictures]
            for conversation in conversations
        ]
        texts = [self._row(row, own, length) for row, own in zip(rows, grids, strict=True)]
        inputs = {key: torch.stack([text[key] for text in texts]) for key in texts[0]}
        if any(grids):
            inputs["image_grid_thw"] = torch.tensor([[grid for own in grids for grid in own]])
            inputs["pixel_values"] = self._pixels(conversations)
        return TensorDict(inputs, batch_size=[])

    def _pixels(self, conversations: Sequence[Conversation]) -> Tensor:
        """[1, P, patch_dim] of all pictures, one after another."""
        patches = []
        for conversation in conversations:
            for picture in conversation.pictures:
                try:
                    pixels = torch.tensor(picture.pixels(*self.size(picture)))
                except ValueError as error:
                    raise UserError(f"{_named(conversation)}: {error}") from error
                patches.append(self.layout.patchify(pixels[None]))
        return torch.cat(patches, dim=1)

    def _row(
        self, pieces: list[_Piece], grids: list[tuple[int, int, int]], length: int
    ) -> dict[str, Tensor]:
        """[L] tensors of one conversation, padded on the right, and its [3, L] positions."""
        ids = [token for piece in pieces for token in piece.ids]
        said: list[int] = []
        for piece in pieces:
            said += piece.ids if piece.supervised else [IGNORED_LABEL] * len(piece.ids)
        total = len(ids)
        input_ids = torch.tensor([*ids, *[self.tokenizer.pad_token_id] * (length - total)])
        positions = torch.zeros(3, length, dtype=torch.long)
        positions[:, :total] = self._positions(ids, grids)
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(length) < total).long(),
            "mm_token_type_ids": (input_ids == self._image_token).long(),
            "labels": torch.tensor([*said, *[IGNORED_LABEL] * (length - total)]),
            "position_ids": positions,
        }

    def _positions(self, ids: list[int], grids: list[tuple[int, int, int]]) -> Tensor:
        """[3, tokens] time, row and column of multi-section rotary embedding."""
        parts, place, position = [], 0, 0
        for _, patch_rows, patch_columns in grids:
            rows = patch_rows // self.layout.merge_size
            columns = patch_columns // self.layout.merge_size
            words = ids.index(self._image_token, place) - place
            parts.append(torch.arange(position, position + words).expand(3, -1))
            position, place = position + words, place + words + rows * columns
            cells = torch.arange(rows * columns)
            parts.append(
                torch.stack([torch.zeros_like(cells), cells // columns, cells % columns]) + position
            )
            position += max(rows, columns)
        parts.append(torch.arange(position, position + len(ids) - place).expand(3, -1))
        return torch.cat(parts, dim=1)

    def _pieces(self, conversation: Conversation) -> list[_Piece]:
        """The chat template filled in: what is asked and what is answered, in turns."""
        pieces, text = [], ""
        for turn in conversation.turns:
            self._refuse_control_tokens(conversation, turn)
            text += f"<|im_start|>{turn.role}\n"
            if turn.role != "assistant":
                text += "".join(self._words(part) for part in turn.content) + "<|im_end|>\n"
                continue
            answer = "".join(str(part) for part in turn.content)
            pieces.append(self._piece(text, supervised=False))
            pieces.append(self._piece(f"{answer}<|im_end|>", supervised=True))
            text = "\n"
        count = sum(len(piece.ids) for piece in pieces)
        if count > self.max_tokens:
            raise UserError(
                f"{_named(conversation)}: {count} tokens, {self.max_tokens} are allowed: raise "
                "supervised.data.conversation_tokens, or lower supervised.data.image_tokens"
            )
        return pieces

    def _piece(self, text: str, supervised: bool) -> _Piece:
        return _Piece(self.tokenizer.encode(text, add_special_tokens=False), supervised)

    def _words(self, part: str | Picture) -> str:
        """Text as it is; a picture as its tokens, tagged with its view and its time.

        Views without tag tokens are named in words; times are worded as Qwen3.5 does in videos.
        """
        if isinstance(part, str):
            return part
        pads = "<|image_pad|>" * self.layout.tokens(*self.size(part))
        shown = f"<|vision_start|>{pads}<|vision_end|>"
        if part.view in VIEWS:
            shown = f"<|{part.view}_start|>{shown}<|{part.view}_end|>"
        elif part.view:
            shown = f"{part.view.replace('_', ' ')} view: {shown}"
        return shown if part.seconds is None else f"<{part.seconds:.1f} seconds>{shown}"

    @staticmethod
    def _refuse_control_tokens(conversation: Conversation, turn: Turn) -> None:
        words = [p.view if isinstance(p, Picture) else p for p in turn.content]
        for token in CONTROL_TOKENS:
            # Otherwise a sample could close its turn or fake an image.
            if any(token in text for text in words):
                raise UserError(f"{_named(conversation)}: the text contains {token!r}")


def _named(conversation: Conversation) -> str:
    return f"{conversation.place}, sample {conversation.identity!r}"
