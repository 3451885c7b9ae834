"""What the processes of a run use: memory, the GPU, and what their env servers' `stats` say.

Asked between two windows, of servers that have nothing left to do; nobody waits for a busy one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import torch

from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvServerError

_COUNTERS = ("busy_seconds", "render_seconds", "env_steps")


def process_use(role: str, device: torch.device) -> dict[str, float]:
    """This process's resident memory and, on a GPU, what torch holds there; in bytes.

    `ROLE_gpu_memory_peak_bytes` is of the time since the last call. `ROLE_gpu_utilization` is the
    share of the driver's last sampling period (up to a second) in which a kernel ran. It needs the
    extra `gpu`, and is left out where the driver does not say.

    Args:
        role: first word of each name.
        device: where the process's model lives.
    """
    found = {f"{role}_memory_bytes": float(resident_bytes())}
    if device.type != "cuda":
        return found
    found[f"{role}_gpu_memory_bytes"] = float(torch.cuda.memory_allocated(device))
    found[f"{role}_gpu_memory_peak_bytes"] = float(torch.cuda.max_memory_allocated(device))
    torch.cuda.reset_peak_memory_stats(device)
    busy = _utilization(device)
    return found if busy is None else {**found, f"{role}_gpu_utilization": busy}


def _utilization(device: torch.device) -> float | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return torch.cuda.utilization(device) / 100
    # A slice of a GPU (MIG) has no such number.
    except pynvml.NVMLError:
        return None


def resident_bytes() -> int:
    """Bytes of this process that are in memory (Linux RSS)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def merge_use(workers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Several workers' numbers as one: bytes and seconds are sums, all else means."""
    merged = {}
    for name in dict.fromkeys(name for use in workers for name in use):
        values = [use[name] for use in workers if name in use]
        adds_up = name.endswith(("_bytes", "_seconds"))
        merged[name] = sum(values) if adds_up else sum(values) / len(values)
    return merged


class ServerCounters:
    """What the env servers of one worker did since they were asked last, all of them together."""

    def __init__(self) -> None:
        self._last: dict[int, dict[str, float]] = {}

    def ask(self, clients: Iterable[tuple[int, EnvClient]]) -> dict[str, float]:
        """`server_...` metrics; none of a server in this very process but its seconds.

        Args:
            clients: number and client of each server that would answer at once. What the others
                do is told the next time.
        """
        done = dict.fromkeys(_COUNTERS, 0.0)
        memory = 0.0
        for number, client in clients:
            try:
                now = client.stats()
            # Whoever needs this server next meets its death again, and replaces it.
            except EnvServerError:
                continue
            before = self._last.get(number, {})
            # Another process counts from zero again.
            before = before if before.get("pid") == now["pid"] else {}
            for name in _COUNTERS:
                done[name] += now[name] - before.get(name, 0.0)
            memory += now["memory_bytes"] if now["pid"] != os.getpid() else 0.0
            self._last[number] = now
        busy, steps = done["busy_seconds"], done["env_steps"]
        found = {
            "server_simulation_seconds": busy - done["render_seconds"],
            "server_render_seconds": done["render_seconds"],
            "server_steps_per_second": steps / busy if busy else 0.0,
        }
        return {**found, "server_memory_bytes": memory} if memory else found
