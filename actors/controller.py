"""Runs an RL training: who produces, who waits, who unblocks.

                    EpisodeSource
                         | EpisodeStart
                         v
    EnvServer 0..n  <=== chunk of actions ===  RolloutWorker  <--- WeightsUpdate(version) ---+
    (processes of   === TimeStep, images ===>  (policy + lanes)                              |
     an EnvHost)                                     |                                       |
                                                     | batch(version): N streams x T         |
                                                     v                                       |
                                                  Learner  ------- version + 1 --------------+
                                                     |
                              metrics, checkpoint    v
                                                 controller  -->  RunFolder

    waits for                    until                                  unblocked by
    a lane: one server           its chunk is executed, or replaced     TimeStep, or a new server
    the policy: nobody, as long as some lane has its answer; else the first answer of any server
    the learner: the worker      every stream has T decisions           the batch
    the worker: the learner      the update is done (synchronous)       the weights
    the controller: the learner  the iteration's metrics                the learner

By default worker and learner are one process and one model: publishing is nothing at all. Env
servers finish their last resets while the learner works. The controller holds no tensors; what it
drives is a `Runtime`, in this process or in Ray. A runtime replaces what it can; if it loses the
learner, the controller opens another at the last checkpoint (`docs/faults.md`).

With `rollout.mode: async` the rollout has a thread of its own and waits for no batch to be used:

    EnvServer 0..n <===> lanes + policy ---- Segment ----> bounded queue ----> Learner --> metrics
                         (rollout's thread)  full window   oldest makes room   (waits here only)
                               ^                                                  |
                               +--- weights: the same model, or WeightsUpdate ----+
                                    one lock: a policy call, or a step of the weights

    waits for                    until                                  unblocked by
    a lane: one server           as above, and over the end of windows  TimeStep, or a new server
    the policy: the learner      one optimizer step is taken            the lock
    the learner: the policy      one call of it has returned            the lock
    the learner: the queue       young decisions of an iteration        a Segment
    evaluation, checkpoint       every environment has answered         the paused thread
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from actors.evaluation import EvaluationRequest, write_videos
from actors.proof import AFTER, BEFORE, Proof
from actors.running_numbers import RunningNumbers
from actors.runtime import Runtime, open_runtime
from actors.saving import Saving
from actors.suite_checks import check_run
from vlarl.config.schema import RunConfig
from vlarl.errors import ProcessDied
from vlarl.live_view import LiveView
from vlarl.model.start import check_given
from vlarl.progress import Progress
from vlarl.runs import RunFolder, default_name
from vlarl.timeline import Timeline, write_trace

PROFILE = "profile.json"
"""In the run folder: the timeline that `profile: true` asks for."""
_PROFILED = 2
"""Of the iterations that this process does, the one it shows: the first one warms up."""

logger = logging.getLogger(__name__)


class Interrupt:
    """Whether Ctrl-C or SIGTERM came; the second of them is a KeyboardInterrupt as usual."""

    def __init__(self) -> None:
        self.pressed = False

    @classmethod
    @contextmanager
    def watching(cls) -> Iterator[Interrupt]:
        """Turn both signals into a wish to stop, within the block; only the main thread can.

        Ray takes SIGTERM for itself as it starts: open the runtime first.
        """
        interrupt = cls()
        if threading.current_thread() is not threading.main_thread():
            yield interrupt
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, interrupt._note) for number in numbers}
        try:
            yield interrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True


def train(config: RunConfig, progress: Progress | None = None) -> dict[str, Any]:
    """One RL training, from the configured checkpoint or, with `resume: auto`, the run's last.

    Args:
        config: of the run, already checked.
        progress: advanced by one for each iteration; None shows one on standard error.

    Returns:
        `run` and `checkpoint` (folders), `steps` (iterations done), `interrupted`, the last
        metrics, and what `Proof.conclude` says (unless interrupted).

    Raises:
        UserError: for a config, checkpoint or reward that does not fit, before anything is written.
        EnvServerError: naming a server that failed more often than `env.restarts`.
        SaveError: if the last checkpoint could not be written.
        RuntimeError: if the training diverged, or its processes died more often than
            `runtime.restarts`.
    """
    started = time.monotonic()
    RunFolder.refuse_taken(config)
    check_given(config.model)
    check_run(config)
    config = replace(config, name=config.name or default_name(config))
    limit = config.runtime.restarts
    for restarts in range(limit + 1):
        try:
            return _train(config, progress, started, restarts)
        except ProcessDied as error:
            found, step = last_checkpoint(replace(config, resume="auto"))
            if restarts == limit:
                raise RuntimeError(
                    f"the learner was lost once more than runtime.restarts={limit} allows. The "
                    f"last checkpoint is {found or 'where it began'}. {error}"
                ) from error
            logger.warning("the run goes on from step %d, in new processes: %s", step, error)
            config, progress = replace(config, resume="auto"), None
    raise AssertionError("unreachable: the last attempt returns or raises")


def _train(
    config: RunConfig, progress: Progress | None, started: float, restarts: int
) -> dict[str, Any]:
    """One attempt, in processes of its own."""
    checkpoint, first = last_checkpoint(config)
    with (
        open_runtime(config, checkpoint) as runtime,
        Interrupt.watching() as interrupt,
        closing(RunFolder.create(config)) as run,
    ):
        try:
            if config.resume == "auto":
                run.forget_after(first)
            proof = Proof(config, run, runtime)
            proof.judge(BEFORE)
            with progress or Progress("rl", config.ppo.iterations, "iterations") as shown:
                if first:
                    shown.advance(first)
                trained = iterate(
                    config, run, runtime, interrupt, first=first, progress=shown, restarts=restarts
                )
            if interrupt.pressed:
                return trained
            proof.judge(AFTER)
            if interrupt.pressed:
                return trained | {"interrupted": True}
        except ProcessDied as error:
            if interrupt.pressed:
                raise RuntimeError(f"stopped, while {error}") from error
            raise
    return trained | proof.conclude(time.monotonic() - started)


def last_checkpoint(config: RunConfig) -> tuple[Path | None, int]:
    """The checkpoint to continue from and its number of steps; (None, 0) to begin.

    Makes no folder.

    Raises:
        CheckpointError: if it is not whole.
    """
    path = Path(config.output) / config.name
    if config.resume != "auto" or not path.is_dir():
        return None, 0
    run = RunFolder(path)
    folder = run.checkpoint_path()
    return (None, 0) if folder is None else (folder, run.steps()[-1])


def iterate(
    config: RunConfig,
    run: RunFolder,
    runtime: Runtime,
    interrupt: Interrupt,
    *,
    first: int = 0,
    until: float = math.inf,
    progress: Progress | None = None,
    restarts: int = 0,
) -> dict[str, Any]:
    """The loop: iterate, log, save, now and then evaluate.

    Args:
        config: of the run.
        run: where metrics and checkpoints go.
        runtime: does the work.
        interrupt: when pressed, the loop ends after the iteration and leaves a checkpoint.
        first: iterations already done.
        until: `time.monotonic()` after which no further iteration begins.
        progress: advanced by one for each iteration.
        restarts: of the learner so far; logged.

    Returns:
        As `train`.

    Raises:
        SaveError: if the last checkpoint could not be written; others are tried again in turn.
    """
    loop = _Loop(config, run, runtime)
    done = first
    saving = Saving(run, loop.save, saved=first or -1)
    metrics: dict[str, float] = {}
    rows = [row for row in run.metrics() if row["step"] <= first]
    running, view = RunningNumbers(rows), LiveView(rows)
    while done < config.ppo.iterations and not interrupt.pressed and time.monotonic() < until:
        with loop.profiled(config.profile and done + 1 == first + _PROFILED):
            metrics = loop.iterate(done + 1)
            done += 1
            metrics |= {"learner_restarts": restarts} | saving.metrics()
            metrics |= running.of(metrics) | loop.evaluate(done)
            run.log(done, **metrics)
            view.add(metrics)
            if progress is not None:
                shown = ("success_rate_smooth", "approximate_kl")
                progress.show(view)
                progress.advance(1, **{name: metrics[name] for name in shown if name in metrics})
            if done % config.checkpoint_every == 0:
                saving.attempt(done)
    saving.finish(done)
    return {
        "run": str(run.path),
        "checkpoint": str(run.checkpoint_path(done)),
        "steps": done,
        "interrupted": interrupt.pressed,
        **metrics,
    }


class _Loop:
    """What the loop does again and again, and how long each of it takes."""

    def __init__(self, config: RunConfig, run: RunFolder, runtime: Runtime) -> None:
        self._config, self._run, self._runtime = config, run, runtime
        self._timeline = Timeline("controller")

    @contextmanager
    def profiled(self, wanted: bool) -> Iterator[None]:
        """Write what every process does within the block into the run folder, if wanted."""
        if not wanted:
            yield
            return
        self._runtime.record()
        self._timeline.record()
        yield
        spans = [*self._timeline.recorded(), *self._runtime.recorded()]
        write_trace(self._run.path / PROFILE, spans)

    def iterate(self, step: int) -> dict[str, float]:
        """One iteration, refused if it diverged."""
        started = time.perf_counter()
        metrics = self._runtime.iterate()
        self._timeline.add("controller", "iterate", started)
        _refuse_divergence(metrics, step, self._run)
        seconds = time.perf_counter() - started
        metrics["iteration_seconds"] = seconds
        metrics["waiting_share"] = metrics["waiting_seconds"] / seconds
        return metrics

    def evaluate(self, step: int) -> dict[str, float]:
        """Success on held-out states, if it is due after this iteration, and its seconds."""
        settings = self._config.evaluation
        if not settings.every or step % settings.every:
            return {"evaluation_seconds": 0.0}
        started = time.perf_counter()
        request = EvaluationRequest(
            settings.episodes, settings.seed, self._config.env.tasks, settings.videos
        )
        result = self._runtime.evaluate(request)
        write_videos(result, self._run.videos, f"step_{step}")
        self._timeline.add("controller", "evaluate", started)
        tasks = result.summary["tasks"].items()
        return {
            "eval_success_rate": result.summary["success_rate"],
            **{f"eval_success_rate/{task}": row["success_rate"] for task, row in tasks},
            "evaluation_seconds": time.perf_counter() - started,
        }

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        started = time.perf_counter()
        with self._run.checkpoint(step) as folder:
            self._runtime.save(folder)
        self._timeline.add("controller", "save", started)


def _refuse_divergence(metrics: dict[str, float], step: int, run: RunFolder) -> None:
    """Stop before a broken model is saved over a good one.

    Raises:
        RuntimeError: naming the metrics that are not finite.
    """
    broken = sorted(name for name, value in metrics.items() if not math.isfinite(value))
    if broken:
        run.log(step, **metrics)
        last = run.checkpoint_path()
        raise RuntimeError(
            f"iteration {step} diverged: {', '.join(broken)} not finite. Lower "
            f"ppo.optimizer.learning_rates; the last good checkpoint is {last or 'where it began'}."
        )
