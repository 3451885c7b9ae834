"""A policy without a network: what it returns says which observation it is for."""

import numpy as np
import torch
from tensordict import TensorDict

from vlarl.noise import normal
from vlarl.policy import Decisions

EXECUTE = 4
CHANNELS = 3


class FakePolicy:
    """Acts on the counting suite; `calls` records what it was shown, one entry a call."""

    noise_shape = (8, 4)
    past_frames = None

    def __init__(self):
        self.calls = []

    def act(self, observations, generator, explore, keep="context", noise=None):
        n = len(observations)
        self.calls.append((explore, n, tuple(observations.instructions)))
        if noise is None:
            noise = normal((n, *self.noise_shape), generator)
        actions = noise[:, :EXECUTE, :CHANNELS].numpy().copy()
        shown = torch.from_numpy(decoded(observations.images["ego"]))
        context = TensorDict({"shown": shown}, batch_size=[n])
        chunk = TensorDict({"action": torch.from_numpy(actions)}, batch_size=[n])
        return Decisions(
            actions=actions,
            value=self.value(observations),
            chunk=chunk if explore else None,
            context=context if explore else None,
            inputs=None,
        )

    def value(self, observations):
        """The number of control steps that the image shows."""
        return torch.from_numpy(decoded(observations.images["ego"])[:, 2].copy())


def decoded(images):
    """[n, 8] the state rows that the counting suite painted into its images."""
    stamps = images.reshape(len(images), -1)[:, : 4 * 8]
    return np.ascontiguousarray(stamps).view("<f4").reshape(len(images), 8)
