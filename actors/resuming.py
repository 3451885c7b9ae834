"""Whether a run that is continued has the servers that its checkpoint tells of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlarl.errors import UserError


def fits(state: Mapping[str, Any], environments: int, suites: Sequence[str], movable: bool) -> None:
    """Refuse a collector's state that these servers cannot go on from.

    Args:
        state: see `RolloutCollector.state_dict`.
        environments: of all servers.
        suites: of each server; empty names where there is a single one.
        movable: whether a server may be replaced by one of another suite.

    Raises:
        UserError: if the run had other servers, environments or suites.
    """
    if len(state["lanes"]) != len(suites) or len(state["counters"]) != environments:
        raise UserError(
            f"cannot resume: the checkpoint has {len(state['lanes'])} env servers with "
            f"{len(state['counters'])} environments in all, this run {len(suites)} with "
            f"{environments}; set env.servers and env.envs_per_server as before"
        )
    then = list(state.get("suites", [""] * len(suites)))
    if set(then) != set(suites) or (not movable and then != list(suites)):
        raise UserError(
            f"cannot resume: the suites of the checkpoint's servers are {_listed(then)}, those of "
            f"this run's {_listed(suites)}; set env.suites as before"
        )


def _listed(suites: Sequence[str]) -> str:
    return ", ".join(suites) if any(suites) else "(a single one)"
