"""A model divided among the processes of a training, by FSDP2 (`runtime.shard=full`).

Each process keeps a part of every large weight, of its gradient and of what the optimizer remembers
of it. A layer's weights are gathered when it runs, forward and backward, and let go after that;
gradients are summed on the way back into their parts. So every process must run the same layers in
the same order. Small parameters stay whole on each process: those that are float32 in every model
(adapters among them), and those of the action expert outside its blocks. A batch need not reach all
of these, and FSDP lets a module's weights go when the gradient of its input is known, which is
before that of the flow time's embedding.

Leaves out who starts the processes, and the sums of what is not divided (`learners.shares`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from vlarl.model.precision import stays_float32
from vlarl.model.qwen_vla import QwenVLA

_EXPERT, _BLOCKS = "expert.", "expert.blocks."
_OF_BLOCKS = ("modulations", "prefix", "offered", "advance", "suffix")
"""What is called of a block from outside, beside `forward`. One of these must not call another: the
first to return lets the weights go."""
_OF_BACKBONE = ("encode", "language_loss")
"""What trainers call of the model that runs the backbone."""
_VIEWS = "FSDP2-wrapped module .* returned a view tensor"
"""A warning about changes in place, of which the model makes none there."""


def shard(model: QwenVLA) -> None:
    """Divide `model` in place among all processes, which must all hold the same weights.

    Parameters are other objects afterwards: build optimizers later.
    """
    warnings.filterwarnings("ignore", message=_VIEWS)
    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    whole_ones = _whole_ones(model)
    for module, methods in _gathered_modules(model):
        divided = fully_shard(
            module, mesh=mesh, reshard_after_forward=True, ignored_params=whole_ones
        )
        # The gradient of a batch is the sum of what its rows give, not a mean over processes.
        divided.set_gradient_divide_factor(1.0)
        divided.set_force_sum_reduction_for_comms(True)
        for name in methods:
            register_fsdp_forward_method(module, name)
    for name in _OF_BACKBONE:
        _enter_through(model.backbone, model, name)


def gathered_groups(model: QwenVLA) -> list[list[nn.Parameter]]:
    """The weights that `shard` divides, by what is gathered together; the backbone's own last."""
    seen = _whole_ones(model)
    groups = []
    for module, _ in _gathered_modules(model):
        groups.append([weight for weight in module.parameters() if weight not in seen])
        seen.update(groups[-1])
    return groups


def _whole_ones(model: QwenVLA) -> set[nn.Parameter]:
    """Weights of divided modules that stay whole on each process."""
    return {
        parameter
        for name, parameter in model.named_parameters()
        if stays_float32(name) or (name.startswith(_EXPERT) and not name.startswith(_BLOCKS))
    }


def _gathered_modules(model: QwenVLA) -> list[tuple[nn.Module, Sequence[str]]]:
    """Modules whose weights are gathered together, and what is called of them beside `forward`.

    Each comes before those around it.
    """
    backbone, expert = model.backbone, model.expert
    layers = (*backbone.model.visual.blocks, *backbone.model.language_model.layers)
    return [
        *((layer, ()) for layer in layers),
        *((block, _OF_BLOCKS) for block in expert.blocks),
        # None of its own weights is divided; it orders the gathering of its blocks'.
        (expert, ()),
        (backbone, ()),
    ]


def _enter_through(backbone: nn.Module, model: QwenVLA, name: str) -> None:
    """Make a method of the model one of the backbone, so that its weights are gathered around it.

    FSDP does so for `forward` alone, which nobody calls here.
    """
    plain = getattr(model, name)
    # In what comes back, FSDP finds the tensors of a dict, but not of a TensorDict.
    setattr(backbone, name, lambda inputs: _opened(plain(inputs)))
    register_fsdp_forward_method(backbone, name)
    entrance = getattr(backbone, name)

    def entered(inputs: Any) -> Any:
        found = entrance(inputs)
        return TensorDict(found, batch_size=len(inputs)) if isinstance(found, dict) else found

    setattr(model, name, entered)


def _opened(found: Any) -> Any:
    return dict(found.items()) if isinstance(found, TensorDict) else found


def local(tensor: Tensor) -> Tensor:
    """This process' part of a divided tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor, if it is divided; on the CPU of the first process, empty on the others.

    All processes must ask for the same tensors in the same order.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    found = tensor.full_tensor()
    return found.cpu() if dist.get_rank() == 0 else found.new_empty(0)


def gathered_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors by name, for `QwenVLA.save_pretrained`; see `gathered`."""
    return {name: gathered(tensor) for name, tensor in model.state_dict().items()}


def gathered_like(part: Tensor, weight: Tensor) -> Tensor:
    """As `gathered`, of what is divided as `weight` is, `part` by `part`."""
    if not isinstance(weight, DTensor):
        return part
    divided = DTensor.from_local(
        part.detach().to(weight.device),
        weight.device_mesh,
        weight.placements,
        run_check=False,
        shape=weight.shape,
        stride=weight.stride(),
    )
    return gathered(divided)


def part_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """Inverse of `gathered_like`: this process' part, of a tensor that each process has."""
    if not isinstance(weight, DTensor):
        return tensor
    placed = distribute_tensor(
        tensor.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None
    )
    return placed.to_local()


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all of these together, the same on every process."""
    plain: list[Tensor] = []
    parts: list[Tensor] = []
    for gradient in gradients:
        (parts if isinstance(gradient, DTensor) else plain).append(_exact(local(gradient)))
    norm = torch.nn.utils.get_total_norm(plain)
    if not parts:
        return norm
    squares = torch.nn.utils.get_total_norm(parts).square()
    dist.all_reduce(squares)
    return (squares + norm.to(squares.device).square()).sqrt()


def _exact(gradient: Tensor) -> Tensor:
    """The same for a norm: below float32, its own norm in float32."""
    if gradient.dtype == torch.float32:
        return gradient
    return torch.linalg.vector_norm(gradient, dtype=torch.float32)
