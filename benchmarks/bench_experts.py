"""The paper's single-stream action expert, beside its cheaper variants, after the same training.

    python -m benchmarks.bench_experts [--quick] [--json FILE] [--folder DIR] [--seeds 0 1 ...]
        [--presets tiny ...] [key=value ...]

Each preset's expert starts at random on the shipped, frozen backbone and learns as
`configs/sft/experts.yaml` says: same demonstrations, steps, batches, rate and seed. Then it plays
the same held-out episodes. What is there in `DIR` already (demonstrations, runs) is not made again.
Reported for each run: success with its 95% interval (Wilson), the mean loss of the last tenth of
the steps, and the median time of a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.supervise import supervise
from benchmarks.trained import demonstrations_in, success
from vlarl.config.load import load_config
from vlarl.runs import RunFolder

CONFIG = "configs/sft/experts.yaml"
PRESETS = ("tiny", "tiny-prefix", "tiny-pooled")
_QUICK = (
    "supervised.steps=4",
    "supervised.optimizer.warmup_steps=1",
    "supervised.log_every=1",
    "supervised.batch_size=4",
    "supervised.collect.episodes=4",
    "evaluation.episodes=4",
)


def run(
    folder: Path,
    presets: Sequence[str] = PRESETS,
    seeds: Sequence[int] = (0,),
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and evaluate every preset with every seed; runs stay in `folder`."""
    demonstrations = demonstrations_in(folder, load_config(CONFIG, list(overrides)))
    trained = [word for word in overrides if not word.startswith("supervised.collect.")]
    rows = []
    for seed in seeds:
        for preset in presets:
            given = [f"model.preset={preset}", f"seed={seed}", *trained]
            rows.append(_one(folder, demonstrations, preset, seed, given))
            print(_line(rows[-1]), flush=True)
    return {"config": CONFIG, "overrides": list(overrides), "runs": rows}


def _one(
    folder: Path, demonstrations: Path, preset: str, seed: int, overrides: list[str]
) -> dict[str, Any]:
    """Train one expert, or what is left of its training, and evaluate it."""
    name = f"{preset}_{seed}"
    config = load_config(CONFIG, [*overrides, f"output={folder}", f"name={name}"])
    data = dataclasses.replace(config.supervised.data, path=str(demonstrations))
    stage = dataclasses.replace(config.supervised, data=data)
    resume = "auto" if (folder / name).exists() else "never"
    trained = supervise(dataclasses.replace(config, supervised=stage, resume=resume))
    if trained["interrupted"]:
        raise KeyboardInterrupt
    logged = RunFolder(folder / name).metrics()
    late = [row for row in logged if row["step"] > 0.9 * stage.steps]
    return {
        "preset": preset,
        "seed": seed,
        **success(trained["checkpoint"], CONFIG, overrides),
        "action_loss": statistics.mean(row["action_loss"] for row in late),
        "step_seconds": 1 / statistics.median(row["steps_per_second"] for row in logged),
    }


def _line(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return (
        f"{row['preset']:<12} seed {row['seed']}: success {row['success_rate']:.3f} "
        f"[{low:.3f}, {high:.3f}] of {row['episodes']}, loss {row['action_loss']:.4f}, "
        f"{1000 * row['step_seconds']:.0f} ms a step"
    )


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    return "\n".join(_line(row) for row in result["runs"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps and episodes")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--folder", type=Path, default=Path("runs/experts"), help="of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    arguments = parser.parse_args()
    if arguments.quick:
        with tempfile.TemporaryDirectory() as name:
            result = run(Path(name), overrides=[*_QUICK, *arguments.overrides])
    else:
        result = run(arguments.folder, arguments.presets, arguments.seeds, arguments.overrides)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
