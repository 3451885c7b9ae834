"""Where metrics go beside `metrics.jsonl`: Weights & Biases (offline), TensorBoard, Prometheus.

A sink takes one step's numbers. Libraries are imported only when asked for.
"""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vlarl.config.schema import LoggingConfig
from vlarl.errors import ConfigError
from vlarl.prometheus import PrometheusSink


class MetricSink(Protocol):
    """Takes numbers by name, once for each step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        ...

    def close(self) -> None:
        """Flush and end; safe to call twice."""
        ...


_WANDB_ID = "wandb_id"
"""File of the run folder."""


class WandbSink:
    """Offline Weights & Biases run in the run folder; `wandb sync` uploads it when wanted.

    A run that is resumed keeps its id, so that all of its parts are one run there too.
    """

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        import wandb

        file = folder / _WANDB_ID
        if not file.is_file():
            file.write_text(secrets.token_hex(4), encoding="utf-8")

        settings = wandb.Settings(silent=True, console="off", disable_git=True)
        self._run = wandb.init(
            id=file.read_text(encoding="utf-8").strip(),
            project=project,
            name=folder.name,
            dir=str(folder),
            mode="offline",
            config=config,
            settings=settings,
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class TensorBoardSink:
    """Event files under `tensorboard/` of the run folder; begins with the first step it is given.

    What an earlier part of the run wrote of that step or later ones is not shown any more.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "logging.tensorboard = True: tensorboard is not installed. "
                "Install it: pip install 'vlarl[tensorboard]'."
            )
        from torch.utils.tensorboard import SummaryWriter

        self._open = partial(SummaryWriter, str(folder / "tensorboard"))
        self._writer: Any = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step.

        Raises:
            OSError: if there was no room for it, or for those before; the next begins a new file.
        """
        if self._writer is None:
            self._writer = self._open(purge_step=step)
        try:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)
            # Written by a thread, which would end at its first error, and tell only those after.
            self._writer.flush()
        except OSError:
            self._writer = None
            raise

    def close(self) -> None:
        """Flush the event file."""
        if self._writer is not None:
            self._writer.close()


def open_sinks(folder: Path, logging: LoggingConfig, config: dict[str, Any]) -> list[MetricSink]:
    """The sinks that the config asks for."""
    sinks: list[MetricSink] = []
    if logging.wandb:
        sinks.append(WandbSink(folder, logging.project, config))
    if logging.tensorboard:
        sinks.append(TensorBoardSink(folder))
    if logging.prometheus:
        sinks.append(PrometheusSink(folder, logging.prometheus_port))
    return sinks
