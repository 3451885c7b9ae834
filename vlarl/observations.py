"""What a policy is shown, wherever it comes from: a simulator, a dataset, a socket. No tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.types import TimeStep


@dataclass(frozen=True)
class Observations:
    """`n` observations, each with the sentence that goes with it."""

    images: Mapping[str, NDArray[np.uint8]]
    """camera -> [n, height, width, 3]; cameras beyond the contract's are unused."""
    instructions: Sequence[str]
    """[n] task sentences."""
    elapsed: NDArray[np.float32] | None = None
    """[n] shares of the episodes that have passed, for the value; None: unknown, 0."""
    state: NDArray[np.float32] | None = None
    """[n, d] proprioception, SI units; unused by a model that is shown none."""
    embodiment: NDArray[np.int64] | None = None
    """[n] places in `Contract.embodiments`; None: all are of the first."""
    history: NDArray[np.uint8] | None = None
    """[n, frames, height, width, 3] past frames of the first camera, oldest first, for a model that
    is shown any; None: the episodes have just begun, so that there are none."""
    steps: NDArray[np.int64] | None = None
    """[n] control steps to predict, which the prompt says; None: the contract's horizon."""

    def __len__(self) -> int:
        return len(self.instructions)

    def part(self, rows: slice | NDArray[np.int64]) -> Observations:
        """Some of them, in the order of `rows`."""
        places = np.arange(len(self))[rows]
        rest = ("elapsed", "state", "embodiment", "history", "steps")
        picked = {name: getattr(self, name) for name in rest}
        return Observations(
            {name: images[rows] for name, images in self.images.items()},
            tuple(self.instructions[place] for place in places),
            **{name: None if value is None else value[rows] for name, value in picked.items()},
        )

    @staticmethod
    def joined(parts: Sequence[Observations]) -> Observations:
        """All of `parts`, which show and tell the same kinds of things, one after the other."""
        first = parts[0]
        rest = ("elapsed", "state", "embodiment", "history", "steps")
        columns = {name: [getattr(part, name) for part in parts] for name in rest}
        return Observations(
            {name: np.concatenate([part.images[name] for part in parts]) for name in first.images},
            [sentence for part in parts for sentence in part.instructions],
            **{
                name: None if getattr(first, name) is None else np.concatenate(values)
                for name, values in columns.items()
            },
        )

    @staticmethod
    def of(
        seen: TimeStep, max_steps: int, history: NDArray[np.uint8] | None = None
    ) -> Observations:
        """Of environments whose episodes have `max_steps` control steps."""
        elapsed = seen.step.astype(np.float32) / np.float32(max_steps)
        return Observations(
            seen.images, seen.instruction, elapsed, state=seen.state, history=history
        )
