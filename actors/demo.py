"""The main job, start to end, within a wall-clock budget: `configs/rl/demo.yaml` with a clock.

The same loop and the same proof as `vlarl rl`; training ends in time for the last evaluation.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from actors.controller import Interrupt, iterate
from actors.proof import AFTER, BEFORE, Proof
from actors.runtime import open_runtime
from vlarl.config.schema import RunConfig
from vlarl.progress import Progress
from vlarl.runs import RunFolder

MINUTES = 14.0
"""For everything: the promise is a quarter of an hour."""
_RESERVE_SECONDS = 20.0
"""For the report, and for an iteration that began just in time."""


def demo(config: RunConfig, minutes: float = MINUTES) -> dict[str, Any]:
    """Run the whole of it and print the table.

    Args:
        config: of the RL stage.
        minutes: of wall clock, evaluations included; training ends in time for them.

    Returns:
        What `Proof.conclude` says, with `seconds`, `run`, `checkpoint` and `iterations`.

    Raises:
        UserError: for a config or checkpoint that does not fit.
        KeyboardInterrupt: if Ctrl-C or SIGTERM ended the training or came during the evaluation
            after it; its checkpoint is left.
    """
    started = time.monotonic()
    RunFolder.refuse_taken(config)
    with (
        open_runtime(config) as runtime,
        Interrupt.watching() as interrupt,
        closing(RunFolder.create(config)) as run,
    ):
        proof = Proof(config, run, runtime)
        evaluation_seconds = proof.judge(BEFORE)
        until = started + minutes * 60 - evaluation_seconds - _RESERVE_SECONDS
        with Progress("rl", config.ppo.iterations, "iterations") as progress:
            trained = iterate(config, run, runtime, interrupt, until=until, progress=progress)
        if interrupt.pressed:
            raise KeyboardInterrupt
        proof.judge(AFTER)
        if interrupt.pressed:
            raise KeyboardInterrupt
    seconds = time.monotonic() - started
    result = proof.conclude(seconds)
    return result | {
        "iterations": trained["steps"],
        "checkpoint": trained["checkpoint"],
        "seconds": seconds,
        "run": str(run.path),
    }
