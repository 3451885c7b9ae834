"""A shard: some hundred trajectories of one arm and one template in one safetensors file.

Ragged arrays are stored flat with offsets, so that a reader maps the file and takes slices. A file
is written under another name and renamed when it is complete: under its own name it is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.errors import UserError
from vlarl.synthesis.arm import Floats
from vlarl.synthesis.motion import Records
from vlarl.synthesis.scene import Scene

FORMAT = "1"
"""Version of the arrays below, in each file's metadata."""
THINGS = ("position", "yaw", "final_position", "final_yaw", "radius", "height")
GOAL = ("category", "goal", "direction", "relation", "distance", "turn")
_DTYPES: dict[str, type] = {
    "F32": np.float32,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "U8": np.uint8,
}
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items()}


@dataclass(frozen=True)
class Trajectory:
    """One trajectory: `T` records at 50 Hz, its instruction and its scene."""

    robot: str
    template: str
    instruction: str
    joint_position: NDArray[np.float32]
    """[T, n] rad"""
    joint_velocity: NDArray[np.float32]
    """[T, n] rad/s"""
    tool_pose: NDArray[np.float32]
    """[T, 7] position in m and unit quaternion (w, x, y, z) of the tool in the base's frame."""
    gripper: NDArray[np.float32]
    """[T] 0 open, 1 closed."""
    segment_ends: NDArray[np.int32]
    """[S] the step at which each motion segment ends."""
    scene: dict[str, NDArray[Any]]
    """The fields `THINGS` and `GOAL` of `vlarl.synthesis.scene.Scene`, of this trajectory."""

    def __len__(self) -> int:
        return len(self.gripper)


@dataclass(frozen=True)
class Shard:
    """The arrays of a file, read or to be written; `N` trajectories, `T` records in all."""

    robot: str
    template: str
    arrays: Mapping[str, NDArray[Any]]

    @staticmethod
    def of(
        robot: str,
        template: str,
        records: Records,
        tool_pose: Floats,
        scene: Scene,
        texts: list[str],
    ) -> Shard:
        """From what synthesis made."""
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([0, *map(len, encoded)])
        floats = {f"scene.{name}": getattr(scene, name).astype(np.float32) for name in THINGS}
        goals = {f"scene.{name}": getattr(scene, name) for name in GOAL}
        whole = {
            name: values.astype(np.float32 if values.dtype.kind == "f" else np.int16)
            for name, values in goals.items()
        }
        arrays: dict[str, NDArray[Any]] = {
            "offsets": records.offsets.astype(np.int64),
            "joint_position": records.position,
            "joint_velocity": records.velocity,
            "tool_pose": tool_pose.astype(np.float32),
            "gripper": records.gripper,
            "segment_ends": records.segment_ends.astype(np.int32),
            "instruction": np.frombuffer(b"".join(encoded), np.uint8),
            "instruction_offsets": ends.astype(np.int64),
        }
        return Shard(robot, template, arrays | floats | whole)

    def __len__(self) -> int:
        return len(self.arrays["offsets"]) - 1

    @property
    def steps(self) -> int:
        """`T`."""
        return int(self.arrays["offsets"][-1])

    def instruction(self, row: int) -> str:
        """The sentence of a trajectory."""
        first, last = self.arrays["instruction_offsets"][row : row + 2]
        return bytes(self.arrays["instruction"][first:last]).decode()

    def trajectory(self, row: int) -> Trajectory:
        """Trajectory `row`; its arrays are slices of the shard's."""
        first, last = self.arrays["offsets"][row : row + 2]
        scene = {name: self.arrays[f"scene.{name}"][row] for name in (*THINGS, *GOAL)}
        return Trajectory(
            robot=self.robot,
            template=self.template,
            instruction=self.instruction(row),
            joint_position=self.arrays["joint_position"][first:last],
            joint_velocity=self.arrays["joint_velocity"][first:last],
            tool_pose=self.arrays["tool_pose"][first:last],
            gripper=self.arrays["gripper"][first:last],
            segment_ends=self.arrays["segment_ends"][row],
            scene=scene,
        )

    def write(self, path: Path) -> int:
        """Write the file, whole or not at all; its size in bytes."""
        metadata = {"format": FORMAT, "robot": self.robot, "template": self.template}
        header: dict[str, Any] = {"__metadata__": metadata}
        # Widest numbers first: every array then begins at a multiple of its number's size.
        names = sorted(self.arrays, key=lambda name: (-self.arrays[name].itemsize, name))
        end = 0
        for name in names:
            values = self.arrays[name]
            start, end = end, end + values.nbytes
            header[name] = {
                "dtype": _CODES[values.dtype],
                "shape": list(values.shape),
                "data_offsets": [start, end],
            }
        # The same shard makes the same bytes: the safetensors library orders metadata at random.
        text = json.dumps(header, sort_keys=True).encode()
        text += b" " * (-len(text) % 8)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                file.write(np.ascontiguousarray(self.arrays[name]).data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return 8 + len(text) + end


def read_shard(path: Path) -> Shard:
    """Map a file into memory.

    Raises:
        UserError: if it is missing, truncated or of another format.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable shard: {error}") from error
    metadata = header.pop("__metadata__", {})
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: format {metadata.get('format')!r}; this version reads {FORMAT!r}")
    size = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
    if path.stat().st_size != size:
        raise UserError(f"{path}: {path.stat().st_size} bytes, {size} expected: remove the file")
    memory = np.memmap(path, np.uint8, "r", offset=8 + length)
    arrays = {
        name: memory[slice(*entry["data_offsets"])]
        .view(_DTYPES[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
    }
    return Shard(metadata["robot"], metadata["template"], arrays)
