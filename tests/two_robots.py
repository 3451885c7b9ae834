"""A tiny model of the tabletop arm, which sees two cameras, and the navigation agent, with one."""

from __future__ import annotations

import numpy as np
import torch

from vlarl.config.embodiments import load_embodiment
from vlarl.model.presets import build, channel_bounds_codec, new_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.types import CameraSpec

SIZE = 32
ARM, AGENT = map(load_embodiment, ("tabletop_arm", "vln_agent"))


def two_robots() -> QwenVLA:
    """Random weights in which nothing is zero."""
    seen = [tuple(CameraSpec(name, SIZE, SIZE) for name in robot.cameras) for robot in (ARM, AGENT)]
    contract = new_contract(seen[0], ARM, further_embodiments=(AGENT,), further_cameras=(seen[1],))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (channel_bounds_codec(contract, place) for place in range(2))
        model = build("tiny", contract, first, further_codecs=(second,))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def observed(place: int, n: int, seed: int = 0) -> Observations:
    """Random pictures of what the robot at `place` of the contract sees."""
    random = np.random.default_rng([place, seed])
    robot = (ARM, AGENT)[place]
    images = {
        name: random.integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8) for name in robot.cameras
    }
    return Observations(images, ["go to the red door"] * n, embodiment=np.full(n, place))
