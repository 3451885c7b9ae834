"""What a checkpoint expects of the world: cameras, channels, horizon, prompt. Light; checks only.

A contract is held against the `EnvSpec` of a server before anything runs, so that swapped cameras
or another gripper convention are an error in words, not a low success rate.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from vlarl.embodiment import MAX_CHANNELS, Embodiment, embodiment_name
from vlarl.errors import CheckpointError
from vlarl.history import PastFrames
from vlarl.prompt import PROMPT_VERSION
from vlarl.types import CameraSpec, EnvSpec


@dataclass(frozen=True)
class Contract:
    """The interface of one checkpoint; saved as `contract.json`."""

    cameras: tuple[CameraSpec, ...]
    """In the order in which the prompt shows them."""
    horizon: int
    """`H_task`: valid steps of a chunk."""
    embodiment: Embodiment
    tensor_horizon: int = 16
    """`H`"""
    tensor_channels: int = MAX_CHANNELS
    """`K`"""
    state_mode: str = "none"
    prompt_version: str = PROMPT_VERSION
    prompt_tokens: int = 72
    """`L`: context tokens; shorter prompts are padded on the right."""
    history: int = 0
    """Frames of the first camera before the present one, shown as a video."""
    history_hz: float = 2.0
    """Their rate; that of navigation videos in section 3.2.4."""

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("a contract needs at least one camera")
        if not 1 <= self.horizon <= self.tensor_horizon:
            raise ValueError(f"horizon {self.horizon} is not within 1..{self.tensor_horizon}")
        if len(self.embodiment.channels) > self.tensor_channels:
            raise ValueError(
                f"{len(self.embodiment.channels)} action channels exceed {self.tensor_channels}"
            )
        if self.state_mode != "none":
            raise ValueError(f"state_mode {self.state_mode!r} is unknown; allowed: none")
        if self.history < 0:
            raise ValueError(f"history {self.history} must be at least 0")
        if self.history and not 0 < self.history_hz <= self.embodiment.control_hz:
            raise ValueError(
                f"history_hz {self.history_hz:g} must be above 0 and at most the control frequency,"
                f" {self.embodiment.control_hz:g} Hz: no frames come faster"
            )

    @property
    def past_frames(self) -> PastFrames | None:
        """Which past frames an observation comes with; None: none."""
        if not self.history:
            return None
        control_hz = self.embodiment.control_hz
        return PastFrames.at(self.cameras[0].name, self.history, self.history_hz, control_hz)

    def check(self, spec: EnvSpec) -> None:
        """Hold the contract against what a server simulates; further cameras there do no harm.

        Raises:
            CheckpointError: naming every mismatch.
        """
        problems = self._problems(spec)
        if problems:
            raise CheckpointError(
                f"the checkpoint does not fit suite {spec.suite!r}:\n  "
                + "\n  ".join([*problems, self._remedy(spec)])
            )

    def _problems(self, spec: EnvSpec) -> list[str]:
        problems = [*self._camera_problems(spec), *self._channel_problems(spec)]
        if embodiment_name(spec.embodiment) != self.embodiment.name:
            problems.append(
                f"embodiment: checkpoint {self.embodiment.name!r}, environment {spec.embodiment!r}"
            )
        if spec.control_hz != self.embodiment.control_hz:
            problems.append(
                f"control frequency: checkpoint {self.embodiment.control_hz:g} Hz, "
                f"environment {spec.control_hz:g} Hz"
            )
        return problems

    def _remedy(self, spec: EnvSpec) -> str:
        """Another image size, if that is all it takes."""
        height, width = self.cameras[0].height, self.cameras[0].width
        resized = tuple(CameraSpec(camera.name, height, width) for camera in spec.cameras)
        if height == width and not self._problems(replace(spec, cameras=resized)):
            return f"Use env.image_size={height}, or name another checkpoint."
        return "Name another checkpoint or suite."

    def _camera_problems(self, spec: EnvSpec) -> list[str]:
        offered = {camera.name: camera for camera in spec.cameras}
        problems = []
        if self.history and spec.cameras[0].name != self.cameras[0].name:
            problems.append(
                f"history: the checkpoint is shown past frames of camera {self.cameras[0].name!r}, "
                f"the environment returns those of {spec.cameras[0].name!r}"
            )
        for camera in self.cameras:
            found = offered.get(camera.name)
            if found is None:
                problems.append(f"camera {camera.name!r} is missing; offered: {sorted(offered)}")
            elif found != camera:
                problems.append(
                    f"camera {camera.name!r}: checkpoint {camera.height}x{camera.width}, "
                    f"environment {found.height}x{found.width}"
                )
        return problems

    def _channel_problems(self, spec: EnvSpec) -> list[str]:
        expected, offered = self.embodiment.channels, spec.channels
        if len(expected) != len(offered):
            return [
                f"action channels: checkpoint {[channel.name for channel in expected]}, "
                f"environment {[channel.name for channel in offered]}"
            ]
        return [
            f"action channel {index}: checkpoint {ours}, environment {theirs}"
            for index, (ours, theirs) in enumerate(zip(expected, offered, strict=True))
            if ours != theirs
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as JSON holds them."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Contract:
        """Inverse of `to_dict`.

        Raises:
            ValueError: for a missing or an unknown key, or a value out of range.
        """
        try:
            cameras = tuple(CameraSpec(**camera) for camera in values["cameras"])
            embodiment = Embodiment.from_dict(values["embodiment"])
            return Contract(**{**values, "cameras": cameras, "embodiment": embodiment})
        except KeyError as error:
            raise ValueError(f"contract: {error.args[0]} is missing") from error
        except TypeError as error:
            raise ValueError(f"contract: {error}") from error
