"""A second device made of the CPU, for machines without one: mixing it with the CPU is an error.

Within `second_device()` tensors on `meta` hold numbers and compute. What a GPU would refuse, an
operation on tensors of both devices, is refused here too; what a GPU accepts (numbers without
dimensions, indices on the CPU, copies) is accepted.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

ELSEWHERE = torch.device("meta")
_COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}
_INDEXED = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}
_SDP_CHOICE = torch.ops.aten._fused_sdp_choice.default


class _Elsewhere(torch.Tensor):
    """Says that it is on `meta`; `inner` is what it stands for."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"_Elsewhere({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Computing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers from and to Python would pass the real `meta` without being dispatched."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            kwargs = dict(kwargs)
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is torch.Tensor.tolist:
            return func(args[0].cpu())
        return func(*args, **kwargs)


@contextmanager
def second_device():
    """Within the block, `meta` is a device like any other."""
    with _Literals(), _Computing():
        yield


def _computed(func, args, kwargs):
    """Run `func` on the inner tensors, if they are all on one device, and wrap what comes back."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    away = [isinstance(tensor, _Elsewhere) for tensor in tensors]
    _refuse_mixture(func, tensors, away)
    wanted = kwargs.get("device")
    lands_away = any(away) if wanted is None else torch.device(wanted) == ELSEWHERE
    if func is _SDP_CHOICE:
        return 0
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map_only(_Elsewhere, lambda each: each.inner, (args, kwargs))
    result = func(*inner_args, **inner_kwargs)
    if func in _COPIES and len(tensors) == 2:
        return args[0]
    if not lands_away:
        return result
    wrapped = tree_map_only(torch.Tensor, _Elsewhere, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _refuse_mixture(func, tensors, away):
    if func in _COPIES or all(away) or not any(away):
        return
    if func in _INDEXED and away[0]:
        return
    writes = func._schema.is_mutable and not away[0]
    strays = [t for t, is_away in zip(tensors, away, strict=True) if not is_away and t.dim()]
    if strays or writes:
        places = [f"{tuple(t.shape)} on {t.device}" for t in tensors]
        raise RuntimeError(f"{func}: tensors on two devices: {', '.join(places)}")
