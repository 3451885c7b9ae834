"""What one of several processes has of a divided model (`learners.sharding`), computed.

Arithmetic on shapes: no process is started, and the weights may be fake.
"""

from __future__ import annotations

from torch import Tensor, nn

from learners.sharding import gathered_groups
from vlarl.model.qwen_vla import QwenVLA


class Division:
    """A model among `learners` processes, as `shard` divides it; `model` itself stays whole.

    Of each divided weight a process has so many of its rows, the first one rounded up; what is
    computed is of the first.
    """

    def __init__(self, model: QwenVLA, learners: int) -> None:
        self.model, self._learners = model, learners
        self._groups = gathered_groups(model)
        self._divided = {weight for group in self._groups for weight in group}

    def part(self, weight: Tensor, kept: Tensor) -> int:
        """Bytes that a process has of what is `kept` of a weight: itself, or a tensor like it.

        Whatever is of another shape, as a count of steps, every process has whole.
        """
        if weight not in self._divided or kept.shape != weight.shape:
            return kept.nbytes
        rows = len(kept)
        return kept.nbytes // rows * -(-rows // self._learners)

    def gathered(self, backbone_runs: bool) -> int:
        """Bytes that are whole for a time, at most: a layer, and its gradients until they are sent.

        With them what the backbone has outside its layers, embeddings above all, which stays from
        its forward to the end of its backward. Of a layer that is fetched ahead of its turn nothing
        is known here.
        """
        backbone = set(self.model.backbone.parameters())
        *layers, root = (
            [weight for weight in group if backbone_runs or weight not in backbone]
            for group in self._groups
        )
        whole = sum(weight.nbytes for weight in root)
        return max(
            whole + _gradients(root),
            *(whole + sum(weight.nbytes for weight in own) + _gradients(own) for own in layers),
        )


def _gradients(weights: list[nn.Parameter]) -> int:
    return sum(weight.nbytes for weight in weights if weight.requires_grad)
