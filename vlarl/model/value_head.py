"""The value head: one number from the detached mean hidden state of the backbone (paper 4.2).

The paper's is a linear map. With few episodes a small hidden layer and the share of the episode
that has passed, which no image shows, predict success noticeably better; the tiny presets have
both, large ones neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ValueConfig:
    """Saved in the checkpoint's `config.json`."""

    hidden: int = 0
    """Width of the hidden layer; 0: the paper's linear head."""
    elapsed: bool = False
    """Whether the head is told what share of the episode's control steps has passed."""


class ValueHead(nn.Module):
    """[B, D] mean hidden states, and [B] shares of the episode, to [B] values; starts at zero."""

    def __init__(self, config: ValueConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        inputs = width + config.elapsed
        self.inner = nn.Linear(inputs, config.hidden) if config.hidden else None
        self.out = nn.Linear(config.hidden or inputs, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, mean: Tensor, elapsed: Tensor) -> Tensor:
        """[B] float32."""
        seen = mean if self.inner is None else F.layer_norm(mean, mean.shape[-1:])
        if self.config.elapsed:
            seen = torch.cat([seen, elapsed[:, None]], dim=1)
        if self.inner is not None:
            seen = F.gelu(self.inner(seen))
        return self.out(seen).squeeze(-1)
