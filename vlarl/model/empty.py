"""Building a module without memory for its weights, which are about to be read from a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def empty_weights() -> Iterator[None]:
    """Within the block, parameters of new modules are on the meta device; buffers are as always.

    Rotary embeddings keep in buffers what no checkpoint holds: on the meta device it would be lost.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make `tensor` itself the parameter or buffer of this name, in its own number format."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf in module._parameters:
        present = module._parameters[leaf]
        trains = present is not None and present.requires_grad
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=trains)
    else:
        assert leaf in module._buffers, name
        module._buffers[leaf] = tensor


def still_empty(model: nn.Module) -> list[str]:
    """Names of parameters and buffers that have no memory."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [name for name, tensor in named if tensor.device == torch.device("meta")]
