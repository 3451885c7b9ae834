"""Does `model.compile` pay? Plain and compiled modules side by side, on one thread.

    python -m benchmarks.bench_compile [--quick] [--json FILE]

Two sizes: the shipped one (`tiny-pooled`), and one of 512 hidden numbers and eight layers. Of each
the expert's velocity for a rollout's batch and for a training step with gradients, and the backbone
for a rollout's batch. Modes take turns; medians. No bound is expected: the figures tell
whether the minutes of compilation are well spent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from vlarl.config.schema import ModelConfig
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import configured
from vlarl.observations import Observations

SMALL = "tiny-pooled"
MIDDLE = """
base: tiny
backbone:
  text_config:
    {hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 8, num_attention_heads: 16,
     layer_types: [full_attention, full_attention, full_attention, full_attention, full_attention,
                   full_attention, full_attention, full_attention]}
  vision_config: {hidden_size: 384, intermediate_size: 1152, out_hidden_size: 512, depth: 8}
expert: {width: 384, blocks: 8, heads: 12, head_dim: 32}
"""
ROLLOUT, TRAINING = 11, 64


def build_pair(preset: str) -> tuple[QwenVLA, QwenVLA]:
    """The same random model twice; in the second, modules compile at their first call."""
    contract = tabletop_contract()
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model = build(preset, contract, channel_bounds_codec(contract)).eval()
        for parameter in model.expert.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        models.append(model)
    plain, compiled = models
    return plain, configured(compiled, ModelConfig(compile=True))


def observations(model: QwenVLA) -> dict[int, TensorDict]:
    """Batch size -> inputs of random pictures."""
    random = np.random.default_rng(0)
    found = {}
    for batch in (ROLLOUT, TRAINING):
        images = {
            c.name: random.integers(0, 256, (batch, c.height, c.width, 3), dtype=np.uint8)
            for c in model.contract.cameras
        }
        seen = Observations(images, ["Pick up the red cube"] * batch)
        found[batch] = model.processor(seen)
    return found


def works(
    model: QwenVLA, inputs: dict[int, TensorDict], contexts: dict[int, TensorDict]
) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name; each returns a tensor to compare."""
    draws = torch.Generator().manual_seed(0)
    noise = {n: torch.randn(model.codec.mask(n).shape, generator=draws) for n in contexts}

    def velocity(batch: int) -> Tensor:
        tau = torch.full((batch,), 0.5)
        return model.velocity(contexts[batch], noise[batch], tau, model.codec.mask(batch))

    def acting() -> Tensor:
        with torch.no_grad():
            return velocity(ROLLOUT)

    def training() -> Tensor:
        model.expert.zero_grad(set_to_none=True)
        found = velocity(TRAINING)
        found.square().mean().backward()
        gradient = model.expert.context_in.weight.grad
        assert gradient is not None
        return gradient

    def encoding() -> Tensor:
        with torch.no_grad():
            return model.encode(inputs[ROLLOUT])["hidden"]

    return {
        "expert, rollout": acting,
        "expert, gradient": training,
        "backbone, rollout": encoding,
    }


def measure(preset: str, rounds: int, first: int = 3) -> dict[str, dict[str, float]]:
    """Name -> seconds plain and compiled, seconds of compilation, and how far they differ.

    Of the `first` works alone: each takes up to a minute to compile.
    """
    models = build_pair(preset)
    inputs = observations(models[0])
    with torch.no_grad():
        contexts = {batch: models[0].encode(each) for batch, each in inputs.items()}
    plain, compiled = (works(model, inputs, contexts) for model in models)
    found = {}
    for name in list(plain)[:first]:
        started = time.perf_counter()
        difference = float((compiled[name]() - plain[name]()).abs().max())
        compilation = time.perf_counter() - started
        seconds: dict[str, list[float]] = {"plain": [], "compiled": []}
        for _ in range(rounds):
            for mode, work in (("plain", plain[name]), ("compiled", compiled[name])):
                started = time.perf_counter()
                work()
                seconds[mode].append(time.perf_counter() - started)
        medians = {mode: statistics.median(times) for mode, times in seconds.items()}
        found[name] = medians | {"compilation": compilation, "difference": difference}
    return found


def run(quick: bool = False) -> dict[str, Any]:
    """Measure both sizes and print a table."""
    torch.set_num_threads(1)
    rounds = 3 if quick else 40
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        middle = Path(folder) / "middle.yaml"
        middle.write_text(MIDDLE, encoding="utf-8")
        for size, preset in ((SMALL, SMALL), ("middle", str(middle))):
            if quick and size != SMALL:
                continue
            found[size] = measure(preset, rounds, first=1 if quick else 3)
            for name, row in found[size].items():
                ratio = row["plain"] / row["compiled"]
                print(
                    f"{size:<12} {name:<18} plain {1e3 * row['plain']:8.2f} ms, compiled "
                    f"{1e3 * row['compiled']:8.2f} ms ({ratio:.2f} times), "
                    f"first call {row['compilation']:.0f} s, difference {row['difference']:.1e}"
                )
    return {"rounds": rounds, "sizes": found}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = run(arguments.quick)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
