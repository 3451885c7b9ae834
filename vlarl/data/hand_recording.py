"""Recorded human hands in a LeRobot dataset: absolute poses, one track for each hand.

`observation.state` holds, for `left` and `right`, found by name in any order:

    SIDE_wrist_x .. z                    position of the wrist, meters
    SIDE_wrist_turn_x .. z               its rotation, axis times angle, radians
    SIDE_joint_1_x .. SIDE_joint_15_z    rotations of the 15 joints of MANO, axis times angle
    SIDE_seen                            1 where the hand was tracked, 0 where not; may be left out

Both wrists are in one frame that stands still: the world, or the camera if it does not move. A hand
counts as unseen where any of its numbers is NaN, too. Actions are relative to a chunk's first frame
and so belong to no frame of the recording: `hand_samples.py` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.data.episode import Episode
from vlarl.data.hands import JOINTS, POSE, SIDES, Wrist
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError
from vlarl.rotations import axis_angle_of, matrix_of

_LARGEST_ANGLE = 2 * np.pi + 0.01
"""An axis-angle rotation never needs more than half a turn; trackers that unwrap it stay within a
whole one. What is beyond is in degrees."""


@dataclass(frozen=True)
class HandTrack:
    """One hand in `F` frames; poses of unseen frames mean nothing, but are finite."""

    wrist: Wrist
    """[F, 3] and [F, 3, 3]"""
    pose: NDArray[np.float64]
    """[F, 45]"""
    seen: NDArray[np.bool_]
    """[F]"""

    def __len__(self) -> int:
        return len(self.seen)


def _numbers_of(side: str) -> list[str]:
    """Names of the 51 numbers of one hand."""
    joints = [f"joint_{joint}_{axis}" for joint in range(1, JOINTS + 1) for axis in "xyz"]
    wrist = [f"wrist_{axis}" for axis in "xyz"] + [f"wrist_turn_{axis}" for axis in "xyz"]
    return [f"{side}_{name}" for name in wrist + joints]


STATE_NAMES: tuple[str, ...] = tuple(
    name for side in SIDES for name in [*_numbers_of(side), f"{side}_seen"]
)
"""Names of `observation.state` in the order of `state_of`."""


def state_of(tracks: Mapping[str, HandTrack]) -> NDArray[np.float32]:
    """[F, 104] the state that holds these tracks, zero where unseen; a side left out is unseen."""
    frames = len(next(iter(tracks.values())))
    parts = []
    for side in SIDES:
        if side not in tracks:
            parts.append(np.zeros((frames, 6 + POSE + 1)))
            continue
        track = tracks[side]
        turn = axis_angle_of(track.wrist.rotation)
        numbers = np.concatenate([track.wrist.position, turn, track.pose], axis=1)
        parts.append(np.where(track.seen[:, None], numbers, 0.0))
        parts.append(track.seen[:, None].astype(float))
    return np.concatenate(parts, axis=1).astype(np.float32)


def hand_episode(
    images: Mapping[str, NDArray[np.uint8]], tracks: Mapping[str, HandTrack], instruction: str
) -> Episode:
    """A demonstration by hand, as `LeRobotWriter` takes it (`state_names=STATE_NAMES`).

    LeRobot wants an `action` column: it holds the poses of the next frame, and is not read here.
    """
    state = state_of(tracks)
    return Episode(dict(images), state, np.concatenate([state[1:], state[-1:]]), instruction)


def tracks_of(state: NDArray[np.float32], names: Sequence[str]) -> dict[str, HandTrack]:
    """Both hands' tracks, by side.

    Args:
        state: [F, d]
        names: [d]

    Raises:
        ValueError: for a name that is missing, a `seen` that is neither 0 nor 1, or an angle that
            cannot be in radians; naming the frame.
    """
    place = {name: index for index, name in enumerate(names)}
    return {side: _track(np.asarray(state, np.float64), place, side) for side in SIDES}


def _track(state: NDArray[np.float64], place: Mapping[str, int], side: str) -> HandTrack:
    wanted = _numbers_of(side)
    missing = [name for name in wanted if name not in place]
    if missing:
        raise ValueError(
            f"observation.state lacks {len(missing)} of the {len(wanted)} numbers of the {side} "
            f"hand, such as {missing[0]!r}; a hand that was never tracked is NaN"
        )
    numbers = state[:, [place[name] for name in wanted]]
    seen: NDArray[np.bool_] = np.all(np.isfinite(numbers), axis=1)
    if f"{side}_seen" in place:
        said = state[:, place[f"{side}_seen"]]
        for frame in np.nonzero((said != 0) & (said != 1))[0]:
            raise ValueError(f"frame {frame}: {side}_seen = {said[frame]:g}, neither 0 nor 1")
        seen &= said == 1
    numbers = np.where(seen[:, None], numbers, 0.0)
    rotations = numbers[:, 3:].reshape(len(state), 1 + JOINTS, 3)
    angles = np.linalg.norm(rotations, axis=2)
    for frame, rotation in np.argwhere(angles > _LARGEST_ANGLE):
        of = f"joint_{rotation}" if rotation else "wrist_turn"
        raise ValueError(
            f"frame {frame}: {side}_{of} turns by {angles[frame, rotation]:.4g} radians, more than "
            "a whole turn. Angles are in radians: are these degrees?"
        )
    wrist = Wrist(numbers[:, :3], matrix_of(numbers[:, 3:6]))
    return HandTrack(wrist, numbers[:, 6:], seen)


def read_tracks(reader: LeRobotReader) -> list[dict[str, HandTrack]]:
    """Tracks of every episode, without its images.

    Raises:
        UserError: for a dataset whose state does not hold hands, naming episode and frame.
    """
    found = []
    for index in range(len(reader)):
        try:
            found.append(tracks_of(reader.state(index), reader.state_names))
        except ValueError as error:
            raise UserError(f"dataset {reader.path}: episode {index}: {error}") from error
    return found


def seen_poses(episodes: Iterable[Mapping[str, HandTrack]]) -> dict[str, NDArray[np.float64]]:
    """By side, [N, 45] poses of all frames in which that hand was seen."""
    kept = list(episodes)
    return {
        side: np.concatenate([tracks[side].pose[tracks[side].seen] for tracks in kept])
        for side in SIDES
    }
