"""Float32 masters of weights that are kept in a smaller format (paper-scale training in bfloat16).

An update of a thousandth of a weight is less than bfloat16 can tell apart: added to the weight
itself, it is lost, however often it comes. The optimizer steps float32 masters instead, and the
weights follow them. Gradients come in the weights' own format.

The same serves for weights that an optimizer cannot step as they are: of a divided model
(`learners.sharding`) it steps this process' parts, and offloaded it steps copies on the CPU, where
it also keeps what it remembers. What is saved is the same in all cases, and of whole weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from learners.sharding import gathered_like, local, part_like
from vlarl.model.device import CPU

_PORTION = 2**26
"""Numbers that are stepped at a time: their gradients in float32 are all that a step needs beyond
what stays."""


def below_float32(parameter: Tensor) -> bool:
    """Whether a parameter needs a master."""
    return parameter.dtype in (torch.bfloat16, torch.float16)


class MasteredOptimizer:
    """An optimizer of masters, used like one of the weights.

    Args:
        weights: all parameters that train, in the order of the optimizer's groups; a whole one in
            float32 is its own master, unless offloaded.
        make: builds the optimizer, given what maps a weight to its master.
        offload: whether all masters are on the CPU.

    Attributes:
        inner: the optimizer, whose parameters are masters; for schedulers.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        make: Callable[[Callable[[nn.Parameter], nn.Parameter]], AdamW],
        offload: bool = False,
    ) -> None:
        self._weights, self._offload = list(weights), offload
        self._masters = {
            weight: _master(weight, offload)
            for weight in weights
            if offload or below_float32(weight) or local(weight) is not weight
        }
        self.inner = make(lambda weight: self._masters.get(weight, weight))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the inner optimizer."""
        return self.inner.param_groups

    @property
    def masters(self) -> list[Tensor]:
        """Of the weights that have one, as far as this process has them."""
        return [master.detach() for master in self._masters.values()]

    @property
    def mastered(self) -> dict[nn.Parameter, nn.Parameter]:
        """Weight -> its master, if it has one."""
        return dict(self._masters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the weights' gradients."""
        assert set_to_none
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Step the masters by the weights' gradients, portion by portion; the weights follow."""
        gradients = {weight: weight.grad for weight in self._weights if weight.grad is not None}
        for weight in gradients:
            weight.grad = None
        for portion in _portions(list(gradients)):
            for weight in portion:
                master = self._masters.get(weight, weight)
                master.grad = local(gradients[weight]).to(master.device, torch.float32)
            self.inner.step()
            for weight in portion:
                master = self._masters.get(weight, weight)
                master.grad = None
                self._follow(weight)
        for weight, gradient in gradients.items():
            weight.grad = gradient

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, and the masters of weights below float32, if there are any.

        Of a divided model all processes must ask; the first alone is given all of it.
        """
        state = self.inner.state_dict()
        state["state"] = {
            place: self._each(remembered, self._weights[place], gathered_like)
            for place, remembered in state["state"].items()
        }
        below = [weight for weight in self._weights if below_float32(weight)]
        if not below:
            return state
        masters = [gathered_like(self._masters[weight], weight) for weight in below]
        return {"optimizer": state, "masters": masters}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, however many processes wrote it; the weights follow."""
        below = [weight for weight in self._weights if below_float32(weight)]
        inner = state["optimizer"] if below else state
        parts = {
            place: self._each(remembered, self._weights[place], part_like)
            for place, remembered in inner["state"].items()
        }
        self.inner.load_state_dict({**inner, "state": parts})
        for weight, stored in zip(below, state["masters"] if below else (), strict=True):
            self._masters[weight].copy_(part_like(stored, weight))
            self._follow(weight)

    def _follow(self, weight: nn.Parameter) -> None:
        """Bring a weight up to its master; one that shares its memory is there already."""
        if self._offload or below_float32(weight):
            local(weight.detach()).copy_(self._masters[weight])

    @staticmethod
    def _each(
        remembered: dict[str, Any], weight: Tensor, change: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Any]:
        """What is remembered of a weight, all of its shape changed; the count of steps stays."""
        return {
            key: change(value, weight) if isinstance(value, Tensor) and value.dim() else value
            for key, value in remembered.items()
        }


def _master(weight: nn.Parameter, offload: bool) -> nn.Parameter:
    """What is stepped in a weight's place; shares its memory if it can."""
    own = local(weight.detach())
    if offload:
        return nn.Parameter(own.to(CPU, torch.float32, copy=True))
    return nn.Parameter(own.float())


def _portions(weights: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The weights in order, in lists of at most `_PORTION` numbers or of one weight."""
    portions: list[list[nn.Parameter]] = [[]]
    size = 0
    for weight in weights:
        if portions[-1] and size + weight.numel() > _PORTION:
            portions.append([])
            size = 0
        portions[-1].append(weight)
        size += weight.numel()
    return portions
