"""Recorded hands served as action chunks relative to their first frame (paper section 3.2.2).

The action of a frame depends on the chunk that it is in, so none is stored: chunks are made from
the absolute poses when they are asked for. Step `k` of a chunk is where the hand is `k` frames
after its first (1 to `H`), and where it was last beyond the episode's end. A hand counts for a
chunk only if it was seen in the first frame and all those after it, otherwise its channels are
masked: a mask that began in mid-chunk would tell the expert when a hand will be lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vlarl.codec import ActionStats, fit_action_stats
from vlarl.data.hand_recording import HandTrack
from vlarl.data.hands import COMPONENTS, HAND_CHANNELS, SIDES, Eigengrasps, Wrist, encode_hands
from vlarl.data.samples import ChunkBatch, ChunkSource

_AT_ONCE = 4096


class HandChunks:
    """The chunks of recorded hands, without their images.

    Attributes:
        starts: [S] first frames of the chunks in which at least one hand counts.
        counts: [F, 2] whether the left and the right hand count for the chunk that starts there.
    """

    def __init__(
        self, episodes: Sequence[dict[str, HandTrack]], grasps: Eigengrasps, horizon: int
    ) -> None:
        """`horizon` is `H`.

        Raises:
            ValueError: for eigengrasps of another number than the channels have room for, or if no
                hand was seen throughout any chunk.
        """
        if len(grasps.basis) != COMPONENTS:
            raise ValueError(f"{len(grasps.basis)} eigengrasps; the channels are for {COMPONENTS}")
        self.horizon, self._grasps = horizon, grasps
        self._tracks = {side: _joined([tracks[side] for tracks in episodes]) for side in SIDES}
        lengths = np.array([len(tracks["left"]) for tracks in episodes])
        self._last = np.repeat(lengths.cumsum() - 1, lengths)
        frames = self._frames(np.arange(len(self._last)), first=0)
        self.counts = np.stack([self._tracks[side].seen[frames].all(axis=1) for side in SIDES], 1)
        self.starts = np.nonzero(self.counts.any(axis=1))[0]
        if not len(self.starts):
            raise ValueError(f"no hand was seen throughout any chunk of {horizon} frames")

    def _frames(self, starts: NDArray[np.int64], first: int) -> NDArray[np.int64]:
        """[B, H + 1 - first] the frames of chunks, from `first` on."""
        steps = starts[:, None] + np.arange(first, self.horizon + 1)
        return np.minimum(steps, self._last[starts][:, None])

    def start(self, frames: NDArray[np.int64]) -> dict[str, Wrist]:
        """Both wrists at `frames` [B]: what `decode_hands` needs."""
        return {side: _at(self._tracks[side].wrist, frames) for side in SIDES}

    def actions(self, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """[B, H, 32] of the chunks that start at `frames` [B]; zero for a hand that does not count.

        Meters, radians, and weights of eigengrasps.
        """
        steps = self._frames(frames, first=1)
        wrists = {side: _at(self._tracks[side].wrist, steps) for side in SIDES}
        poses = {side: self._tracks[side].pose[steps] for side in SIDES}
        actions = encode_hands(self.start(frames), wrists, poses, self._grasps)
        return np.where(self.channels(frames)[:, None], actions, np.float32(0))

    def channels(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[B, 32] which channels count for the chunks that start at `frames`."""
        return np.repeat(self.counts[frames], HAND_CHANNELS, axis=1)

    def extremes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """[F, 32] least and greatest value of each channel in the chunk that starts at a frame."""
        found = [(a.min(axis=1), a.max(axis=1)) for a in self._all(np.arange(len(self.counts)))]
        low, high = zip(*found, strict=True)
        return np.concatenate(low), np.concatenate(high)

    def stats(self) -> ActionStats:
        """Exact quantiles over all steps of all chunks; zero for a hand that never counts."""
        every = np.concatenate(list(self._all(self.starts)))
        counts = self.counts[self.starts]
        low, high = [], []
        for number in range(len(SIDES)):
            mine = slice(number * HAND_CHANNELS, (number + 1) * HAND_CHANNELS)
            values = every[counts[:, number], :, mine].reshape(-1, HAND_CHANNELS)
            side = fit_action_stats(values if len(values) else np.zeros((1, HAND_CHANNELS)))
            low.append(side.low)
            high.append(side.high)
        return ActionStats(np.concatenate(low), np.concatenate(high))

    def _all(self, frames: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """The chunks [B, H, 32] that start at `frames`, some at a time."""
        for first in range(0, len(frames), _AT_ONCE):
            yield self.actions(frames[first : first + _AT_ONCE])


class HandSource:
    """Egocentric images with the chunks of recorded hands, for the supervised trainer.

    Attributes:
        sentences: the different instructions.
        instructions: [number of samples] index into `sentences`.
    """

    def __init__(self, seen: ChunkSource, hands: HandChunks) -> None:
        """What is seen in every frame of the recording whose `hands` these are."""
        assert len(seen) == len(hands.counts), "other frames than those of the hands"
        self._seen, self._hands = seen, hands
        self.sentences = seen.sentences
        self.instructions = seen.instructions[hands.starts]

    def __len__(self) -> int:
        return len(self._hands.starts)

    def chunks(self, frames: NDArray[np.int64]) -> ChunkBatch:
        """The samples of these numbers [B]; a frame where no hand counts starts none."""
        starts = self._hands.starts[frames]
        return dataclasses.replace(
            self._seen.chunks(starts),
            actions=self._hands.actions(starts),
            channels=self._hands.channels(starts),
        )


def _joined(tracks: Sequence[HandTrack]) -> HandTrack:
    position = np.concatenate([track.wrist.position for track in tracks])
    rotation = np.concatenate([track.wrist.rotation for track in tracks])
    pose = np.concatenate([track.pose for track in tracks])
    return HandTrack(Wrist(position, rotation), pose, np.concatenate([t.seen for t in tracks]))


def _at(wrist: Wrist, frames: NDArray[np.int64]) -> Wrist:
    return Wrist(wrist.position[frames], wrist.rotation[frames])
