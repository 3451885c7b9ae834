"""One suite of a run as actors see it: what acts there, which tasks are played, under what names.

Where a run has one suite it has one arena, without a name. With `env.suites` a task is called
`NAME/TASK` wherever results of several suites meet: metrics, allocation, evaluation, the batch's
`task` column. Env servers and episode starts know the suite's own names alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from envservers.task_groups import expand
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import EnvClient
from vlarl.policy import EvaluatedPolicy
from vlarl.types import EnvSpec


def named(suite: str, task: str) -> str:
    """What a task is called beside those of other suites; `suite` is empty for the only one."""
    return f"{suite}/{task}" if suite else task


def tasks_played(config: EnvConfig, spec: EnvSpec) -> tuple[str, ...]:
    """The suite's own names of the tasks that `config`, of that suite alone, asks for.

    `config` may name groups of them.
    """
    return expand(spec.suite, config.tasks) or spec.tasks


def can_be_swapped(config: EnvConfig, tasks: Iterable[str]) -> bool:
    """Whether some suite has another task to tell its policy of; `tasks` as they are called."""
    suites = Counter(task.partition("/")[0] if config.suites else "" for task in tasks)
    return max(suites.values()) > 1


@dataclass(frozen=True)
class Arena:
    """Who plays what where, in an evaluation."""

    policy: EvaluatedPolicy
    clients: dict[int, EnvClient]
    """Number among all clients of the run -> client."""
    tasks: tuple[str, ...]
    """To play, by the suite's own names."""
    suite: str = ""
    """Name in `env.suites`."""

    @property
    def spec(self) -> EnvSpec:
        """Of every client."""
        return next(iter(self.clients.values())).spec
