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

STATE_MODES = ("none", "vlm_prompt", "dit")


@dataclass(frozen=True)
class Contract:
    """The interface of one checkpoint; saved as `contract.json`."""

    cameras: tuple[CameraSpec, ...]
    """In the order in which the prompt shows them; none before a model has seen any (T2A)."""
    horizon: int
    """`H_task`: valid steps of a chunk."""
    embodiment: Embodiment
    tensor_horizon: int = 16
    """`H`"""
    tensor_channels: int = MAX_CHANNELS
    """`K`"""
    state_mode: str = "none"
    """How the state is shown: `none`, `vlm_prompt` (as bins in the prompt) or `dit` (as one token
    of the action expert); paper section 5.2.4."""
    prompt_version: str = PROMPT_VERSION
    prompt_tokens: int = 72
    """`L`: context tokens; shorter prompts are padded on the right."""
    state_dim: int = 0
    """`d`: numbers of a state that is shown; 0 with `state_mode` none."""
    further_embodiments: tuple[Embodiment, ...] = ()
    """What the model drives beside `embodiment`, each with a horizon of its own."""
    further_cameras: tuple[tuple[CameraSpec, ...], ...] = ()
    """What each of these sees, as `cameras`; empty: all of them see `cameras`."""
    history: int = 0
    """Frames of the first camera before the present one, shown as a video."""
    history_hz: float = 2.0
    """Their rate; that of navigation videos in section 3.2.4."""

    def __post_init__(self) -> None:
        if self.history and not self.cameras:
            raise ValueError("a history needs at least one camera")
        if not 1 <= self.horizon <= self.tensor_horizon:
            raise ValueError(f"horizon {self.horizon} is not within 1..{self.tensor_horizon}")
        for embodiment in self.embodiments:
            count = len(embodiment.channels)
            if count > self.tensor_channels:
                raise ValueError(f"{count} action channels exceed {self.tensor_channels}")
        self._check_further()
        if self.state_mode not in STATE_MODES:
            raise ValueError(
                f"state_mode {self.state_mode!r} is unknown; allowed: {', '.join(STATE_MODES)}"
            )
        if (self.state_dim > 0) != self.shows_state or self.state_dim < 0:
            raise ValueError(
                f"state_dim {self.state_dim} does not go with state_mode {self.state_mode!r}: it "
                "is 0 with none, above 0 else"
            )
        if self.history < 0:
            raise ValueError(f"history {self.history} must be at least 0")
        for embodiment in self.embodiments if self.history else ():
            if not 0 < self.history_hz <= embodiment.control_hz:
                raise ValueError(
                    f"history_hz {self.history_hz:g} must be above 0 and at most the control "
                    f"frequency, {embodiment.control_hz:g} Hz: no frames come faster"
                )
            if embodiment.control_hz != self.embodiment.control_hz:
                raise ValueError("a history needs embodiments of one control frequency")

    @property
    def past_frames(self) -> PastFrames | None:
        """Which past frames an observation comes with; None: none."""
        if not self.history:
            return None
        control_hz = self.embodiment.control_hz
        return PastFrames.at(self.cameras[0].name, self.history, self.history_hz, control_hz)

    def _check_further(self) -> None:
        for embodiment in self.further_embodiments:
            if not 1 <= embodiment.horizon <= self.tensor_horizon:
                raise ValueError(
                    f"embodiment {embodiment.name!r}: horizon {embodiment.horizon} is not within "
                    f"1..{self.tensor_horizon}"
                )
        names = [embodiment.name for embodiment in self.embodiments]
        if len(set(names)) < len(names):
            raise ValueError(f"embodiments {names}: each must have a name of its own")
        if self.further_cameras:
            if len(self.further_cameras) != len(names) - 1 or not all(self.further_cameras):
                raise ValueError(
                    f"further_cameras are of {len(self.further_cameras)} embodiments: expected "
                    f"some for each of {', '.join(names[1:]) or 'none'}"
                )
            if self.history:
                raise ValueError("a history needs embodiments that see the same cameras")
        if self.further_embodiments and self.shows_state:
            raise ValueError(
                f"state_mode {self.state_mode!r} needs a single embodiment, not {len(names)}: "
                "their states are different numbers"
            )

    @property
    def embodiments(self) -> tuple[Embodiment, ...]:
        """All of them; their numbers in a batch are their places here."""
        return (self.embodiment, *self.further_embodiments)

    @property
    def horizons(self) -> tuple[int, ...]:
        """`H_task` of each embodiment."""
        return (self.horizon, *(embodiment.horizon for embodiment in self.further_embodiments))

    def cameras_of(self, place: int) -> tuple[CameraSpec, ...]:
        """What the embodiment of this number sees, in the order in which the prompt shows it."""
        if place == 0 or not self.further_cameras:
            return self.cameras
        return self.further_cameras[place - 1]

    def place_of(self, reference: str) -> int:
        """The number of an embodiment that is given by name or by path, as in an `EnvSpec`.

        Raises:
            CheckpointError: if the model does not drive it.
        """
        names = [embodiment.name for embodiment in self.embodiments]
        if embodiment_name(reference) not in names:
            raise CheckpointError(
                f"the checkpoint drives {', '.join(names)}, not {reference!r}; name another"
            )
        return names.index(embodiment_name(reference))

    @property
    def shows_state(self) -> bool:
        """Whether an observation must come with its state."""
        return self.state_mode != "none"

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
        place = self._place_in(spec)
        named, ours = place is not None, self.embodiments[place or 0]
        problems = [*self._camera_problems(spec), *_channel_problems(ours, spec)]
        if not named:
            names = " or ".join(repr(embodiment.name) for embodiment in self.embodiments)
            problems.append(f"embodiment: checkpoint {names}, environment {spec.embodiment!r}")
        if spec.control_hz != ours.control_hz:
            problems.append(
                f"control frequency: checkpoint {ours.control_hz:g} Hz, "
                f"environment {spec.control_hz:g} Hz"
            )
        if self.shows_state and spec.state_dim != self.state_dim:
            problems.append(
                f"state: checkpoint {self.state_dim} numbers, environment {spec.state_dim}"
            )
        return problems

    def _place_in(self, spec: EnvSpec) -> int | None:
        """The number of the embodiment that an environment names; None: it is another."""
        names = [embodiment.name for embodiment in self.embodiments]
        name = embodiment_name(spec.embodiment)
        return names.index(name) if name in names else None

    def _remedy(self, spec: EnvSpec) -> str:
        """Another image size, if that is all it takes."""
        if not self.cameras:
            return "Train it on images first: vlarl cpt CONFIG.yaml model.init.weights=CHECKPOINT."
        first = self.cameras_of(self._place_in(spec) or 0)[0]
        height, width = first.height, first.width
        resized = tuple(CameraSpec(camera.name, height, width) for camera in spec.cameras)
        if height == width and not self._problems(replace(spec, cameras=resized)):
            return f"Use env.image_size={height}, or name another checkpoint."
        return "Name another checkpoint or suite."

    def _camera_problems(self, spec: EnvSpec) -> list[str]:
        offered = {camera.name: camera for camera in spec.cameras}
        problems = []
        if not self.cameras:
            problems.append("cameras: the checkpoint was trained on text alone and sees none")
        if self.history and spec.cameras[0].name != self.cameras[0].name:
            problems.append(
                f"history: the checkpoint is shown past frames of camera {self.cameras[0].name!r}, "
                f"the environment returns those of {spec.cameras[0].name!r}"
            )
        for camera in self.cameras_of(self._place_in(spec) or 0):
            found = offered.get(camera.name)
            if found is None:
                problems.append(f"camera {camera.name!r} is missing; offered: {sorted(offered)}")
            elif found != camera:
                problems.append(
                    f"camera {camera.name!r}: checkpoint {camera.height}x{camera.width}, "
                    f"environment {found.height}x{found.width}"
                )
        return problems

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
            further = tuple(map(Embodiment.from_dict, values.get("further_embodiments", ())))
            seen = values.get("further_cameras", ())
            parsed = {"cameras": cameras, "embodiment": embodiment, "further_embodiments": further}
            parsed["further_cameras"] = tuple(tuple(CameraSpec(**c) for c in own) for own in seen)
            return Contract(**{**values, **parsed})
        except KeyError as error:
            raise ValueError(f"contract: {error.args[0]} is missing") from error
        except TypeError as error:
            raise ValueError(f"contract: {error}") from error


def _channel_problems(ours: Embodiment, spec: EnvSpec) -> list[str]:
    expected, offered = ours.channels, spec.channels
    if len(expected) != len(offered):
        return [
            f"action channels: checkpoint {[channel.name for channel in expected]}, "
            f"environment {[channel.name for channel in offered]}"
        ]
    return [
        f"action channel {index}: checkpoint {channel}, environment {theirs}"
        for index, (channel, theirs) in enumerate(zip(expected, offered, strict=True))
        if channel != theirs
    ]
