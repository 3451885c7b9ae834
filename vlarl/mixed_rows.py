"""Rows of embodiments that see different cameras in one batch: padded to stack, encoded apart.

Contexts and inputs of fewer cameras have fewer tokens, patches and images. Here they are padded on
the right by zeros, which the masks (of tokens) and grids (of images) leave out again. Rows that are
alike already stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from vlarl.policy import PolicyModel

_GRIDS, _PATCHES = "image_grid_thw", "pixel_values"


def joined(parts: Sequence[TensorDict]) -> TensorDict:
    """One batch of the rows of all parts, in their order.

    Args:
        parts: batches as in `vlarl.batch`; what is in `context` or `inputs` may differ in size.
    """
    kept = "context" if "context" in parts[0] else "inputs"
    padded = padded_alike([part[kept] for part in parts])
    return torch.cat([part.copy().set(kept, own) for part, own in zip(parts, padded, strict=True)])


def padded_alike(parts: Sequence[TensorDict]) -> list[TensorDict]:
    """The same rows, each tensor padded by zeros to the largest of its name in every part."""
    found = [TensorDict({}, batch_size=part.batch_size) for part in parts]
    for key in list(parts[0].keys()):
        tensors = [part[key] for part in parts]
        assert not any(isinstance(tensor, TensorDictBase) for tensor in tensors), key
        sizes = [max(lengths) for lengths in zip(*(t.shape[1:] for t in tensors), strict=True)]
        for own, tensor in zip(found, tensors, strict=True):
            own[key] = _padded(tensor, sizes)
    return found


def encode_rows(model: PolicyModel, inputs: TensorDict) -> TensorDict:
    """`model.encode`, also of rows that see different cameras: each kind of row by itself."""
    grids = inputs.get(_GRIDS)
    if grids is None or (bool((grids == grids[:1]).all()) and bool(grids[0].all())):
        return model.encode(inputs)
    kinds, which = torch.unique(grids.flatten(1), dim=0, return_inverse=True)
    places = [torch.nonzero(which == kind).flatten() for kind in range(len(kinds))]
    contexts = [model.encode(_own_images(inputs[rows])) for rows in places]
    order = torch.argsort(torch.cat(places))
    return torch.cat(padded_alike(contexts))[order.to(contexts[0]["hidden"].device)]


def _own_images(inputs: TensorDict) -> TensorDict:
    """Inputs of rows with the same images, without the padding of images and patches."""
    grids = inputs[_GRIDS]
    images = int(grids[0].all(dim=-1).sum())
    patches = int(grids[0].prod(dim=-1).sum())
    own = inputs.copy()
    own[_GRIDS] = grids[:, :images]
    own[_PATCHES] = inputs[_PATCHES][:, :patches]
    return own


def _padded(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """[n, *sizes] the tensor with zeros after its own entries."""
    missing = [size - own for size, own in zip(sizes, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    # `pad` counts from the last dimension on.
    return F.pad(tensor, [each for more in reversed(missing) for each in (0, more)])
