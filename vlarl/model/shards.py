"""Tensors in a checkpoint folder: one safetensors file, or shards with an index, as on the hub.

Reading copies one tensor at a time, so that a model loads within its own size. A file is opened for
each tensor anew: as long as it is open, what was read of it stays mapped and counts a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlarl.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
SHARD_BYTES = 5_000_000_000
_PATTERN = "model{suffix}.safetensors"


def write_tensors(tensors: dict[str, Tensor], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `tensors` to `folder`; above `shard_bytes`, in several files and an index."""
    split = split_torch_state_dict_into_shards(
        tensors, filename_pattern=_PATTERN, max_shard_size=shard_bytes
    )
    for name, members in split.filename_to_tensors.items():
        shard = {member: tensors[member] for member in members}
        save_file(shard, folder / name, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


class TensorFiles(Mapping[str, Tensor]):
    """name -> tensor of a folder, read when asked for."""

    def __init__(self, folder: Path, also: Sequence[str] = ()) -> None:
        """Open the files, those named in `also` too; no tensor is read.

        Raises:
            CheckpointError: for a file that is missing or damaged, or an index that does not say
                what its shards hold.
        """
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        index = folder / INDEX
        names = _shards_of(index) if index.is_file() else {SINGLE: None}
        names |= dict.fromkeys(also)
        for file, promised in names.items():
            shapes = _shapes_in(folder / file)
            held = set(shapes)
            if promised is not None and held != promised:
                wrong = ", ".join(sorted(held ^ promised)[:4])
                raise CheckpointError(f"{index} and {file} disagree about {wrong}")
            self._shapes |= shapes
            self._files |= dict.fromkeys(held, folder / file)

    def __getitem__(self, name: str) -> Tensor:
        """A copy in memory, independent of the file."""
        with safe_open(self._files[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
            return tensor.clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self._shapes[name]


def _shards_of(index: Path) -> dict[str, set[str] | None]:
    """File -> the tensors that the index promises in it."""
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        names: dict[str, set[str] | None] = {}
        for tensor, file in weight_map.items():
            members = names.setdefault(file, set())
            assert members is not None
            members.add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint file {index} is damaged: {error}") from error
    return names


def _shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in one file, from its header."""
    try:
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file {path} is missing") from error
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint file {path} is damaged: {error}") from error
