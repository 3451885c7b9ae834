"""Float32 masters of weights that are kept in a smaller format (paper-scale training in bfloat16).

An update of a thousandth of a weight is less than bfloat16 can tell apart: added to the weight
itself, it is lost, however often it comes. The optimizer steps float32 masters instead, and the
weights follow them. Gradients come in the weights' own format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

_PORTION = 2**26
"""Numbers that are stepped at a time: their gradients in float32 are all that a step needs beyond
what stays."""


def below_float32(parameter: Tensor) -> bool:
    """Whether a parameter needs a master."""
    return parameter.dtype in (torch.bfloat16, torch.float16)


class MasteredOptimizer:
    """An optimizer of masters, used like one of the weights.

    Args:
        weights: all parameters that train; those in float32 are their own masters.
        make: builds the optimizer, given what maps a weight to its master.

    Attributes:
        inner: the optimizer, whose parameters are masters; for schedulers.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        make: Callable[[Callable[[nn.Parameter], nn.Parameter]], AdamW],
    ) -> None:
        self._weights = list(weights)
        self._masters = {w: nn.Parameter(w.detach().float()) for w in weights if below_float32(w)}
        self.inner = make(lambda weight: self._masters.get(weight, weight))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the inner optimizer."""
        return self.inner.param_groups

    @property
    def masters(self) -> list[Tensor]:
        """Of the weights that have one."""
        return [master.detach() for master in self._masters.values()]

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
                self._masters.get(weight, weight).grad = gradients[weight].float()
            self.inner.step()
            for weight in portion:
                master = self._masters.get(weight, weight)
                master.grad = None
                if master is not weight:
                    weight.copy_(master)
        for weight, gradient in gradients.items():
            weight.grad = gradient

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and the masters."""
        return {"optimizer": self.inner.state_dict(), "masters": self.masters}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; the weights follow their masters."""
        self.inner.load_state_dict(state["optimizer"])
        for (weight, master), stored in zip(self._masters.items(), state["masters"], strict=True):
            master.copy_(stored)
            weight.copy_(master)


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
