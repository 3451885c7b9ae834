"""A suite in this very process, seen as `EnvClient` sees one behind a process boundary."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from envservers.service import SuiteService
from vlarl.env_protocol import Suite
from vlarl.errors import EnvContractError, EnvServerError
from vlarl.types import EpisodeStart, TimeStep


class InprocessClient:
    """A suite in this very process, for tests and debugging: `submit_*` does the work."""

    def __init__(self, suite: Suite) -> None:
        self._service = SuiteService(suite)
        self.spec = suite.spec
        self.num_envs = suite.num_envs
        self._answers: deque[TimeStep | EnvServerError] = deque()
        self._stats: dict[str, float] | None = None

    def submit_reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """See `EnvClient`."""
        self._run(lambda: self._service.reset(_ids(env_ids), starts))

    def submit_step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> None:
        """See `EnvClient`."""
        actions = np.asarray(actions, np.float32)
        self._run(lambda: self._service.step(_ids(env_ids), actions, record))

    def ready(self) -> bool:
        """See `EnvClient`."""
        return bool(self._answers)

    def receive(self, timeout: float | None = None) -> TimeStep:
        """See `EnvClient`; never waits."""
        answer = self._answers.popleft()
        if isinstance(answer, EnvServerError):
            raise answer
        return answer

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """See `EnvClient`."""
        self.submit_reset(env_ids, starts)
        return self.receive()

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """See `EnvClient`."""
        self.submit_step(env_ids, actions, record)
        return self.receive()

    def stats(self) -> dict[str, float]:
        """See `EnvClient`."""
        return self._service.stats()

    def expert_actions(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `SuiteService`."""
        return self._service.expert_actions(_ids(env_ids))

    def submit_stats(self) -> None:
        """See `EnvClient`."""
        self._stats = self._stats or self.stats()

    def told_stats(self) -> dict[str, float] | None:
        """See `EnvClient`."""
        told, self._stats = self._stats, None
        return told

    def snapshot(self) -> bytes:
        """See `Suite`."""
        return self._service.suite.snapshot()

    def restore(self, blob: bytes) -> None:
        """See `Suite`."""
        self._service.suite.restore(blob)

    def close(self) -> None:
        """See `EnvClient`."""
        self._service.suite.close()

    def _run(self, call: Callable[[], TimeStep]) -> None:
        try:
            self._answers.append(call())
        except EnvContractError as error:
            self._answers.append(error)
        # The same boundary as in the server: an error of the suite is text from here on.
        except Exception:  # noqa: BLE001
            self._answers.append(
                EnvServerError(
                    f"the suite {self.spec.suite!r} in this process raised:\n"
                    f"{traceback.format_exc()}"
                )
            )


def _ids(env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(env_ids, np.int64)
