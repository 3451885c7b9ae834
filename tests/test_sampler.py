"""Sampling and its density: analytic targets, exact ratios, padding, steps drawn per sample."""

import itertools

import pytest
import torch
from torch.distributions import Normal

from vlarl.config.schema import ExplorationConfig
from vlarl.exploration import flow_times, transition
from vlarl.sampler import sample_explore, sample_ode, score

VARIANTS = [
    ExplorationConfig(kind=kind, noise_at=noise_at, logprob_at=at, last_step=2)
    for kind, (noise_at, at) in itertools.product(
        ("flow_sde", "flow_cps", "flow_noise"), (("one", "one"), ("all", "one"), ("all", "all"))
    )
]
VARIANTS.append(ExplorationConfig(correlation=0.9))
LOG_STD = torch.tensor([-2.0, -1.5, -1.0])


def gaussian_velocity(mean, std):
    """The exact velocity of a flow whose clean entries are independent normals."""

    def velocity(y, tau):
        tau = tau[:, None, None]
        variance = ((1 - tau) * std) ** 2 + tau**2
        slope = (tau - (1 - tau) * std**2) / variance
        return slope * (y - (1 - tau) * mean) - mean

    return velocity


def wavy_velocity(y, tau):
    """Any smooth function that mixes all entries of a chunk, also those that are padded."""
    mixed = y.flatten(1).cumsum(1).view_as(y)
    return torch.sin(mixed + tau[:, None, None])


def start(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(batch, 4, 3, dtype=torch.bool)
    mask[:, :3, :2] = True
    return torch.randn(batch, 4, 3, generator=generator), mask, generator


def explore(config, batch=7, temperature=1.0, noise=None, velocity=wavy_velocity):
    drawn, mask, generator = start(batch)
    noise = drawn if noise is None else noise
    return sample_explore(velocity, noise, mask, 4, config, temperature, generator, LOG_STD)


def test_the_ode_reaches_a_gaussian_target():
    noise = torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(noise, dtype=torch.bool)
    clean = sample_ode(gaussian_velocity(0.7, 0.3), noise, mask, 200)
    assert float(clean.mean()) == pytest.approx(0.7, abs=0.01)
    assert float(clean.std()) == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("level", [0.3, 1.0])
@pytest.mark.parametrize("noise_at", ["one", "all"])
def test_the_sde_reaches_a_gaussian_target_at_any_noise_level(level, noise_at):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 1, 1, generator=generator)
    mask = torch.ones_like(noise, dtype=torch.bool)
    config = ExplorationConfig(noise_level=level, noise_at=noise_at)
    velocity = gaussian_velocity(0.7, 0.3)
    errors = []
    for steps in (10, 200):
        clean = sample_explore(velocity, noise, mask, steps, config, 1.0, generator)["action"]
        errors.append(abs(float(clean.std()) - 0.3))
        assert float(clean.mean()) == pytest.approx(0.7, abs=0.02)
    assert errors[1] < 0.03 * 0.3
    assert errors[1] < errors[0]


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.kind}-{c.noise_at}-{c.logprob_at}")
def test_scoring_the_same_tensors_gives_ratio_exactly_1(config):
    chunk = explore(config, temperature=0.8)
    again = score(wavy_velocity, chunk, 4, config, 0.8, LOG_STD)
    assert torch.equal(again, chunk["log_prob"])
    other = score(lambda y, tau: 1.1 * wavy_velocity(y, tau), chunk, 4, config, 0.8, LOG_STD)
    assert (other != again).all()
    assert (score(wavy_velocity, chunk, 4, config, 0.4, LOG_STD) != again).all()


@pytest.mark.parametrize("kind", ["flow_sde", "flow_cps", "flow_noise"])
@pytest.mark.parametrize("noise_at", ["one", "all"])
def test_the_density_is_that_of_what_was_drawn(kind, noise_at):
    """Normal at the stored transition, and the stored transitions are draws from it."""
    config = ExplorationConfig(kind=kind, noise_at=noise_at, last_step=2)
    chunk = explore(config, batch=3000, temperature=0.8)
    times, step = flow_times(4), chunk["step"]
    drift = wavy_velocity(chunk["y_k"], times[step])
    move = transition(config, chunk["y_k"], drift, times[step], times[step + 1], 0.8, LOG_STD)
    normal = Normal(move.mean, move.std.expand_as(move.mean))
    active = chunk["mask"]
    density = normal.log_prob(chunk["y_next"]).masked_fill(~active, 0.0).sum(dim=(1, 2))
    torch.testing.assert_close(chunk["log_prob"], density)
    drawn = ((chunk["y_next"] - move.mean) / move.std)[active]
    assert float(drawn.mean()) == pytest.approx(0, abs=0.03)
    assert float(drawn.std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.kind}-{c.noise_at}-{c.logprob_at}")
def test_padding_is_zero_all_along_and_never_matters(config):
    noise, mask, _ = start(7)
    chunk = explore(config)
    spoiled = explore(config, noise=noise.masked_fill(~mask, 1e6))
    assert (chunk == spoiled).all()
    assert not chunk["action"][~mask].any()
    for key in ("y_k", "y_next"):
        stored = chunk[key] if chunk[key].dim() == 3 else chunk[key].transpose(0, 1)
        assert not (stored * ~mask).any()
    assert not sample_ode(wavy_velocity, noise, mask, 4)[~mask].any()


def test_one_stochastic_step_per_sample_and_euler_steps_elsewhere():
    """From the stored transition on, the rest of the path is the ODE's; each step is drawn."""
    config, batch = ExplorationConfig(), 400
    chunk = explore(config, batch=batch)
    counts = torch.bincount(chunk["step"], minlength=4)
    assert (counts > batch / 4 - 50).all()
    noise, mask, _ = start(batch)
    y = noise.masked_fill(~mask, 0.0)
    times = torch.linspace(1, 0, 5)
    for index in range(4):
        here = chunk["step"] == index
        assert torch.equal(y[here], chunk["y_k"][here])
        drift = wavy_velocity(y, times[index].expand(batch)).masked_fill(~mask, 0.0)
        y = y - 0.25 * drift
        assert not torch.isclose(y, chunk["y_next"])[here][:, :3, :2].all()
        y[here] = chunk["y_next"][here]
    assert torch.equal(y, chunk["action"])


def test_noise_everywhere_is_a_chain_and_its_density_the_product_of_its_steps():
    every = ExplorationConfig(noise_at="all", logprob_at="all")
    chunk = explore(every)
    assert torch.equal(chunk["y_next"][:, :-1], chunk["y_k"][:, 1:])
    assert torch.equal(chunk["y_next"][:, -1], chunk["action"])
    single = ExplorationConfig(noise_at="all")
    total = 0
    for column in range(4):
        part = chunk.copy()
        for key in ("step", "y_k", "y_next"):
            part[key] = chunk[key][:, column]
        total = total + score(wavy_velocity, part, 4, single, 1.0)
    torch.testing.assert_close(chunk["log_prob"], total)


def test_the_range_of_stochastic_steps_is_kept():
    chunk = explore(ExplorationConfig(first_step=1, last_step=2), batch=100)
    assert set(chunk["step"].tolist()) == {1, 2}
    chunk = explore(ExplorationConfig(noise_at="all", logprob_at="all", first_step=2))
    assert chunk["step"].tolist() == [[2, 3]] * 7
    with pytest.raises(ValueError, match=r"within 0\.\.3"):
        explore(ExplorationConfig(first_step=3, last_step=2))
    with pytest.raises(ValueError, match="noise_at=all"):
        explore(ExplorationConfig(logprob_at="all"))


def test_without_noise_there_is_nothing_to_score():
    with pytest.raises(ValueError, match="no density"):
        explore(ExplorationConfig(noise_level=0.0))
    with pytest.raises(ValueError, match="last_step"):
        explore(ExplorationConfig(kind="flow_cps", first_step=3))


def test_the_generator_decides_everything():
    assert (explore(ExplorationConfig()) == explore(ExplorationConfig())).all()


@pytest.mark.parametrize("config", VARIANTS)
def test_only_scored_steps_count_in_the_density(config):
    noise, mask, generator = start(7)
    whole = sample_explore(wavy_velocity, noise, mask, 4, config, 1.0, generator, LOG_STD)
    noise, mask, generator = start(7)
    part = sample_explore(wavy_velocity, noise, mask, 4, config, 1.0, generator, LOG_STD, 2)
    assert torch.equal(part["action"], whole["action"])
    again = score(wavy_velocity, part, 4, config, 1.0, LOG_STD)
    assert torch.equal(again, part["log_prob"])
    shifted = part.clone()
    shifted["y_next"][..., 2:, :] += 1.0
    assert torch.equal(score(wavy_velocity, shifted, 4, config, 1.0, LOG_STD), again)
    shifted["y_next"][..., 1, :] += 1.0
    assert not torch.isclose(score(wavy_velocity, shifted, 4, config, 1.0, LOG_STD), again).any()
