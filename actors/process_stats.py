"""What the processes of a run use: memory, the GPU, and what their env servers' `stats` say.

Servers are asked between two windows, when they have nothing left to do: nobody waits for a busy
one. Where rollout goes on while others learn, it does not wait for the answers either.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

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
    """What the env servers of one worker did since it was told last, all of them together.

    One thread may ask servers while another is told.
    """

    def __init__(self) -> None:
        self._asked: dict[int, EnvClient] = {}
        # Below: with the lock held.
        self._lock = threading.Lock()
        self._last: dict[int, tuple[EnvClient, dict[str, float]]] = {}
        self._done = dict.fromkeys(_COUNTERS, 0.0)

    def ask(self, clients: Iterable[tuple[int, EnvClient]]) -> None:
        """Ask servers and wait for their answers.

        Args:
            clients: number and client of each server that would answer at once. What the others
                do is told the next time.
        """
        for number, client in clients:
            # Whoever needs this server next meets its death again, and replaces it.
            with suppress(EnvServerError):
                now = client.stats()
                # What it was asked before was answered before; counted later, it would take back.
                if self._asked.pop(number, None) is client:
                    client.told_stats()
                self._count(number, client, now)

    def skip(self, clients: Iterable[tuple[int, EnvClient]]) -> None:
        """As `ask`; but what these servers did since they were asked last counts for nothing."""
        with self._lock:
            done = dict(self._done)
        self.ask(clients)
        with self._lock:
            self._done = done

    def submit(self, number: int, client: EnvClient) -> None:
        """Ask a server and do not wait."""
        with suppress(EnvServerError):
            client.submit_stats()
            self._asked[number] = client

    def take_in(self) -> None:
        """What has been answered since; of the thread that asks."""
        for number, client in list(self._asked.items()):
            try:
                told = client.told_stats()
            except EnvServerError:
                del self._asked[number]
                continue
            if told is not None:
                del self._asked[number]
                self._count(number, client, told)

    def told(self) -> dict[str, float]:
        """`server_...` metrics; none of a server in this very process but its seconds."""
        with self._lock:
            done, self._done = self._done, dict.fromkeys(_COUNTERS, 0.0)
            others = [now for _, now in self._last.values() if now["pid"] != os.getpid()]
        busy, steps = done["busy_seconds"], done["env_steps"]
        found = {
            "server_simulation_seconds": busy - done["render_seconds"],
            "server_render_seconds": done["render_seconds"],
            "server_steps_per_second": steps / busy if busy else 0.0,
        }
        if others:
            found["server_memory_bytes"] = sum(now["memory_bytes"] for now in others)
        return found

    def _count(self, number: int, client: EnvClient, now: dict[str, float]) -> None:
        with self._lock:
            its_client, before = self._last.get(number, (client, {}))
            # Another process counts from zero again, and so does another suite in this one.
            known = before.get("pid") == now["pid"]
            if not known or (now["pid"] == os.getpid() and client is not its_client):
                before = {}
            for name in _COUNTERS:
                self._done[name] += now[name] - before.get(name, 0.0)
            self._last[number] = client, now
