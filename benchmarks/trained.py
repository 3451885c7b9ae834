"""What benchmarks that train a policy share: demonstrations made once, and success afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.collect import collect
from actors.evaluate_checkpoint import evaluate_checkpoint
from vlarl.config.load import load_config
from vlarl.config.schema import RunConfig
from vlarl.progress import Progress

_EVALUATED = ("env", "sampling", "evaluation", "runtime")


def demonstrations_in(folder: Path, config: RunConfig) -> Path:
    """`folder/demonstrations`, collected as the config says unless they are there already."""
    out = folder / "demonstrations"
    if not out.exists():
        wanted = config.supervised.collect
        with Progress("collecting", wanted.episodes, "episodes") as progress:
            collect(
                config.env.suite,
                out,
                wanted,
                threads=config.runtime.threads,
                progress=lambda kept, _wanted: progress.reach(kept),
                options=config.env.options,
            )
    return out


def success(checkpoint: str | Path, config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Success on the held-out episodes of a config file, with its interval and by task."""
    played = [word for word in overrides if word.startswith(_EVALUATED)]
    loaded = load_config(config, ["stage=eval", *played], only=_EVALUATED)
    summary = evaluate_checkpoint(str(checkpoint), loaded)
    tasks = {task: row["success_rate"] for task, row in summary["tasks"].items()}
    return {key: summary[key] for key in ("success_rate", "interval", "episodes")} | {
        "tasks": tasks
    }
