"""What a run needs beside its weights to go on: a file of tensors, and JSON that refers to them.

    training_state.safetensors  training_state.json

A state is whatever `state_dict` of optimizers, schedules, generators and rollouts gives: maps,
lists and tuples of tensors, numbers and strings. It comes back as it was, bit for bit, keys that
are numbers included. Nothing is unpickled: a stranger's checkpoint holds wrong numbers at worst.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlarl.errors import CheckpointError

TENSORS, REST = "training_state.safetensors", "training_state.json"
_PICKLED = "training_state.pt"
"""What versions before this one wrote."""


def write_state(state: dict[str, Any], folder: Path) -> None:
    """Write `state` into a folder that exists."""
    tensors: dict[str, Tensor] = {}
    rest = _taken_apart(state, "state", tensors)
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    (folder / REST).write_text(json.dumps(rest) + "\n", encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """Inverse of `write_state`; tensors on the CPU.

    Raises:
        CheckpointError: if the files are missing, damaged, or of a version that pickled them.
    """
    file = folder / REST
    if not file.is_file():
        if (folder / _PICKLED).is_file():
            raise CheckpointError(
                f"{folder} holds a {_PICKLED}, as older versions wrote it: a pickle, which is not "
                f"read any more. Go on from its weights in a new run: model.checkpoint={folder}"
            )
        raise CheckpointError(f"{folder} holds no {REST}: it is no checkpoint of a run")
    try:
        tensors = load_file(folder / TENSORS)
        state = _put_together(json.loads(file.read_text(encoding="utf-8")), tensors)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file {folder / TENSORS} is missing") from error
    # Nesting beyond Python's own limit is a RecursionError.
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"the training state in {folder} is damaged: {error!r}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{file} is damaged: it holds a {type(state).__name__}, not a map")
    return state


def _taken_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for `value`; its tensors are put into `tensors` under names that begin with `name`."""
    if isinstance(value, Tensor):
        held = value.detach().cpu().contiguous()
        # A file of safetensors holds tensors that share no memory.
        shared = held.untyped_storage().nbytes() != held.nbytes
        tensors[name] = held.clone() if shared else held
        return {"tensor": name}
    if isinstance(value, dict):
        items = [[key, _taken_apart(v, f"{name}.{key}", tensors)] for key, v in value.items()]
        assert all(isinstance(key, str | int) for key in value)
        return {"map": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_taken_apart(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    assert value is None or isinstance(value, bool | int | float | str), (name, type(value))
    return value


def _put_together(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Inverse of `_taken_apart`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "map":
        return {key: _put_together(each, tensors) for key, each in content}
    if kind not in ("list", "tuple"):
        raise ValueError(f"{kind!r} is none of tensor, map, list, tuple")
    items = [_put_together(each, tensors) for each in content]
    return items if kind == "list" else tuple(items)
