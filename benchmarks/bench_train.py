"""Supervised training beside a plain PyTorch loop, what loading costs, and what draws gain.

    python -m benchmarks.bench_train [--quick] [--json FILE]

Four jobs on the tiny presets: all of the model on demonstrations streamed from files, the expert
alone on remembered contexts, text-to-action, and a mixture of two robots and conversations. The
plain loop runs the same model on tensors of the same shapes as those of the same steps, with random
values, that are there already: forward, loss, backward, `torch.optim.AdamW`. The loop and the
trainer with and without workers take turns; figures are medians over the rounds. Expected: the
trainer at least 0.9 times as fast as the loop, and less than 5% of a step in loading and collating
with two workers, both where no other work keeps the cores busy.

"Loading" is the time that the training process is busy with, or waits for, data: reading and
decoding, patches, tokens, normalizing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tensordict import TensorDict
from torch import Tensor

from benchmarks.train_jobs import Job, make_jobs
from learners.action_loss import encode_chunks
from learners.mixed_losses import trimmed
from learners.prefetch import Prefetch
from learners.shares import length_buckets
from learners.step_data import StepLoader, conversation_processor
from learners.supervised import SupervisedTrainer
from vlarl.flow import interpolate, target_velocity
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA

REPEATS = (1, 2, 4, 8)
WORKERS = (0, 2)
_LOADING = (
    (Prefetch, "at"),
    (Processor, "__call__"),
    (ConversationProcessor, "__call__"),
    (ConversationProcessor, "token_count"),
    (ConversationProcessor, "answer_tokens"),
)
"""What the trainer's process calls for its data."""
_WARM = 2
"""First steps of a window, which are not counted: workers start, caches fill."""


@dataclass(frozen=True)
class Part:
    """What the plain loop computes at a time: a loss of actions, or of words."""

    inputs: TensorDict | None
    """Of the backbone; None: `context` is there already."""
    context: TensorDict | None
    clean: Tensor | None
    """[B, H, K] chunks; None: `inputs` have labels."""
    mask: Tensor | None
    share: float
    """Of the whole loss."""
    tokens: int
    """Of text, images and control steps, without padding."""


def run(batch: int = 64, steps: int = 5, rounds: int = 3, threads: int = 1) -> dict[str, Any]:
    """Measure every job: `rounds` windows of `steps` each."""
    torch.set_num_threads(threads)
    result: dict[str, Any] = {"batch": batch, "threads": threads, "jobs": {}, "repeats": {}}
    with tempfile.TemporaryDirectory() as folder:
        for job in make_jobs(Path(folder), batch):
            result["jobs"][job.name] = _compare(job, steps, rounds)
            if job.name.startswith("sft"):
                result["repeats"][job.name] = _repeats(job, steps, rounds)
    return result


def _compare(job: Job, steps: int, rounds: int) -> dict[str, Any]:
    """The trainer with each number of workers, and the plain loop, in turns."""
    ours = {workers: _Window(job.trainer(workers)) for workers in WORKERS}
    plain = _Plain(job, _WARM + steps)
    seconds: dict[str, list[float]] = {f"workers_{workers}": [] for workers in WORKERS}
    seconds["plain"] = []
    loading: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers, window in ours.items():
            step, share = window.measure(steps)
            seconds[f"workers_{workers}"].append(step)
            loading[workers].append(share)
        seconds["plain"].append(plain.measure(steps))
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    size, tokens = job.config.batch_size, plain.tokens
    return {
        "samples": size,
        "tokens": tokens,
        "seconds": middle,
        "windows": seconds,
        "samples_per_second": {name: size / value for name, value in middle.items()},
        "tokens_per_second": {name: tokens / value for name, value in middle.items()},
        "loading_share": {f"workers_{w}": statistics.median(v) for w, v in loading.items()},
        "of_plain": _of_plain(seconds),
    }


def _of_plain(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Speed of each as a share of the plain loop's, medians of the ratios within a round."""
    return {
        name: statistics.median(p / own for p, own in zip(seconds["plain"], values, strict=True))
        for name, values in seconds.items()
        if name != "plain"
    }


def _repeats(job: Job, steps: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step, and noisy samples a second, by draws for each context."""
    windows = {repeats: _Window(job.trainer(0, repeats)) for repeats in REPEATS}
    seconds: dict[int, list[float]] = {repeats: [] for repeats in REPEATS}
    for _ in range(rounds):
        for repeats, window in windows.items():
            seconds[repeats].append(window.measure(steps)[0])
    middle = {repeats: statistics.median(values) for repeats, values in seconds.items()}
    draws = {repeats: repeats * job.config.batch_size / middle[repeats] for repeats in REPEATS}
    return {
        str(repeats): {
            "seconds": middle[repeats],
            "draws_per_second": draws[repeats],
            "gain": draws[repeats] / draws[1],
        }
        for repeats in REPEATS
    }


class _Clock:
    """How long this process was busy with data, or waited for it, while it runs."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time whatever loads or collates, within the block."""
        with ExitStack() as stack:
            for owner, name in _LOADING:
                stack.enter_context(patch.object(owner, name, self._timed(getattr(owner, name))))
            yield

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: object, **keywords: object) -> Any:
            started, self._depth = time.perf_counter(), self._depth + 1
            try:
                return function(*arguments, **keywords)
            finally:
                self._depth -= 1
                # What is called by another one of these is counted there.
                self.seconds += 0 if self._depth else time.perf_counter() - started

        return timed


class _Window:
    """A trainer that goes on for some steps at a time."""

    def __init__(self, trainer: SupervisedTrainer) -> None:
        self._trainer = trainer

    def measure(self, steps: int) -> tuple[float, float]:
        """Seconds of a step, and the share of loading and collating in it."""
        clock, times, busy = _Clock(), [], []

        def note(*_: object) -> None:
            times.append(time.perf_counter())
            busy.append(clock.seconds)

        with clock.running():
            self._trainer.train(self._trainer.step + _WARM + steps, progress=note)
        taken = times[-1] - times[_WARM - 1]
        return taken / steps, (busy[-1] - busy[_WARM - 1]) / taken


class _Plain:
    """The loop that one would write by hand, over steps whose tensors are there already."""

    def __init__(self, job: Job, steps: int) -> None:
        # The trainer sets what is frozen, and is not used otherwise.
        self._model = job.trainer().model.train()
        self._repeats = job.config.flow.repeats
        self._parts = [_parts(self._model, job, step) for step in range(steps)]
        trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-4)
        self.tokens = sum(part.tokens for step in self._parts[_WARM:] for part in step) / (
            steps - _WARM
        )

    def measure(self, steps: int) -> float:
        """Seconds of a step."""
        times = []
        for number in range(_WARM + steps):
            self._step(self._parts[number])
            times.append(time.perf_counter())
        return (times[-1] - times[_WARM - 1]) / steps

    def _step(self, parts: Sequence[Part]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        for part in parts:
            (part.share * self._loss(part)).backward()
        self._optimizer.step()

    def _loss(self, part: Part) -> Tensor:
        if part.clean is None or part.mask is None:
            return self._model.language_loss(part.inputs)
        context = part.context
        if context is None:
            context = self._model.encode(part.inputs)
        clean, mask = (each.repeat_interleave(self._repeats, 0) for each in (part.clean, part.mask))
        tau, noise = torch.rand(len(clean)), torch.randn(clean.shape) * mask
        noisy = interpolate(clean, noise, tau)
        velocity = self._model.velocity(context, noisy, tau, mask)
        return ((velocity - target_velocity(clean, noise)).square() * mask).sum() / mask.sum()


def _parts(model: QwenVLA, job: Job, step: int) -> list[Part]:
    """What the trainer computes at `step`, in the same parts, with random pixels and actions."""
    data = StepLoader(model, job.config, 0, job.dataset, None, None, job.mixture).whole(step)
    found = []
    if data.actions is not None:
        rows, frozen = data.actions, "vision" not in job.config.optimizer.learning_rates
        for part, inputs in zip(rows.parts, rows.inputs, strict=True):
            steps = rows.clean.shape[1] if rows.steps is None else int(rows.steps[part].max())
            share = len(inputs) / len(rows.frames)
            mask = rows.mask[part, :steps]
            found.append(_acting(model, inputs, mask, share, frozen))
    if data.mixed is not None:
        total = len(data.mixed)
        for chunks in data.mixed.chunks:
            _, mask = encode_chunks((model.codec, *model.further_codecs), chunks)
            inputs = trimmed(model.processor(chunks.observations))
            found.append(_acting(model, inputs, mask, len(mask) / total, frozen=False))
        talks, processor = data.mixed.conversations, conversation_processor(model, job.config)
        for bucket in length_buckets([processor.token_count(talk) for talk in talks]):
            inputs = _random(processor([talks[place] for place in bucket]))
            tokens = int(inputs["attention_mask"].sum())
            found.append(Part(inputs, None, None, None, len(bucket) / total, tokens))
    return found


def _acting(model: QwenVLA, inputs: TensorDict, mask: Tensor, share: float, frozen: bool) -> Part:
    clean = torch.rand(mask.shape) * 2 - 1
    tokens = int(inputs["attention_mask"].sum()) + int(mask.any(-1).sum())
    inputs, context = _random(inputs), None
    if frozen:
        with torch.no_grad():
            context = model.encode(inputs)
    return Part(inputs, context, clean * mask, mask, share, tokens)


def _random(inputs: TensorDict) -> TensorDict:
    """The same with random pixels."""
    changed = inputs.copy()
    if "pixel_values" in inputs:
        changed["pixel_values"] = torch.randn_like(inputs["pixel_values"])
    return changed


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [
        f"batches of {result['batch']} (t2a: a quarter), {result['threads']} threads",
        f"{'job':<20}{'':<12}{'ms/step':>9}{'samples/s':>11}{'tokens/s':>10}{'of plain':>10}"
        f"{'loading':>9}",
    ]
    for name, row in result["jobs"].items():
        for loop, seconds in row["seconds"].items():
            line = (
                f"{name:<20}{loop:<12}{1e3 * seconds:>9.1f}{row['samples_per_second'][loop]:>11.1f}"
                f"{row['tokens_per_second'][loop]:>10.0f}"
            )
            if loop in row["of_plain"]:
                line += f"{row['of_plain'][loop]:>10.2f}{row['loading_share'][loop]:>9.1%}"
            lines.append(line)
    for name, rows in result["repeats"].items():
        lines.append(f"{name}: flow.repeats")
        lines += [
            f"  {repeats:>2}: {1e3 * row['seconds']:.1f} ms/step, {row['draws_per_second']:.1f} "
            f"noisy samples/s, {row['gain']:.2f} times those of 1"
            for repeats, row in rows.items()
        ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short window of small batches")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    result = run(8, 2, 1) if arguments.quick else run()
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
