"""How much of a policy gradient is signal: do the gradients of independent windows agree?

    python -m benchmarks.bench_gradient [--quick] [--json FILE]

Windows of one fixed policy (`configs/rl/demo.yaml`, after the value head's warm-up) give one
gradient each. The mean cosine between two of them is the share of signal in one: 1 would be all,
0 nothing but noise. It is printed for each part of the policy that might learn, for several traces
(`gae_lambda`), for Adam's preconditioner (each parameter scaled to the same size) and for the plain
gradient. A cheap way to compare what learning curves would take hours to tell apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actors.env_host import EnvAccess, EnvHost
from actors.rollout_worker import RolloutWorker
from actors.run_model import load_model
from learners.ppo import PPOLearner
from vlarl.config.load import load_config
from vlarl.config.schema import RunConfig
from vlarl.progress import Progress

LAMBDAS = (0.95, 0.6, 0.3)
PARTS = ("expert", "expert_biases")


def agreement(gradients: Tensor) -> dict[str, float]:
    """Mean cosine between different rows of [n, P], with its standard error.

    A row of zeros (a window without a single success, say) agrees with nothing: cosine 0.
    """
    units = torch.nn.functional.normalize(gradients, dim=1)
    cosines = units @ units.T
    pairs = [float(cosines[i, j]) for i in range(len(units)) for j in range(i)]
    spread = statistics.pstdev(pairs) / math.sqrt(len(pairs))
    return {"agreement": statistics.mean(pairs), "standard_error": spread}


def run(windows: int = 12, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Agreement of the gradients of `windows` windows, by trace and preconditioner."""
    config = load_config("configs/rl/demo.yaml", ["runtime.kind=inprocess", *overrides])
    torch.set_num_threads(config.runtime.threads)
    host = None if config.env.mode == "inprocess" else EnvHost(config.env)
    try:
        return _measure(config, EnvAccess(config.env, host), windows)
    finally:
        if host is not None:
            host.close()


def _measure(config: RunConfig, access: EnvAccess, windows: int) -> dict[str, Any]:
    model = load_model(config, access.clients[0].spec)
    worker = RolloutWorker(config, model, access)
    learners = {}
    rates = dict.fromkeys((*PARTS, "value"), 1e-3)
    optimizer = dataclasses.replace(config.ppo.optimizer, learning_rates=rates)
    for trace in LAMBDAS:
        ppo = dataclasses.replace(config.ppo, gae_lambda=trace, optimizer=optimizer)
        learners[trace] = PPOLearner(model, ppo, config.sampling, windows, config.seed)
    gradients: dict[float, list[dict[str, Tensor]]] = {trace: [] for trace in LAMBDAS}
    warmup = config.ppo.value_warmup_iterations
    with Progress("gradients", warmup + windows, "windows") as progress:
        for index in range(warmup + windows):
            batch, _ = worker.collect()
            if index < warmup:
                learners[LAMBDAS[0]].update(batch)
            else:
                for trace, learner in learners.items():
                    gradients[trace].append(learner.policy_gradient(batch))
            progress.advance()
    worker.close()
    result: dict[str, Any] = {"windows": windows, "decisions": len(batch)}
    for part in PARTS:
        result[part] = {}
        for trace, each in gradients.items():
            plain = torch.stack([gradient[part] for gradient in each])
            scale = plain.square().mean(dim=0).sqrt() + 1e-12
            result[part][f"lambda_{trace:g}"] = {
                "adam": agreement(plain / scale),
                "plain": agreement(plain),
            }
    return result


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{result['windows']} windows of {result['decisions']} decisions, mean cosine"]
    for part in PARTS:
        for trace in LAMBDAS:
            row = result[part][f"lambda_{trace:g}"]
            cells = [
                f"{name} {row[name]['agreement']:+.4f} (s.e. {row[name]['standard_error']:.4f})"
                for name in ("adam", "plain")
            ]
            lines.append(f"{part:<14} gae_lambda {trace:<5g} " + "   ".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three windows of few decisions")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    quick = ("ppo.decisions_per_stream=4", "ppo.minibatch=64", "ppo.micro_batch=64")
    result = run(3, quick) if arguments.quick else run()
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
