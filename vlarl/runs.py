"""The run folder: resolved config, metrics, checkpoints that are whole or not there, videos.

    runs/NAME/  config.yaml  metrics.jsonl  checkpoints/step_N/  checkpoints/last  videos/
                metrics.prom and profile.json, if asked for

A checkpoint is written to a temporary folder, sealed with a manifest of hashes as its last file,
and renamed; `last` then points to it. What a checkpoint holds is the caller's business.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from vlarl.config.load import config_dict, dump_config
from vlarl.config.schema import RunConfig
from vlarl.errors import CheckpointError, ConfigError, SaveError
from vlarl.metrics import MetricSink, open_sinks
from vlarl.prometheus import refuse_taken_port

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_STEP = re.compile(r"step_(\d+)")


class RunFolder:
    """One run on disk; opens what exists, creates what does not."""

    def __init__(
        self, path: str | Path, keep_checkpoints: int = 2, keep_checkpoints_every: int = 0
    ) -> None:
        self.path = Path(path)
        self.keep_checkpoints = keep_checkpoints
        self.keep_checkpoints_every = keep_checkpoints_every
        self.videos = self.path / "videos"
        self._checkpoints = self.path / "checkpoints"
        self._sinks: list[MetricSink] = []
        self._unwritten: list[str] = []
        self._started = time.monotonic()
        self.path.mkdir(parents=True, exist_ok=True)

    @classmethod
    def create(cls, config: RunConfig) -> RunFolder:
        """The folder of a new run, or with `resume: auto` of the one to continue.

        Raises:
            ConfigError: if the folder already holds a run and `resume` is `never`.
            UserError: if `logging.prometheus_port` is taken.
        """
        cls.refuse_taken(config)
        path = Path(config.output) / (config.name or default_name(config))
        run = cls(path, config.keep_checkpoints, config.keep_checkpoints_every)
        run._remove_leftovers()
        dump_config(config, path / "config.yaml")
        run._sinks = open_sinks(path, config.logging, config_dict(config))
        return run

    @staticmethod
    def refuse_taken(config: RunConfig) -> None:
        """What `create` refuses, without creating anything: to be known before long work.

        Raises:
            ConfigError: if the folder already holds a run and `resume` is `never`.
            UserError: if `logging.prometheus_port` is taken.
        """
        # Under torchrun, the first process alone listens.
        if os.environ.get("RANK", "0") == "0":
            refuse_taken_port(config.logging.prometheus_port)
        path = Path(config.output) / config.name
        if config.name and (path / "metrics.jsonl").exists() and config.resume == "never":
            raise ConfigError(
                f"name = {config.name!r}: {path} already holds a run. Choose another name, delete "
                "it, or continue it with resume=auto."
            )

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line: `step`, `seconds` since the run (re)started, the metrics."""
        return self.path / "metrics.jsonl"

    def log(self, step: int, **metrics: float) -> None:
        """Append one step's metrics; numbers that are not finite are written as null.

        On a full disk rows wait for the next; what is shown elsewhere may lack one.
        """
        numbers = {name: float(value) for name, value in metrics.items()}
        row: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self._started, 3)}
        row |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._unwritten.append(json.dumps(row) + "\n")
        self._write_rows()
        for sink in self._sinks:
            with _said(sink):
                sink.write(step, numbers)

    def _write_rows(self) -> None:
        """Append what is not in the file yet; on a full disk it waits for the next row."""
        size = self.metrics_file.stat().st_size if self.metrics_file.exists() else 0
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.writelines(self._unwritten)
        except OSError as error:
            logger.warning("%s: %s; metrics wait in memory", self.metrics_file, error)
            # No half a line may stay in front of the next one.
            if self.metrics_file.exists():
                os.truncate(self.metrics_file, size)
            return
        self._unwritten = []

    def metrics(self) -> list[dict[str, Any]]:
        """The rows logged so far; a last line that a crash cut short is left out."""
        return read_metrics(self.metrics_file)

    def forget_after(self, step: int) -> None:
        """Drop metrics logged after `step`, where a resumed run takes up again."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        temporary = self.metrics_file.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        temporary.replace(self.metrics_file)

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Write into the folder this yields; it becomes `checkpoints/step_N` when the block ends.

        If the block raises, nothing of it stays. The newest `keep_checkpoints` remain, and those
        whose step is a multiple of `keep_checkpoints_every`.

        Raises:
            SaveError: if it could not be written, as on a full disk; those before it stay.
        """
        temporary = self._checkpoints / f".step_{step}.tmp"
        try:
            self._checkpoints.mkdir(exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            write_manifest(temporary, step)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            # Safetensors tells of a full disk by an error of its own.
            if isinstance(error, OSError | SafetensorError):
                raise SaveError(
                    f"the checkpoint of step {step} could not be written: {error}"
                ) from error
            raise
        final = self._checkpoints / f"step_{step}"
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        self._point_last_to(final.name)
        for old in self.steps()[: -self.keep_checkpoints]:
            if not self.keep_checkpoints_every or old % self.keep_checkpoints_every:
                shutil.rmtree(self._checkpoints / f"step_{old}")

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending; whole or not is for `checkpoint_path` to say."""
        if not self._checkpoints.is_dir():
            return []
        matches = [_STEP.fullmatch(entry.name) for entry in self._checkpoints.iterdir()]
        return sorted(int(match.group(1)) for match in matches if match)

    def checkpoint_path(self, step: int | None = None) -> Path | None:
        """The verified folder of that step's checkpoint, by default of the newest; None if none.

        Raises:
            CheckpointError: if its files are not the ones its manifest names.
        """
        steps = self.steps()
        if step is None:
            if not steps:
                return None
            step = steps[-1]
        folder = self._checkpoints / f"step_{step}"
        verify_manifest(folder)
        return folder

    def close(self) -> None:
        """Close the metric sinks; safe to call twice."""
        for sink in self._sinks:
            with _said(sink):
                sink.close()
        self._sinks = []

    def _point_last_to(self, name: str) -> None:
        link = self._checkpoints / ".last.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        os.replace(link, self._checkpoints / "last")

    def _remove_leftovers(self) -> None:
        # Of the model's own writing, too: `..step_3.tmp.partial-PID`.
        for leftover in self._checkpoints.glob(".*step_*.tmp*"):
            shutil.rmtree(leftover)


@contextmanager
def _said(sink: MetricSink) -> Iterator[None]:
    """A full disk is a warning here: who watches misses numbers, which `metrics.jsonl` has."""
    try:
        yield
    except OSError as error:
        logger.warning("%s: %s; numbers are missing there", type(sink).__name__, error)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; an unfinished last line is left out.

    Raises:
        ConfigError: if another line than the last is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ConfigError(f"{path}: line {number} is not JSON: delete or mend it.") from error
    return rows


def checkpoint_of(name: str | Path) -> str:
    """What a user means by a checkpoint: a run folder's last one, a folder, or a packaged name.

    Raises:
        CheckpointError: for a run without a checkpoint, or one whose files are not whole.
    """
    folder = Path(name)
    if (folder / "metrics.jsonl").exists() or (folder / "checkpoints").is_dir():
        last = RunFolder(folder).checkpoint_path()
        if last is None:
            raise CheckpointError(f"run {folder} holds no checkpoint yet.")
        return str(last)
    if (folder / MANIFEST).exists() or _STEP.fullmatch(folder.name):
        verify_manifest(folder)
    return str(name)


def write_manifest(folder: Path, step: int) -> None:
    """Seal a folder: `manifest.json` with size and SHA-256 of every file, written last."""
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    temporary = folder / f".{MANIFEST}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"step": step, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)


def verify_manifest(folder: Path) -> int:
    """Check a sealed folder's files against its manifest.

    Returns:
        The step that it was written at.

    Raises:
        CheckpointError: naming the first file that is missing or differs, or the missing manifest.
    """
    remedy = "It was not written to its end; delete it and take an older one."
    if not (folder / MANIFEST).is_file():
        reason = f"holds no {MANIFEST}" if folder.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {folder} {reason}. {remedy if folder.is_dir() else ''}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{folder / MANIFEST} is not JSON. {remedy}") from error
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"checkpoint {folder}: {name} is missing. {remedy}")
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise CheckpointError(
                f"checkpoint {folder}: {name} has {size} bytes, not {entry['bytes']}. {remedy}"
            )
        if _sha256(file) != entry["sha256"]:
            raise CheckpointError(f"checkpoint {folder}: {name} was changed. {remedy}")
    step: int = manifest["step"]
    return step


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def default_name(config: RunConfig) -> str:
    """Of a run that was given none: stage, suites and date."""
    suites = "-".join(config.env.suites) or config.env.suite
    suite = re.sub(r"[^A-Za-z0-9]+", "-", suites).strip("-")
    moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.stage}-{suite}-{moment}"
