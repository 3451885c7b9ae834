"""Records that cross process boundaries between simulation and policy.

One frozen record per arrow of the loop, numpy only: simulators import this file and must stay
light. Letters: `n` environments in the record, `h` control steps of a chunk, `c` action channels.
Episode time is counted in control steps; one decision executes a chunk of several of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VIEWS = ("ego", "cam_left_wrist", "cam_right_wrist")
"""Cameras that have a pair of view tags in the prompt (paper section 3.2.1)."""

CHANNEL_KINDS = (
    "delta_position",  # displacement of an end effector along one axis
    "delta_rotation",  # turn of an end effector about one axis
    "rotation_euler",  # one of the three Euler angles of an end effector's rotation
    "rotation_axis_angle",  # one of the three components of axis times angle
    "rotation_quaternion",  # one of the four components of a quaternion
    "absolute_joint",  # position of a joint
    "gripper",  # aperture or closedness of a gripper
    "dexterous_hand",  # joint of a hand with fingers
    "eigengrasp",  # weight of a principal component of human hand poses
    "waypoint",  # part of a displacement and heading change in the ground plane
)
"""What an action channel may mean (paper sections 2.4 and 3.2.2)."""


@dataclass(frozen=True)
class CameraSpec:
    """One camera: images are `uint8 [height, width, 3]`, RGB, row 0 at the top."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class Channel:
    """One action channel of an embodiment.

    `kind` is one of `CHANNEL_KINDS`; `low` and `high` bound what the environment accepts, in
    `unit`.

    Raises:
        ValueError: for another kind.
    """

    name: str
    unit: str
    kind: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.kind not in CHANNEL_KINDS:
            raise ValueError(
                f"channel {self.name!r}: kind {self.kind!r} is unknown; "
                f"allowed: {', '.join(CHANNEL_KINDS)}"
            )


@dataclass(frozen=True)
class EnvSpec:
    """What a server simulates. Sent once; checkpoints' contracts are held against it."""

    suite: str
    tasks: tuple[str, ...]
    """Task names; `TimeStep.task_success` has one column for each, in this order."""
    cameras: tuple[CameraSpec, ...]
    channels: tuple[Channel, ...]
    embodiment: str
    """The embodiment that words the prompt: a name (`configs/embodiments/<name>.yaml`), or the path
    of a YAML file of one's own."""
    control_hz: float
    max_steps: int
    """Control steps after which an episode is truncated."""
    state_dim: int


@dataclass(frozen=True)
class EpisodeStart:
    """Everything that decides an episode's initial state: same record, same first observation.

    `instruction` overrides the task's own sentence (None: the suite's wording, drawn by seed).
    """

    task: str
    seed: int
    instruction: str | None = None


@dataclass(frozen=True)
class TimeStep:
    """What environments answer to `reset` or to one action chunk: one row per environment.

    A row whose episode ended (`terminated | truncated`) carries its final observation; that
    environment must be reset before it is stepped again.
    """

    env_ids: NDArray[np.int64]
    """[n] slots within the server."""
    images: dict[str, NDArray[np.uint8]]
    """camera name -> [n, height, width, 3], rendered at the end of the chunk."""
    state: NDArray[np.float32]
    """[n, state_dim] proprioception, SI units."""
    instruction: tuple[str, ...]
    """[n] the sentence the policy is told."""
    task: tuple[str, ...]
    """[n] the task that judges `success`."""
    seed: NDArray[np.int64]
    """[n] the seed of the episode's `EpisodeStart`."""
    step: NDArray[np.int32]
    """[n] control steps since reset."""
    executed: NDArray[np.int32]
    """[n] control steps executed by this call: 0 after reset, less than h if the episode ended."""
    reward: NDArray[np.float32]
    """[n] the simulator's own reward, summed over the executed steps."""
    success: NDArray[np.bool_]
    """[n] whether the goal of `task` is achieved now."""
    task_success: NDArray[np.bool_]
    """[n, len(spec.tasks)] whether each task's goal is achieved now, on this scene."""
    terminated: NDArray[np.bool_]
    """[n] the episode reached a terminal state (success)."""
    truncated: NDArray[np.bool_]
    """[n] the episode hit its time limit."""
    info: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """name -> [n] privileged scalars that a reward function may read."""
    frames: tuple[NDArray[np.uint8], ...] | None = None
    """When recording: [n] arrays [executed, height, width, 3] of the first camera."""

    def __len__(self) -> int:
        return len(self.env_ids)

    @property
    def done(self) -> NDArray[np.bool_]:
        """[n] `terminated | truncated`."""
        return self.terminated | self.truncated
