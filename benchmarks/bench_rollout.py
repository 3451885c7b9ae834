"""How much of its time the policy waits for simulation, where both take equally long.

    python -m benchmarks.bench_rollout [--quick] [--json FILE]

Real env servers (the counting suite), one environment each, whose chunks take a pretended while:
always the same one, or a log-normal one whose 99th percentile is ten times its median. The policy
takes a pretended while too, so that deciding for all takes as long as simulating a chunk: for each
server by itself, or in calls for a twelfth of them, which cost the same whatever they hold.
Contenders:

- `in step`: what a vector environment does; the policy decides for all, then all simulate.
- `one by one`: rollout as configured by default; a server is decided for as soon as it is ready.
- `joined`: ready servers share a call (`rollout.batch_environments`, `.batch_deadline_seconds`).
- `async`, `async, joined`: without the wait at the end of a window (`rollout.mode=async`).

Waiting is the time in which the policy could not decide because nobody was ready. Expected figures
stand in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from actors.batching import Batching
from actors.env_host import EnvAccess, EnvHost
from actors.episodes import EpisodeSource
from actors.rollout import RolloutCollector
from benchmarks.pretended import CHUNK, PretendedPolicy, no_reward
from envservers.counting import spread_of
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import EnvClient

TAILS = {"equal": 1.0, "heavy-tailed": 10.0}
"""99th percentile over median of the durations of chunks."""
ROLLOUTS = ("one by one", "joined", "async", "async, joined")
CALLS = 12
"""Of the policy for all environments once, where they are joined."""


def run(
    environments: int = 48, chunk_seconds: float = 1.0, decisions: int = 12
) -> dict[str, dict[str, dict[str, float]]]:
    """Measure every contender with durations of both kinds.

    Args:
        environments: env servers, with one environment each.
        chunk_seconds: mean duration of a chunk.
        decisions: of each environment in a window.

    Returns:
        kind of durations -> contender -> `waiting_share` (of the policy's time), `decisions` (a
        second), `of_bound` (as a share of what the policy could decide if it never waited).
    """
    torch.set_num_threads(1)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for kind, tail in TAILS.items():
        # The mean of a log-normal duration is above its median.
        median = chunk_seconds / math.exp(spread_of(tail) ** 2 / 2)
        with _servers(environments, median, tail) as clients:
            results[kind] = {"in step": _in_step(clients, chunk_seconds, decisions)}
            for name in ROLLOUTS:
                results[kind][name] = _rollout(clients, name, chunk_seconds, decisions)
    return results


@contextmanager
def _servers(count: int, chunk_seconds: float, tail: float) -> Iterator[list[EnvClient]]:
    options = {
        "episode_length": 10**6,
        "seconds_per_step": chunk_seconds / CHUNK,
        "slow_tail": tail,
    }
    config = EnvConfig("counting", servers=count, envs_per_server=1, options=options)
    host = EnvHost(config)
    try:
        access = EnvAccess(config, host)
        yield access.clients
        access.close()
    finally:
        host.close()


def _rollout(
    clients: Sequence[EnvClient], name: str, chunk_seconds: float, decisions: int
) -> dict[str, float]:
    size = max(1, len(clients) // CALLS)
    alone = "joined" not in name
    seconds = chunk_seconds / (len(clients) if alone else CALLS)
    batching = None if alone else Batching(size, seconds / 2)
    collector = RolloutCollector(
        clients,
        PretendedPolicy(time.sleep, seconds, 0.0),
        no_reward,
        EpisodeSource(clients[0].spec.tasks, (0,), len(clients)),
        decisions,
        batching=batching,
    )
    made = len(clients) * decisions
    if not name.startswith("async"):
        collector.collect()
        _, stats = collector.collect()
        acting, waiting = stats.seconds_policy, stats.seconds_waiting_simulation
        return _result(made, stats.seconds, acting, waiting, chunk_seconds, len(clients))
    collector.begin()
    for _ in range(2):
        acting = waiting = 0.0
        count, started = 0, time.perf_counter()
        while count < made:
            collector.turn(lambda: 0, 0.1)
            segments, tally = collector.take_segments()
            count += sum(len(segment.rows) for segment in segments)
            acting += tally.policy
            waiting += tally.waiting_simulation
        seconds = time.perf_counter() - started
    collector.settle()
    return _result(count, seconds, acting, waiting, chunk_seconds, len(clients))


def _in_step(
    clients: Sequence[EnvClient], chunk_seconds: float, decisions: int
) -> dict[str, float]:
    """All decided for, then all simulated."""
    source = EpisodeSource(clients[0].spec.tasks, (0,), len(clients))
    slot = np.zeros(1, np.int64)
    for stream, client in enumerate(clients):
        client.reset(slot, [source.next(stream)])
    actions = np.zeros((1, CHUNK, len(clients[0].spec.channels)), np.float32)
    waiting, started = 0.0, time.perf_counter()
    for _ in range(decisions):
        time.sleep(chunk_seconds)
        asked = time.perf_counter()
        for client in clients:
            client.submit_step(slot, actions)
        for client in clients:
            client.receive()
        waiting += time.perf_counter() - asked
    seconds = time.perf_counter() - started
    made = decisions * len(clients)
    return _result(made, seconds, seconds - waiting, waiting, chunk_seconds, len(clients))


def _result(
    made: int, seconds: float, acting: float, waiting: float, chunk_seconds: float, count: int
) -> dict[str, float]:
    return {
        "waiting_share": waiting / (waiting + acting),
        "decisions": made / seconds,
        "of_bound": made / seconds / (count / chunk_seconds),
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as text."""
    lines = [f"{'':14}{'':16}{'waiting':>9}{'decisions/s':>13}{'of bound':>10}"]
    for kind, contenders in results.items():
        for name, found in contenders.items():
            lines.append(
                f"{kind:14}{name:16}{found['waiting_share']:>9.1%}{found['decisions']:>13.1f}"
                f"{found['of_bound']:>10.1%}"
            )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six environments, three decisions")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    found = run(6, 0.1, 3) if arguments.quick else run()
    print(table(found))
    result = {"results": found, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
