"""What it takes to bring new weights from the learner to a rollout worker, and by what it is bound.

    python -m benchmarks.bench_weights [--quick] [--json FILE]

Measures the real way of 200 MB of bfloat16 parameters on this machine: out of the learner's model
into a buffer (`extract`), into Ray's object store (`put`), into another process (`get`), into its
model (`apply`), beside a plain copy of as many bytes. Medians, and the fastest, of rounds after the
first, whose memory is new. Then computes the seconds of 5.7e9 parameters on paper, from stated
bandwidths and the fastest copies measured here. Expected figures stand in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from actors.weights import SHARD_BYTES, WeightsUpdate, apply_weights, extract_weights

PARAMETERS = 100_000_000
PAPER_PARAMETERS = 5_700_000_000
_WIDTH = 1000
STEPS = ("extract", "put", "get", "apply")
LINKS = {
    "PCIe 4.0 x16": 32.0,
    "PCIe 5.0 x16": 64.0,
    "NVLink 4": 450.0,
    "100 Gb/s": 12.5,
    "400 Gb/s": 50.0,
}
"""Nominal GB/s (1e9 bytes), one direction: what no program passes."""


class Matrices(nn.Module):
    """Square matrices in bfloat16."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        count = max(1, parameters // _WIDTH**2)
        width = _WIDTH if parameters >= _WIDTH**2 else int(parameters**0.5)
        self.weights = nn.ParameterList(
            torch.full((width, width), float(n), dtype=torch.bfloat16) for n in range(count)
        )


class Reader:
    """A rollout worker's part, in an actor."""

    def __init__(self, parameters: int) -> None:
        torch.set_num_threads(1)
        self._model = Matrices(parameters)

    def receive(self, update: WeightsUpdate) -> dict[str, float]:
        """Seconds of each step."""
        seconds = {}
        began = time.perf_counter()

        def get(shards: Any) -> Any:
            found = ray.get(list(shards))
            seconds["get"] = time.perf_counter() - began
            return found

        apply_weights(self._model, update, get)
        seconds["apply"] = time.perf_counter() - began - seconds["get"]
        return seconds

    def first_row(self) -> list[float]:
        """Of every matrix its first number."""
        return [weight[0, 0].item() for weight in self._model.weights]


def run(parameters: int = PARAMETERS, rounds: int = 16, shard_bytes: int = 2**26) -> dict[str, Any]:
    """Medians and minima in seconds, the GB/s of the latter, and the plan.

    Args:
        parameters: of the model that is moved.
        rounds: publications; the first is not counted.
        shard_bytes: of one object; smaller than in a run, so that there are several.
    """
    torch.set_num_threads(1)
    model = Matrices(parameters)
    size = sum(parameter.nbytes for parameter in model.parameters())
    ray.init(
        address="local",
        num_cpus=max(2, os.cpu_count() or 1),
        object_store_memory=max(80 * 10**6, 3 * size),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        reader = ray.remote(Reader).options(num_cpus=1).remote(parameters)
        measured = [_round(model, reader, number, shard_bytes) for number in range(rounds)]
        whole = ray.get(reader.first_row.remote()) == [w[0, 0].item() for w in model.weights]
    finally:
        ray.shutdown()
    names = ("copy", *STEPS, "whole")
    seconds = {name: statistics.median(each[name] for each in measured[1:]) for name in names}
    fastest = {name: min(each[name] for each in measured[1:]) for name in names}
    rates = {name: size / value / 1e9 for name, value in fastest.items()}
    return {
        "bytes": size,
        "shards": -(-size // shard_bytes),
        "whole": whole,
        "seconds": seconds,
        "fastest": fastest,
        "gb_per_second": rates,
        "paper": plan(rates),
    }


def _round(model: Matrices, reader: Any, version: int, shard_bytes: int) -> dict[str, float]:
    """One publication; `whole` is what everyone waits, from the learner's model to the worker's."""
    with torch.no_grad():
        for weight in model.weights:
            weight.add_(1)
    putting = 0.0

    def put(shard: Any) -> Any:
        nonlocal putting
        began = time.perf_counter()
        reference = ray.put(shard)
        putting += time.perf_counter() - began
        return reference

    copy = _plain_copy(model)
    began = time.perf_counter()
    update = extract_weights(model, version, put, shard_bytes)
    published = time.perf_counter() - began
    received: dict[str, float] = ray.get(reader.receive.remote(update))
    whole = time.perf_counter() - began
    return {
        "copy": copy,
        "extract": published - putting,
        "put": putting,
        **received,
        "whole": whole,
    }


def _plain_copy(model: Matrices) -> float:
    """Seconds to copy all parameters into memory that was used before."""
    target = [torch.zeros_like(weight) for weight in model.weights]
    began = time.perf_counter()
    for here, there in zip(model.weights, target, strict=True):
        there.copy_(here.detach())
    return time.perf_counter() - began


def plan(rates: dict[str, float]) -> dict[str, Any]:
    """Seconds for the paper's model by each way, from nominal links and the copies measured here.

    The steps of a way are added up as if each waited for the one before, with the slowest of them
    beside the sum: no overlap makes it less. `put` is done once, whatever the number of workers.
    """
    size = 2 * PAPER_PARAMETERS
    links = {name: size / rate / 1e9 for name, rate in LINKS.items()}
    stored = size / rates["put"] / 1e9
    pcie = links["PCIe 5.0 x16"]
    node = {"GPU to host": pcie, "put": stored, "host to GPU": pcie}
    ways = {
        "one node": node,
        "other node, 100 Gb/s": {**node, "network": links["100 Gb/s"]},
        "other node, 400 Gb/s": {**node, "network": links["400 Gb/s"]},
    }
    return {
        "bytes": size,
        "shards": -(-size // SHARD_BYTES),
        "links": links,
        "measured": {name: size / rates[name] / 1e9 for name in ("copy", *STEPS)},
        "ways": {
            name: {"added": sum(steps.values()), "slowest": max(steps.values())}
            for name, steps in ways.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{result['bytes'] / 1e6:.0f} MB of bfloat16 in {result['shards']} shards, measured:"]
    for name in ("copy", *STEPS, "whole"):
        median, least = 1e3 * result["seconds"][name], 1e3 * result["fastest"][name]
        rate = result["gb_per_second"][name]
        lines.append(
            f"  {name:10s} median {median:8.2f} ms, {least:8.2f} ms at best: {rate:.2f} GB/s"
        )
    paper = result["paper"]
    lines.append(f"{paper['bytes'] / 1e9:.1f} GB in {paper['shards']} shards, computed:")
    for name, seconds in paper["links"].items():
        lines.append(f"  {name:22s} {seconds:9.3f} s at {LINKS[name]:g} GB/s")
    for name, seconds in paper["measured"].items():
        lines.append(f"  {name + ', as here':22s} {seconds:9.3f} s")
    for name, way in paper["ways"].items():
        lines.append(
            f"  {name:22s} {way['added']:9.3f} s, of it the slowest step {way['slowest']:.3f} s"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 MB, three rounds")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    result = run(5_000_000, 3, 2**22) if arguments.quick else run()
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
