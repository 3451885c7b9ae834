"""What a simulator answers that has neither experts to ask step by step nor snapshots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PlainSimulator:
    """The rest of `envservers.simulator.Simulator` is its subclass's."""

    def expert_action(self) -> NDArray[np.float32]:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{type(self).__name__} has no expert to ask step by step")

    def snapshot(self) -> bytes:
        """There are none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no snapshots")

    def restore(self, blob: bytes) -> None:
        """As `snapshot`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no snapshots")
