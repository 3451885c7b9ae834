"""Where the parts of a run live: all in this process, or in Ray actors. Both look alike from here.

The controller knows only `Runtime`. The Ray side of it is in `ray_runtime.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from actors.env_host import EnvAccess, EnvHost
from actors.evaluation import EvalResult, EvaluationRequest
from actors.learner import Learner
from actors.player import Progress
from vlarl.config.schema import RunConfig
from vlarl.timeline import Span


class Runtime(Protocol):
    """What the controller drives."""

    def iterate(self) -> dict[str, float]:
        """Collect a window, learn from it, publish the weights; metrics of all of it."""
        ...

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """Deterministic evaluation of the current weights; progress may go unreported."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that a run continues from."""
        ...

    def record(self) -> None:
        """Have every process record what it does when."""
        ...

    def recorded(self) -> list[Span]:
        """End that; what was done."""
        ...

    def close(self) -> None:
        """End every process of the run; safe to call twice."""
        ...


@contextmanager
def open_runtime(config: RunConfig, checkpoint: Path | None = None) -> Iterator[Runtime]:
    """The configured runtime, closed when the block ends.

    Args:
        config: of the run.
        checkpoint: of this run, to continue from.
    """
    runtime: Runtime
    if config.runtime.kind == "inprocess":
        runtime = InprocessRuntime(config, checkpoint)
    else:
        # Ray takes seconds to import, and whoever debugs without it need not have it.
        from actors.ray_runtime import RayRuntime

        runtime = RayRuntime(config, checkpoint)
    try:
        yield runtime
    finally:
        runtime.close()


class InprocessRuntime:
    """Everything but the env servers in this process; no Ray."""

    def __init__(self, config: RunConfig, checkpoint: Path | None = None) -> None:
        self._host = None if config.env.mode == "inprocess" else EnvHost(config.env)
        try:
            access = EnvAccess(config.env, self._host)
            self._learner = Learner(config, access, checkpoint=checkpoint)
        except BaseException:
            self._close_host()
            raise

    def iterate(self) -> dict[str, float]:
        """See `Runtime`."""
        return self._learner.iterate()

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """See `Runtime`."""
        return self._learner.evaluate(request, progress)

    def save(self, folder: Path) -> None:
        """See `Runtime`."""
        self._learner.save(folder)

    def record(self) -> None:
        """See `Runtime`."""
        self._learner.timeline.record()

    def recorded(self) -> list[Span]:
        """See `Runtime`."""
        return self._learner.timeline.recorded()

    def close(self) -> None:
        """See `Runtime`."""
        self._learner.close()
        self._close_host()

    def _close_host(self) -> None:
        if self._host is not None:
            self._host.close()
