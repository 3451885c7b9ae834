"""Env steps per second and memory of env servers, beside Gymnasium's and TorchRL's vector envs.

    python -m benchmarks.bench_envs [--quick] [--json FILE]

The same tabletop environments, cameras and random actions everywhere. Each contender lives in a
process of its own, all are built first, and short windows of measurement go round them in turn, so
that a disturbance of the machine meets all alike. Episodes do not end by time and hardly ever by
success, so that resets play no part. The contenders, each with an image pair on every control step
("steps") and on every eighth ("chunks"):

- env servers: two processes of 16 environments, requests overlapping;
- Gymnasium: `AsyncVectorEnv`, a process for each environment, observations in shared memory;
- TorchRL: `ParallelEnv`, a process for each environment.

Expected figures and the machine they were measured on stand in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.client import spawn_server, wait_ready
from envservers.service import proportional_memory
from envservers.tabletop.gym_env import TabletopGymEnv
from vlarl.types import EpisodeStart

CHUNK = 8
SERVERS = 2
ENDLESS = 1_000_000
PEERS = ("gymnasium", "torchrl")
CONTENDERS = ("servers", *PEERS)
MODES = {"chunks": CHUNK, "steps": 1}

Advance = Callable[[], int]
"""Has every environment execute a bit; returns how many env steps that were."""


class ChunkEnv(TabletopGymEnv):
    """The Gymnasium environment for peers, taking `horizon` control steps at once."""

    def __init__(self, task: str, horizon: int) -> None:
        import gymnasium

        super().__init__(task, max_steps=ENDLESS)
        self._horizon = horizon
        if horizon > 1:
            low = np.tile(self.action_space.low, (horizon, 1))
            high = np.tile(self.action_space.high, (horizon, 1))
            self.action_space = gymnasium.spaces.Box(low, high)

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute a chunk and observe once."""
        if self._horizon == 1:
            return super().step(action)
        now = self._suite.step(np.zeros(1, np.int64), np.asarray(action, np.float32)[None])
        ended = bool(now.terminated[0]), bool(now.truncated[0])
        return self._observation(now), float(now.reward[0]), *ended, self._info(now)


def _random_actions(spec_low, spec_high, shape) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(spec_low, spec_high, shape).astype(np.float32)


@contextmanager
def _servers(num_envs: int, horizon: int) -> Iterator[tuple[Advance, list[int] | None]]:
    each = num_envs // SERVERS
    ids = np.arange(each)
    clients = [
        spawn_server("tabletop", each, {"max_steps": ENDLESS, "terminate_on_success": False})
        for _ in range(SERVERS)
    ]
    channels, task = clients[0].spec.channels, clients[0].spec.tasks[0]
    low, high = [c.low for c in channels], [c.high for c in channels]
    pool = _random_actions(low, high, (64, each, horizon, len(channels)))
    turn = 0
    for number, client in enumerate(clients):
        client.reset(ids, [EpisodeStart(task, number * each + i) for i in range(each)])
        client.submit_step(ids, pool[0])

    def advance() -> int:
        nonlocal turn
        steps = 0
        for client in wait_ready(clients):
            steps += int(client.receive().executed.sum())
            turn += 1
            client.submit_step(ids, pool[turn % len(pool)])
        return steps

    try:
        yield advance, [client.pid for client in clients]
    finally:
        for client in clients:
            client.close()


@contextmanager
def _gymnasium(num_envs: int, horizon: int) -> Iterator[tuple[Advance, list[int] | None]]:
    from gymnasium.vector import AsyncVectorEnv

    envs = AsyncVectorEnv([lambda: ChunkEnv(_first_task(), horizon)] * num_envs)
    space = envs.single_action_space
    pool = _random_actions(space.low, space.high, (64, num_envs, *space.shape))
    envs.reset(seed=list(range(num_envs)))
    turn = 0

    def advance() -> int:
        nonlocal turn
        turn += 1
        envs.step(pool[turn % len(pool)])
        return num_envs * horizon

    try:
        yield advance, None
    finally:
        envs.close()


@contextmanager
def _torchrl(num_envs: int, horizon: int) -> Iterator[tuple[Advance, list[int] | None]]:
    import torch
    from torchrl.envs import ParallelEnv

    torch.set_num_threads(1)
    # Forked workers share their libraries; spawned ones, the default, weigh some 290 MB each.
    envs = ParallelEnv(
        num_envs,
        functools.partial(_wrapped, horizon),
        mp_start_method="fork",
    )
    space = ChunkEnv(_first_task(), horizon).action_space
    pool = torch.from_numpy(_random_actions(space.low, space.high, (64, num_envs, *space.shape)))
    state = envs.reset()
    turn = 0

    def advance() -> int:
        nonlocal turn, state
        turn += 1
        state["action"] = pool[turn % len(pool)]
        _, state = envs.step_and_maybe_reset(state)
        return num_envs * horizon

    try:
        yield advance, None
    finally:
        envs.close()


def _wrapped(horizon: int) -> Any:
    from torchrl.envs import GymWrapper

    return GymWrapper(ChunkEnv(_first_task(), horizon))


def _first_task() -> str:
    from envservers.tabletop.tasks import TASKS

    return TASKS[0].name


def _contend(name: str, mode: str, num_envs: int) -> None:
    """A contender's process: build, then one window for each line `SECONDS` of standard input."""
    build = {"servers": _servers, "gymnasium": _gymnasium, "torchrl": _torchrl}[name]
    with build(num_envs, MODES[mode]) as (advance, pids):
        advance()
        print("ready", flush=True)
        for line in sys.stdin:
            seconds = float(line)
            steps, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds:
                steps += advance()
            memory = sum(map(proportional_memory, pids or _descendants(os.getpid())))
            print(json.dumps({"rate": steps / elapsed, "memory": memory}), flush=True)


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return [*children, *(grand for child in children for grand in _descendants(child))]


def run(
    seconds: float = 3.0,
    repeats: int = 5,
    num_envs: int = 32,
    contenders: tuple[str, ...] = CONTENDERS,
) -> dict[str, Any]:
    """Measure; medians over `repeats` windows of `seconds` each.

    Returns:
        `rates` (contender -> mode -> env steps per second), `windows` (the same, all windows),
        `memory` (contender -> mode -> proportional bytes of all its simulating processes),
        `speedup_as_used`, `speedup_given_chunks` (env servers against the better peer; absent
        without peers), and `machine`.
    """
    windows: dict[str, dict[str, list[float]]] = {
        name: {m: [] for m in MODES} for name in contenders
    }
    memory: dict[str, dict[str, int]] = {name: {} for name in contenders}
    with _contest(contenders, num_envs) as processes:
        for _ in range(repeats):
            for (name, mode), process in processes.items():
                answer = json.loads(_line(process, "{", f"{seconds}\n"))
                windows[name][mode].append(answer["rate"])
                memory[name][mode] = answer["memory"]
    rates = {
        name: {mode: statistics.median(values) for mode, values in modes.items()}
        for name, modes in windows.items()
    }
    return {
        "num_envs": num_envs,
        "seconds": seconds,
        "repeats": repeats,
        "rates": rates,
        "windows": windows,
        "memory": memory,
        "machine": {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]},
        **speedups(rates),
    }


@contextmanager
def _contest(
    contenders: tuple[str, ...], num_envs: int
) -> Iterator[dict[tuple[str, str], subprocess.Popen[str]]]:
    """A process for each contender and mode, all built and waiting; they end with the block."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    processes: dict[tuple[str, str], subprocess.Popen[str]] = {}
    try:
        for name, mode in ((name, mode) for name in contenders for mode in MODES):
            arguments = ["--contender", name, "--mode", mode, "--num-envs", str(num_envs)]
            process = subprocess.Popen(
                [sys.executable, __file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            processes[name, mode] = process
            _line(process, "ready")
        yield processes
    finally:
        for process in processes.values():
            process.communicate()


def speedups(rates: dict[str, dict[str, float]]) -> dict[str, float]:
    """Env servers, given chunks, against the better peer as it is used and given chunks too."""
    peers = [rates[name] for name in PEERS if name in rates]
    if not peers or "servers" not in rates:
        return {}
    ours = rates["servers"]["chunks"]
    return {
        "speedup_as_used": ours / max(peer["steps"] for peer in peers),
        "speedup_given_chunks": ours / max(peer["chunks"] for peer in peers),
    }


def _line(process: subprocess.Popen[str], start: str, request: str = "") -> str:
    """Send a line and wait for the answer that begins so; libraries print lines of their own."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise RuntimeError(f"{process.args} ended with code {process.wait()}")


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [f"{'':12}{'image/step':>14}{'image/chunk':>14}{'memory':>12}"]
    for name, modes in result["rates"].items():
        mebibytes = result["memory"][name]["chunks"] / 2**20
        rates = f"{modes['steps']:>10,.0f} /s {modes['chunks']:>10,.0f} /s"
        lines.append(f"{name:12}{rates} {mebibytes:>7,.0f} MiB")
    if "speedup_as_used" in result:
        lines.append(
            f"env servers: {result['speedup_as_used']:.1f}x the better peer as it is used, "
            f"{result['speedup_given_chunks']:.2f}x when it is given whole chunks too"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 environments, one second, twice")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-envs", type=int, default=32)
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=tuple(MODES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        _contend(arguments.contender, arguments.mode, arguments.num_envs)
        return
    if arguments.quick:
        result = run(seconds=1.0, repeats=2, num_envs=8)
    else:
        result = run(arguments.seconds, arguments.repeats, arguments.num_envs)
    print(table(result))
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
