"""A process that makes shards: jobs as lines on standard input, results on standard output.

    python -m actors.synthesis.worker FOLDER SEED

Ends when its standard input does, so also when its parent dies. Without Ray and torch, so that it
starts in a second and weighs little.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.dataset import Entry, Job
from vlarl.synthesis.generator import Infeasible, make_shard


def main() -> None:
    """Work until there is no more."""
    # Ctrl-C reaches the whole group: the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        print(json.dumps(_result(folder, seed, Job(**json.loads(line)))), flush=True)


def _result(folder: Path, seed: int, job: Job) -> dict[str, Any]:
    started = time.process_time()
    try:
        shard = make_shard(load_arm(job.robot), job.template, seed, job.index, job.count)
        path = folder / job.name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = shard.write(path)
    except (Infeasible, OSError) as error:
        return {"error": f"{job.name}: {error}"}
    entry = Entry(job.name, job.robot, job.template, len(shard), shard.steps, size)
    return {"entry": asdict(entry), "cpu_seconds": time.process_time() - started}


if __name__ == "__main__":
    main()
