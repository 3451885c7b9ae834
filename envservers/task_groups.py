"""Names that a suite has for several of its tasks at once, and how published tables evaluate it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from envservers.options import suggestion
from envservers.suite_table import SUITES
from vlarl.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """An evaluation that others publish figures of."""

    tasks: tuple[str, ...]
    """Of tasks or groups."""
    episodes: int
    """Of each task."""


@dataclass(frozen=True)
class TaskGroups:
    """A suite's."""

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> tasks; such a name may stand wherever tasks are asked for."""
    short: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Shorter name of a task -> the tasks that it may mean; taken likewise."""
    reported: tuple[str, ...] = ()
    """The groups, no task in two of them, whose success an evaluation reports, and its mean."""
    protocols: Mapping[str, Protocol] = field(default_factory=dict)


def groups_of(suite: str) -> TaskGroups:
    """Those of a suite, whether or not its simulator is installed; none for one without."""
    entry = SUITES.get(suite.partition(":")[0])
    if entry is None or not entry.groups:
        return TaskGroups()
    found: TaskGroups = importlib.import_module(entry.groups).GROUPS
    return found


def expand(suite: str, names: Sequence[str]) -> tuple[str, ...]:
    """The tasks that `names` of tasks, short or not, and of groups stand for, each once, in order.

    A name that is none of these is kept: whether there is such a task is the suite's business.
    """
    found = groups_of(suite)
    known = {**found.short, **found.groups}
    return tuple(dict.fromkeys(task for name in names for task in known.get(name, (name,))))


def reported_groups(suite: str, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Group -> those of its tasks that are among `tasks`, of the groups that have any."""
    known = groups_of(suite)
    found = {
        name: tuple(task for task in known.groups[name] if task in tasks) for name in known.reported
    }
    return {name: own for name, own in found.items() if own}


def published_metrics(suite: str) -> tuple[str, ...]:
    """Those of `TimeStep.info` that the suite's tables hold; none of one that is not ours."""
    entry = SUITES.get(suite)
    return () if entry is None else entry.metrics


def find_protocol(suite: str, name: str) -> Protocol:
    """A suite's protocol.

    Raises:
        UserError: if it has none of this name.
    """
    protocols = groups_of(suite).protocols
    if name not in protocols:
        names = ", ".join(protocols) or "none"
        raise UserError(
            f"protocol = {name!r}: suite {suite!r} has {names}.{suggestion(name, protocols)}"
        )
    return protocols[name]
