"""How much memory it takes to load a checkpoint, beside the size of its weights.

    python -m benchmarks.bench_load [--quick] [--preset NAME] [--json FILE]

Writes a checkpoint of the preset's size in bfloat16 (zeros: what the numbers are does not matter)
into a temporary folder, needs as much free disk, and loads it in a process of its own, whose peak
of resident memory beyond what it had before is reported. Expected: the size of the weights and less
than 2 GiB more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlarl.model.empty import assign, empty_weights
from vlarl.model.presets import channel_bounds_codec, load_preset, tabletop_contract
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.tokenizer import load_tiny_tokenizer

_CHILD = """
import sys, time
from vlarl.model.qwen_vla import QwenVLA
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
before, started = peak(), time.perf_counter()
model = QwenVLA.from_pretrained(sys.argv[1])
print(peak() - before, time.perf_counter() - started)
"""


def run(preset: str = "qwen_vla_0_8b") -> dict[str, Any]:
    """Bytes of the weights, peak memory of loading them, and seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        _empty_model(preset).save_pretrained(folder)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        shards = len(list(folder.glob("*.safetensors")))
        started = time.perf_counter()
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, str(folder)], capture_output=True, text=True, check=True
        )
        whole = time.perf_counter() - started
    peak, seconds = (float(word) for word in child.stdout.split())
    return {
        "preset": preset,
        "weight_bytes": size,
        "files": shards,
        "peak_bytes": int(peak),
        "beyond_bytes": int(peak) - size,
        "seconds": seconds,
        "process_seconds": whole,
    }


def _empty_model(preset: str) -> QwenVLA:
    """The preset's model, all zeros in bfloat16."""
    sizes, contract = load_preset(preset), tabletop_contract()
    with empty_weights():
        model = QwenVLA(
            sizes.backbone_config(),
            sizes.expert_config(contract),
            contract,
            channel_bounds_codec(contract),
            Processor(load_tiny_tokenizer(), contract),
            sizes.value,
        )
    for name, parameter in list(model.named_parameters()):
        assign(model, name, torch.zeros(parameter.shape, dtype=torch.bfloat16))
    embedding = model.backbone.get_input_embeddings().weight
    assert isinstance(embedding, nn.Parameter)
    model.backbone.lm_head.weight = embedding
    return model


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    gib = 2**30
    return (
        f"{result['preset']}: weights {result['weight_bytes'] / gib:.2f} GiB in {result['files']} "
        f"files, peak {result['peak_bytes'] / gib:.2f} GiB "
        f"({result['beyond_bytes'] / gib:+.2f} GiB), {result['seconds']:.1f} s"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="qwen_vla_0_8b")
    parser.add_argument("--quick", action="store_true", help="the tiny preset")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    result = run("tiny" if arguments.quick else arguments.preset)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
