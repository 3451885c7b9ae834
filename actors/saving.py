"""The checkpoints of a run, of every stage: one that cannot be written stops nothing but the last.

Who writes what into them is handed in; that a folder is whole or not there is `RunFolder`'s doing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from vlarl.errors import SaveError
from vlarl.runs import RunFolder

logger = logging.getLogger(__name__)


class Saving:
    """Writes checkpoints in passing and at the end, and counts those that failed.

    Args:
        run: whose checkpoints they are.
        write: the checkpoint of a step; raises SaveError, on every process alike, if it cannot.
        saved: step of the checkpoint that is continued; -1: none.
    """

    def __init__(self, run: RunFolder, write: Callable[[int], None], saved: int = -1) -> None:
        self._run, self._write, self._saved = run, write, saved
        self._failed = 0
        self._seconds = 0.0

    def attempt(self, step: int) -> None:
        """Write one; on a full disk warn, and leave it to the next."""
        started = time.perf_counter()
        try:
            self._write(step)
        except SaveError as error:
            self._failed += 1
            logger.warning("%s. The run goes on; the last good one stays.", error)
        else:
            self._saved = step
            self._seconds = time.perf_counter() - started

    def finish(self, step: int) -> None:
        """Write the last one, unless it is there.

        Raises:
            SaveError: if it could not be written: what was learned since the one before is lost.
        """
        if self._saved == step:
            return
        try:
            self._write(step)
        except SaveError as error:
            raise SaveError(
                f"{error}. The last good checkpoint is {self._run.checkpoint_path() or 'none'}. "
                f"Make room, then continue from there: name={self._run.path.name} resume=auto"
            ) from error
        self._saved = step

    def metrics(self) -> dict[str, float]:
        """What failed so far, and the seconds that writing took since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return {"checkpoints_failed": float(self._failed), "saving_seconds": seconds}
