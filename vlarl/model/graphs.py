"""CUDA graphs for denoising: a few hundred small kernels, launched as one.

Every denoising step of a batch does the same work on tensors of the same shapes, and on a GPU its
launches from Python take longer than its kernels. So the expert's velocity is captured once for
each set of shapes, and then replayed with other numbers in the same buffers. A graph reads weights
where they lie: changes in place are seen, as optimizers and `apply_weights` make them; a weight
that is replaced by another tensor is not. Without gradients. Leaves out the backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from tensordict import TensorDict
from torch import Tensor

Velocity = Callable[[TensorDict, Tensor, Tensor, Tensor], Tensor]
"""`velocity(context, y, tau, action_mask)` of a model."""
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Of work without arguments makes a function that does it again, on the tensors that it used and
into the very tensor that it returned."""

_KEPT = 4
"""Graphs kept at most; each holds its own memory."""
_WARM_UP = 3
"""Runs before a capture, in which libraries choose kernels and allocate workspaces."""


def capture_on(device: torch.device) -> Capture:
    """CUDA's capture, on the GPU `device`."""
    return partial(_captured, device)


def _captured(device: torch.device, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    with torch.cuda.device(device):
        # Warm-up must not run on the stream whose order the capture is to record.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()

    def again() -> Tensor:
        graph.replay()
        return result

    return again


class VelocityGraphs:
    """The velocity of one model, captured for the shapes that were used last.

    Args:
        velocity: of the model.
        capture: how work is captured.
        kept: graphs at most; the one unused for longest makes room.
    """

    def __init__(self, velocity: Velocity, capture: Capture, kept: int = _KEPT) -> None:
        assert kept > 0
        self._velocity, self._capture, self._kept = velocity, capture, kept
        self._graphs: dict[tuple[object, ...], _Graph] = {}

    @torch.no_grad()
    def of(self, context: TensorDict, mask: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The velocity `f(y [B, H, K], tau [B])` of a prepared context [B], by replay.

        It holds until the next call of `of`, which may write over its context.
        """
        shapes = tuple((key, *_form(leaf)) for key, leaf in context.items(True, True))
        key = (*shapes, *_form(mask))
        graph = self._graphs.pop(key, None)
        if graph is None:
            if len(self._graphs) >= self._kept:
                del self._graphs[next(iter(self._graphs))]
            graph = _Graph(self._velocity, self._capture, context, mask)
        else:
            graph.load(context, mask)
        self._graphs[key] = graph
        return graph


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tuple(tensor.shape), tensor.dtype


class _Graph:
    """One capture with its buffers."""

    def __init__(
        self, velocity: Velocity, capture: Capture, context: TensorDict, mask: Tensor
    ) -> None:
        self._context, self._mask = context.clone(), mask.clone()
        self._y = torch.zeros(mask.shape, device=mask.device)
        self._tau = torch.ones(len(mask), device=mask.device)
        self._replay = capture(lambda: velocity(self._context, self._y, self._tau, self._mask))

    def load(self, context: TensorDict, mask: Tensor) -> None:
        """Take over what the coming calls share."""
        for key, buffer in self._context.items(True, True):
            buffer.copy_(context[key])
        self._mask.copy_(mask)

    @torch.no_grad()
    def __call__(self, y: Tensor, tau: Tensor) -> Tensor:
        self._y.copy_(y)
        self._tau.copy_(tau)
        # The next replay writes into the same tensor.
        return self._replay().clone()
