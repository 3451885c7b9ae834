"""The same sentences with other padding: before them, or more of it behind them."""

import torch
from tensordict import TensorDict

BY_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "position_ids")


def moved_right(inputs: TensorDict, shift: int) -> TensorDict:
    """The same sentences padded on the left by `shift` tokens."""
    moved = inputs.clone()
    for key in BY_TOKEN:
        moved[key] = inputs[key].roll(shift, dims=-1)
    assert (moved["attention_mask"][:, :shift] == 0).all()
    return moved


def lengthened(inputs: TensorDict, tokens: int) -> TensorDict:
    """The same sentences with `tokens` more padded ones at the end."""
    longer = inputs.clone()
    for key in BY_TOKEN:
        # The last token is padding already: more of the same.
        last = inputs[key][..., -1:].expand(*inputs[key].shape[:-1], tokens)
        longer[key] = torch.cat([inputs[key], last], dim=-1)
    assert (longer["attention_mask"][:, -tokens:] == 0).all()
    return longer
