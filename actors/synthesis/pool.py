"""Worker processes that fill a dataset's folder, and what happens when one of them dies.

A worker is given one shard at a time. If it dies, its shard is given to a new worker; what it wrote
before is complete and stays. Only this process writes the manifest.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from vlarl.synthesis.dataset import Entry, Job, append

MOST_DEATHS = 3
"""Workers that one shard may cost."""


class SynthesisFailed(RuntimeError):
    """A shard cannot be made: the message says which and why."""


@dataclass(frozen=True)
class Made:
    """A finished shard."""

    entry: Entry
    cpu_seconds: float


class _Worker:
    """A child process and the job it has."""

    def __init__(self, folder: Path, seed: int) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "actors.synthesis.worker", str(folder), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | threads | path,
            text=True,
        )
        self.job: Job | None = None

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, job: Job) -> None:
        """Have it make a shard; if it is dead already, its end of output tells."""
        assert self.process.stdin is not None
        self.job = job
        try:
            self.process.stdin.write(json.dumps(asdict(job)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def stop(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue


def make_shards(
    folder: Path, seed: int, jobs: Sequence[Job], workers: int
) -> Generator[Made, None, None]:
    """Make the shards, yielding each as it is complete and in the manifest.

    Workers end when the iterator does, also when it is closed early.

    Raises:
        SynthesisFailed: if a shard cannot be made, or costs `MOST_DEATHS` workers.
    """
    waiting, deaths = deque(jobs), dict.fromkeys((job.name for job in jobs), 0)
    running: dict[int, _Worker] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    worker = _Worker(folder, seed)
                    running[worker.output.fileno()] = worker
                    selector.register(worker.output, selectors.EVENT_READ)
                    worker.give(waiting.popleft())
                for key, _ in selector.select():
                    worker = running[key.fd]
                    line = worker.output.readline()
                    assert worker.job is not None
                    if line:
                        yield _accept(folder, line)
                        if waiting:
                            worker.give(waiting.popleft())
                            continue
                    else:
                        _count_death(worker, deaths)
                        waiting.appendleft(worker.job)
                    selector.unregister(worker.output)
                    running.pop(key.fd).stop()
        finally:
            for worker in running.values():
                worker.stop()


def _accept(folder: Path, line: str) -> Made:
    result = json.loads(line)
    if "error" in result:
        raise SynthesisFailed(result["error"])
    entry = Entry(**result["entry"])
    append(folder, entry)
    return Made(entry, result["cpu_seconds"])


def _count_death(worker: _Worker, deaths: dict[str, int]) -> None:
    assert worker.job is not None
    deaths[worker.job.name] += 1
    if deaths[worker.job.name] >= MOST_DEATHS:
        code = worker.process.wait()
        raise SynthesisFailed(
            f"{worker.job.name}: {MOST_DEATHS} workers died over it (the last with code {code})"
        )
