"""Rules of `sampling`: what is executed, what is noisy, what is scored."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.config.checks import above_zero, at_least, choice, without_effect
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig


def sampling_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of denoising and execution."""
    keys = ["denoising_steps", "execute_steps"]
    yield from at_least(config, 1, [f"sampling.{key}" for key in keys])
    yield from above_zero(config, ["sampling.rollout_temperature"])
    yield from at_least(config, 0, ["sampling.eval_temperature"])
    if config.sampling.rollout_start_temperature is not None:
        yield from at_least(config, 0, ["sampling.rollout_start_temperature"])


def exploration_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of the stochastic policy: what is noisy must be scored, and can be."""
    prefix = "sampling.exploration"
    exploration = config.sampling.exploration
    steps = config.sampling.denoising_steps
    yield from choice(config, f"{prefix}.kind", ("flow_sde", "flow_cps", "flow_noise"))
    yield from choice(config, f"{prefix}.noise_at", ("one", "all"))
    yield from choice(config, f"{prefix}.logprob_at", ("one", "all"))
    yield from choice(config, f"{prefix}.logprob_reduction", ("sum", "mean"))
    yield from choice(config, f"{prefix}.logprob_steps", ("chunk", "executed"))
    if not 0 <= exploration.correlation < 1:
        yield Problem(f"{prefix}.correlation", "must lie in [0, 1)", "The default is 0.")
    if exploration.logprob_at == "all" and exploration.noise_at == "one":
        yield Problem(
            f"{prefix}.logprob_at", "needs noise at every step", f"Set {prefix}.noise_at=all."
        )
    if exploration.kind == "flow_noise":
        yield from without_effect(config, [f"{prefix}.noise_level"], "kind=flow_noise")
        yield from above_zero(config, [f"{prefix}.std_low"])
        if exploration.std_high <= exploration.std_low:
            yield Problem(f"{prefix}.std_high", "is not above std_low", "Raise it.")
    else:
        unused = [f"{prefix}.std_low", f"{prefix}.std_high"]
        yield from without_effect(config, unused, f"kind={exploration.kind}")
        yield from above_zero(config, [f"{prefix}.noise_level"])
    last = steps - 1 if exploration.last_step == -1 else exploration.last_step
    if exploration.last_step < -1 or last > steps - 1:
        yield Problem(
            f"{prefix}.last_step", f"is not a denoising step of {steps}", f"Use 0 to {steps - 1}."
        )
    if not 0 <= exploration.first_step <= last:
        yield Problem(f"{prefix}.first_step", "is not before last_step", f"Use 0 to {last}.")
    if exploration.logprob_steps == "executed" and exploration.first_step < steps - 1:
        yield Problem(
            f"{prefix}.logprob_steps",
            "is the density of what was executed only if the last denoising step alone is "
            "stochastic: later steps mix the others in",
            f"Use {prefix}.first_step={steps - 1}, or logprob_steps=chunk.",
        )
    if exploration.kind == "flow_cps" and last > steps - 2:
        yield Problem(
            f"{prefix}.last_step",
            "flow_cps has no noise at the last denoising step, so it cannot be scored there",
            f"Use {prefix}.last_step={steps - 2}."
            if steps > 1
            else "Use sampling.denoising_steps=2 or more.",
        )
