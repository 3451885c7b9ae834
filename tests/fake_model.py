"""A small model with the interface of `QwenVLA`, and batches of its decisions."""

import numpy as np
import torch
from tensordict import TensorDict
from torch import nn

from vlarl.codec import ActionCodec, ActionStats
from vlarl.observations import Observations

WIDTH = 6


class FakeModel(nn.Module):
    """Images are seeds of observations; context tokens are three, the last one padded."""

    def __init__(self, seed=0, active=2, horizon=2, channels=3, tensor_horizon=3):
        super().__init__()
        high = np.ones(active, np.float32)
        self.codec = ActionCodec(ActionStats(-high, high), horizon, channels, tensor_horizon)
        size = channels * tensor_horizon
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone = nn.Linear(4, 3 * WIDTH)
            self.expert = nn.Sequential(
                nn.Linear(WIDTH + size + 1, 32), nn.Tanh(), nn.Linear(32, size)
            )
            self.value_head = nn.Linear(WIDTH, 1)
        self.exploration_log_std = nn.Parameter(torch.full((channels,), -1.9))
        self.encoded = 0
        self.moved = 0

    def processor(self, observations):
        observation = torch.as_tensor(observations.images["ego"], dtype=torch.float32)
        return TensorDict({"observation": observation}, batch_size=[len(observations)])

    def encode(self, inputs):
        self.encoded += len(inputs)
        hidden = self.backbone(inputs["observation"]).tanh().view(len(inputs), 3, WIDTH)
        mask = torch.tensor([True, True, False]).expand(len(inputs), 3).contiguous()
        hidden = hidden * mask.unsqueeze(-1)
        context = {"hidden": hidden, "mask": mask, "elapsed": inputs["elapsed"]}
        return TensorDict(context, batch_size=[len(inputs)])

    def prepare(self, context):
        return context

    def velocity(self, context, y, tau, action_mask):
        self.moved += len(y)
        seen = context["hidden"].mean(dim=1)
        joined = torch.cat([seen, y.masked_fill(~action_mask, 0.0).flatten(1), tau[:, None]], dim=1)
        return self.expert(joined).view(y.shape).masked_fill(~action_mask, 0.0)

    def value(self, context):
        weight = context["mask"].unsqueeze(-1).float()
        hidden = context["hidden"].detach()
        return self.value_head((hidden * weight).sum(1) / weight.sum(1)).squeeze(-1)

    def parts(self):
        return {
            "language": list(self.backbone.parameters()),
            "expert": [*self.expert.parameters(), self.exploration_log_std],
            "value": list(self.value_head.parameters()),
        }


def rollout(policy, streams, horizon, generator, keep="context", reward=None, observe=None):
    """A batch of `horizon` decisions of each stream: observations are random numbers by default."""
    windows = []
    for time in range(horizon):
        random = {"ego": torch.randn(streams, 4, generator=generator).numpy()}
        told = Observations(random, ["Pick up the red cube"] * streams)
        seen = told if observe is None else observe(streams, time)
        decisions = policy.act(seen, generator, explore=True, keep=keep)
        if reward is None:
            earned = torch.randn(streams, generator=generator)
        else:
            earned = reward(decisions.actions)
        last = torch.full((streams,), time + 1 == horizon)
        row = {
            "stream": torch.arange(streams),
            "time": torch.full((streams,), time),
            "task": torch.zeros(streams, dtype=torch.int64),
            "version": torch.zeros(streams, dtype=torch.int64),
            "chunk": decisions.chunk,
            "value": decisions.value,
            "reward": earned,
            "terminated": torch.rand(streams, generator=generator) < 0.3,
            "truncated": torch.zeros(streams, dtype=torch.bool),
            "success": torch.zeros(streams, dtype=torch.bool),
            "window_end": last,
            "next_value": torch.zeros(streams),
            keep: decisions.context if keep == "context" else decisions.inputs,
        }
        windows.append(TensorDict(row, batch_size=[streams]))
    return torch.stack(windows, dim=1).flatten(0, 1)
