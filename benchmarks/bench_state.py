"""State conditioning (paper Table 12) on `tabletop`: no state, in the prompt, in the expert.

    python -m benchmarks.bench_state [--quick] [--json FILE] [--folder DIR] [--modes none ...]
        [--seed 0] [key=value ...]

A random expert of `tiny-pooled` on the shipped, frozen backbone learns as `configs/sft/state.yaml`
says, for each mode alike: same demonstrations, steps, batches, rate and seed. Then it plays the
same held-out episodes. What is there in `DIR` already (demonstrations, runs) is not made again.
The backbone never saw a state in a prompt and does not learn to read one here.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from actors.supervise import supervise
from benchmarks.trained import demonstrations_in, success
from vlarl.config.load import load_config
from vlarl.config.schema import RunConfig
from vlarl.contract import STATE_MODES
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.model.presets import build, state_tokens
from vlarl.model.pretrained import Pretrained
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.runs import checkpoint_of
from vlarl.state import fit_state_codec

CONFIG, BACKBONE, PRESET = "configs/sft/state.yaml", "tabletop-sft", "tiny-pooled"
QUICK = (
    "supervised.steps=4",
    "supervised.optimizer.warmup_steps=1",
    "supervised.log_every=1",
    "supervised.batch_size=4",
    "supervised.collect.episodes=4",
    "supervised.collect.clumsy_steps=0",
    "evaluation.episodes=4",
    "env.mode=inprocess",
    "env.servers=1",
    "env.envs_per_server=4",
)


def run(
    folder: Path, modes: Sequence[str] = STATE_MODES, seed: int = 0, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Train and evaluate an expert with every mode; runs stay in `folder`."""
    config = load_config(CONFIG, list(overrides))
    demonstrations = demonstrations_in(folder, config)
    rows = []
    for mode in modes:
        name = f"{mode}_{seed}"
        done = folder / name / "checkpoints" / f"step_{config.supervised.steps}"
        if not done.exists():
            start = folder / f"start_{name}"
            starting_point(mode, demonstrations, seed).save_pretrained(start)
            words = [*overrides, f"output={folder}", f"name={name}", f"seed={seed}"]
            supervise(_on(load_config(CONFIG, words), start, demonstrations))
        rows.append({"mode": mode, "seed": seed, **success(checkpoint_of(done), CONFIG, overrides)})
        print(_line(rows[-1]), flush=True)
    return {"config": CONFIG, "overrides": list(overrides), "runs": rows}


def starting_point(mode: str, demonstrations: Path, seed: int) -> QwenVLA:
    """The shipped backbone with a random expert that is shown the state in this way."""
    shipped = QwenVLA.from_pretrained(BACKBONE)
    source, states = shipped.processor, LeRobotReader(demonstrations).states()
    contract = dataclasses.replace(
        shipped.contract, state_mode=mode, state_dim=0 if mode == "none" else states.shape[1]
    )
    more = state_tokens(Processor(source.tokenizer, contract, source.layout))
    contract = dataclasses.replace(contract, prompt_tokens=contract.prompt_tokens + more)
    torch.manual_seed(seed)
    backbone = Pretrained(shipped.backbone, source.tokenizer, source.layout)
    model = build(PRESET, contract, shipped.codec, backbone)
    if mode != "none":
        model.processor.state = fit_state_codec(states)
    return model


def _on(config: RunConfig, start: Path, demonstrations: Path) -> RunConfig:
    """The config that begins with this checkpoint and trains on these demonstrations."""
    data = dataclasses.replace(config.supervised.data, path=str(demonstrations))
    stage = dataclasses.replace(config.supervised, data=data)
    model = dataclasses.replace(config.model, checkpoint=str(start))
    return dataclasses.replace(config, model=model, supervised=stage)


def _line(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return (
        f"{row['mode']:<10} seed {row['seed']}: success {row['success_rate']:.3f} "
        f"[{low:.3f}, {high:.3f}] of {row['episodes']}"
    )


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    return "\n".join(_line(row) for row in result["runs"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps and episodes")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--folder", type=Path, default=Path("runs/state"), help="of the runs")
    parser.add_argument("--modes", nargs="+", default=list(STATE_MODES), choices=STATE_MODES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    arguments = parser.parse_args()
    if arguments.quick:
        with tempfile.TemporaryDirectory() as name:
            result = run(Path(name), arguments.modes, overrides=[*QUICK, *arguments.overrides])
    else:
        result = run(arguments.folder, arguments.modes, arguments.seed, arguments.overrides)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
