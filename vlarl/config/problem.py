"""What a rule of the config finds."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that cannot be run as configured."""

    key: str
    problem: str
    remedy: str
