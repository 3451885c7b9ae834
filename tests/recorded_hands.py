"""Recordings of human hands made up for tests: smooth wrists, finger poses of few dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlarl.data.hand_recording import STATE_NAMES, HandTrack, hand_episode
from vlarl.data.hands import SIDES, Wrist
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.rotations import matrix_of
from vlarl.types import CameraSpec

FPS = 30.0
CAMERA = CameraSpec("ego", 32, 32)
SENTENCES = ("pick up the cup", "open the drawer")


def smooth(random: np.random.Generator, frames: int, size: int, step: float) -> np.ndarray:
    """[frames, size] a walk whose velocity wanders slowly."""
    velocity = random.normal(size=(frames, size)).cumsum(axis=0)
    velocity /= np.abs(velocity).max()
    return random.normal(size=size) * 0.3 + step * velocity.cumsum(axis=0)


def make_track(seed: int, frames: int, noise: float = 0.02) -> HandTrack:
    """One hand: eight dimensions of finger motion, and noise in all 45."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(7).normal(size=(45, 8)))[0].T
    weights = smooth(random, frames, 8, 0.1) * 0.8 ** np.arange(8)
    pose = 0.2 + weights @ directions + noise * random.normal(size=(frames, 45))
    turn = smooth(random, frames, 3, 0.05)
    wrist = Wrist(smooth(random, frames, 3, 0.02), matrix_of(turn))
    return HandTrack(wrist, pose, np.ones(frames, bool))


def make_tracks(episodes: int = 3, frames: int = 40) -> list[dict[str, HandTrack]]:
    """Episodes of different lengths, all hands seen."""
    return [
        {s: make_track(2 * n + i, frames + 5 * n) for i, s in enumerate(SIDES)}
        for n in range(episodes)
    ]


def write(path: Path, tracks: list[dict[str, HandTrack]], fps: float = FPS) -> Path:
    """A dataset of them, with random images."""
    random = np.random.default_rng(0)
    arguments = (path, fps, (CAMERA,), STATE_NAMES, len(STATE_NAMES), "human")
    with LeRobotWriter(*arguments, state_names=STATE_NAMES) as writer:
        for number, sides in enumerate(tracks):
            shape = (len(sides["right"]), CAMERA.height, CAMERA.width, 3)
            images = {CAMERA.name: random.integers(0, 256, shape, dtype=np.uint8)}
            writer.add(hand_episode(images, sides, SENTENCES[number % 2]))
    return path
