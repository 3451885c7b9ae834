"""What one rollout worker makes of 1, 2, 4, ... 128 env servers, and a simulation of far more.

    python -m benchmarks.bench_scale [--quick] [--json FILE]

1. **Servers**: memory and start of one idle env server, and of 128 at once.
2. **Throughput**: real servers of one environment each, whose chunks take a pretended second; the
   policy takes a pretended 2 ms for each. Linear is as many times as fast as with one server. What
   is full where it is less: the policy, the collector's thread, or the machine's cores.
3. **Simulated**: the same collector on a simulated clock (`benchmarks/pretended.py`), with what an
   answer costs measured at a single server. Its decisions a second beside the measured ones; then
   10,000 environments of 64 learners, each with a rollout worker of its own, who wait for one
   another at every update.

Expected figures stand in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from actors.clock import Clock
from actors.env_host import EnvAccess, EnvHost
from actors.episodes import EpisodeSource
from actors.rollout import RolloutCollector
from actors.rollout_stats import RolloutStats
from benchmarks.pretended import (
    CHUNK,
    Costs,
    PretendedClient,
    PretendedPolicy,
    VirtualClock,
    no_reward,
)
from envservers.service import proportional_memory
from envservers.spawn import ServerProcess
from vlarl.config.process_schema import EnvConfig
from vlarl.env_protocol import EnvClient

SUITES = ("tabletop", "navigation", "counting")
POLICY_SECONDS = 0.002
_FULL = 0.85
"""Share of its time from which a resource is called full."""


@dataclass(frozen=True)
class Point:
    """One number of servers."""

    servers: int
    rate: float
    """Decisions a second."""
    policy: float
    collector: float
    cores: float
    """Shares of the time in which each was busy; the machine's cores with all that runs on it."""

    @property
    def full(self) -> str:
        """What had no time left, if anything."""
        shares = {"policy": self.policy, "collector": self.policy + self.collector}
        names = [name for name, share in {**shares, "cores": self.cores}.items() if share > _FULL]
        return " ".join(names)


def servers(at_once: int, repeats: int) -> dict[str, Any]:
    """Start and memory of env servers.

    Returns:
        `one` (suite -> median `seconds` and `bytes` of one idle process) and `many` (of `at_once`
        tabletop servers of one environment: `seconds` until all are up, `bytes` of all).
    """
    one: dict[str, dict[str, float]] = {}
    for suite in SUITES:
        found = []
        for _ in range(repeats):
            started = time.perf_counter()
            process = ServerProcess(suite, 1)
            seconds = time.perf_counter() - started
            found.append((seconds, proportional_memory(process.pid)))
            process.close()
        seconds, memory = (statistics.median(column) for column in zip(*found, strict=True))
        one[suite] = {"seconds": seconds, "bytes": memory}
    started = time.perf_counter()
    host = EnvHost(EnvConfig(SUITES[0], servers=at_once, envs_per_server=1))
    try:
        seconds = time.perf_counter() - started
        memory = sum(map(proportional_memory, host.pids()))
    finally:
        host.close()
    return {"one": one, "many": {"servers": at_once, "seconds": seconds, "bytes": memory}}


def throughput(
    counts: Sequence[int], chunk_seconds: float, decisions: int
) -> tuple[list[Point], Costs, float]:
    """Real servers; also what an answer costs and how long a call of the policy really takes.

    Both are measured at a single server, over more decisions.
    """
    options = {"episode_length": 10**6, "seconds_per_step": chunk_seconds / CHUNK}
    config = EnvConfig("counting", servers=max(counts), envs_per_server=1, options=options)
    host = EnvHost(config)
    try:
        access = EnvAccess(config, host)
        single, _ = _window(access.clients[:1], None, POLICY_SECONDS, 2 * decisions)
        made = single.decisions
        waited, acted = single.seconds_waiting_simulation, single.seconds_policy
        costs = Costs(
            server=max(0.0, waited / made - chunk_seconds),
            answer=(single.seconds - waited - acted) / made,
        )
        points = []
        for count in counts:
            stats, cores = _window(access.clients[:count], None, POLICY_SECONDS, decisions)
            points.append(_point(count, stats, cores))
        access.close()
    finally:
        host.close()
    return points, costs, acted / made


def simulated(
    servers: int,
    chunk_seconds: float,
    decisions: int,
    costs: Costs,
    policy_seconds: float,
    environments: int = 1,
    slow_tail: float = 1.0,
    seed: int = 0,
) -> RolloutStats:
    """One window of the same collector in simulated time, after a first one."""
    clock = VirtualClock()
    clients = [
        PretendedClient(clock, environments, chunk_seconds, slow_tail, costs, seed + number)
        for number in range(servers)
    ]
    return _window(clients, clock, policy_seconds, decisions)[0]


def _window(
    clients: Sequence[EnvClient],
    clock: VirtualClock | None,
    policy_seconds: float,
    decisions: int,
) -> tuple[RolloutStats, float]:
    """The second window, and the share of the machine's cores that were busy meanwhile."""
    streams = sum(client.num_envs for client in clients)
    timed: Clock | None = clock
    collector = RolloutCollector(
        clients,
        PretendedPolicy(time.sleep if clock is None else clock.sleep, policy_seconds, 0.0),
        no_reward,
        EpisodeSource(clients[0].spec.tasks, (0,), streams),
        decisions,
        clock=timed,
    )
    collector.collect()
    busy, total = _cores()
    _, stats = collector.collect()
    busy, total = (now - before for now, before in zip(_cores(), (busy, total), strict=True))
    collector.settle()
    return stats, busy / max(total, 1)


def _cores() -> tuple[int, int]:
    """Ticks of all cores since the machine started: busy ones, and all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _point(count: int, stats: RolloutStats, cores: float) -> Point:
    waiting = stats.seconds_waiting_simulation + stats.seconds_waiting_resets
    policy = stats.seconds_policy / stats.seconds
    collector = 1 - policy - waiting / stats.seconds
    return Point(count, stats.decisions / stats.seconds, policy, collector, cores)


def many_learners(
    learners: int,
    servers: int,
    environments: int,
    decisions: int,
    costs: Costs,
    chunk_seconds: float = 1.0,
    policy_seconds: float = 0.05,
    update_seconds: float = 10.0,
) -> dict[str, float]:
    """An iteration of learners with a rollout worker each, in simulated time.

    Chunks have heavy-tailed durations. A worker's window ends when its last environment is done;
    the update begins when the last worker is.

    Args:
        learners: how many, each with a GPU for acting and learning.
        servers: of each.
        environments: of each server.
        decisions: of each environment in an iteration.
        costs: of an answer.
        chunk_seconds: median duration of a chunk.
        policy_seconds: of a call, for one server's environments.
        update_seconds: of the update, publishing included.
    """
    windows = [
        simulated(
            servers, chunk_seconds, decisions, costs, policy_seconds, environments,
            slow_tail=10.0, seed=servers * number,
        )
        for number in range(learners)
    ]  # fmt: skip
    rollout = max(window.seconds for window in windows)
    made = sum(window.decisions for window in windows)
    policy = statistics.fmean(window.seconds_policy for window in windows)
    return {
        "learners": learners,
        "environments": learners * servers * environments,
        "decisions": made,
        "rollout_seconds": rollout,
        "iteration_seconds": rollout + update_seconds,
        "decisions_per_second": made / (rollout + update_seconds),
        "policy_share_of_rollout": policy / rollout,
        "waiting_for_the_slowest_worker": 1
        - statistics.fmean(window.seconds for window in windows) / rollout,
    }


def run(quick: bool = False) -> dict[str, Any]:
    """All of it."""
    torch.set_num_threads(1)
    chunk, decisions = (0.05, 3) if quick else (1.0, 8)
    counts = (1, 2) if quick else (1, 2, 4, 8, 16, 32, 64, 128)
    points, costs, policy_seconds = throughput(counts, chunk, decisions)
    predicted = []
    for count in counts:
        stats = simulated(count, chunk, decisions, costs, policy_seconds)
        predicted.append(stats.decisions / stats.seconds)
    size = (2, 2, 2, 2) if quick else (64, 20, 8, 16)
    return {
        "servers": servers(2, 1) if quick else servers(128, 5),
        "points": [
            {**asdict(point), "full": point.full, "predicted": rate}
            for point, rate in zip(points, predicted, strict=True)
        ],
        "costs": {**asdict(costs), "policy": policy_seconds},
        "many": many_learners(*size, costs),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = []
    for suite, found in result["servers"]["one"].items():
        memory, seconds = found["bytes"] / 2**20, found["seconds"]
        lines.append(f"one {suite} server: {memory:.0f} MiB, up in {seconds:.2f} s")
    many = result["servers"]["many"]
    lines.append(
        f"{many['servers']} at once: {many['bytes'] / 2**30:.2f} GiB, up in {many['seconds']:.0f} s"
    )
    lines.append(
        f"{'servers':>8}{'decisions/s':>13}{'of linear':>11}{'predicted':>11}{'off by':>8}"
        f"{'policy':>8}{'collector':>11}{'cores':>7}  full"
    )
    first = result["points"][0]
    for point in result["points"]:
        linear = point["rate"] / (first["rate"] * point["servers"] / first["servers"])
        off = point["predicted"] / point["rate"] - 1
        lines.append(
            f"{point['servers']:>8}{point['rate']:>13.2f}{linear:>11.1%}{point['predicted']:>11.2f}"
            f"{off:>+8.1%}{point['policy']:>8.0%}{point['collector']:>11.0%}{point['cores']:>7.0%}"
            f"  {point['full']}"
        )
    costs = result["costs"]
    lines.append(
        f"an answer costs {1000 * costs['answer']:.2f} ms of the collector, "
        f"{1000 * costs['server']:.2f} ms of its server; a call of the policy took "
        f"{1000 * costs['policy']:.2f} ms"
    )
    lines += [f"{name:32}{value:>12,.2f}" for name, value in result["many"].items()]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two servers, short chunks")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    result = run(arguments.quick)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
