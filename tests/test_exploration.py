"""Stochastic denoising steps: documented schedules, the Euler limit, the density."""

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from vlarl.config.schema import ExplorationConfig
from vlarl.exploration import (
    bounded_std,
    correlated,
    euler_step,
    flow_times,
    gaussian_log_prob,
    transition,
)

KINDS = ("flow_sde", "flow_cps", "flow_noise")


def step_of(config, index, steps, temperature=1.0, log_std=None, batch=2):
    generator = torch.Generator().manual_seed(index)
    y, velocity = torch.randn(2, batch, 3, 4, generator=generator)
    times = flow_times(steps)[:, None].expand(-1, batch)
    here = (y, velocity, times[index], times[index + 1])
    return transition(config, *here, temperature, log_std), euler_step(*here)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (4, (0.500, 0.433, 0.250, 0.144)),
        (10, (0.500, 0.474, 0.316, 0.242, 0.194, 0.158, 0.129, 0.104, 0.079, 0.053)),
    ],
)
def test_sde_standard_deviations_are_the_documented_ones(steps, expected):
    config = ExplorationConfig(noise_level=0.5)
    found = [float(step_of(config, index, steps)[0].std[0]) for index in range(steps)]
    assert found == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_without_noise_the_sde_step_is_the_euler_step_bit_for_bit(steps):
    for index in range(steps):
        step, euler = step_of(ExplorationConfig(noise_level=0.0), index, steps)
        assert torch.equal(step.mean, euler)
        assert not step.std.any()


def test_cps_is_the_euler_step_without_noise_and_silent_at_the_last():
    for index in range(4):
        step, euler = step_of(ExplorationConfig(kind="flow_cps", noise_level=0.0), index, 4)
        torch.testing.assert_close(step.mean, euler)
    for steps in (4, 10):
        last, _ = step_of(ExplorationConfig(kind="flow_cps"), steps - 1, steps)
        assert not last.std.any()


def test_cps_keeps_the_total_of_old_and_fresh_noise():
    """With no clean part, the variance after a step is that of the next flow time."""
    noise = torch.ones(1, 1, 1)
    times = flow_times(4)[:, None]
    step = transition(ExplorationConfig(kind="flow_cps"), noise, noise, times[0], times[1])
    total = step.mean.square() + step.std.square()
    torch.testing.assert_close(total.flatten(), times[1].square())


def test_flow_noise_follows_the_ode_with_a_bounded_standard_deviation():
    config = ExplorationConfig(kind="flow_noise")
    log_std = torch.tensor([-100.0, -1.9, 0.0, 100.0], requires_grad=True)
    step, euler = step_of(config, 1, 4, log_std=log_std)
    assert torch.equal(step.mean, euler)
    std = step.std[0, 0].detach()
    assert (std[1:] >= std[:-1]).all()
    assert float(std[0]) == pytest.approx(config.std_low)
    assert float(std[3]) == pytest.approx(config.std_high)
    assert float(std[1]) == pytest.approx(float(log_std[1].detach().exp()), rel=0.05)
    slightly_out = torch.tensor([0.0], requires_grad=True)
    bounded_std(slightly_out, config.std_low, config.std_high).sum().backward()
    assert slightly_out.grad > 0


@pytest.mark.parametrize("kind", KINDS)
def test_temperature_scales_the_standard_deviation_and_not_the_drift(kind):
    config, log_std = ExplorationConfig(kind=kind), torch.zeros(4)
    cold, _ = step_of(config, 1, 4, temperature=0.5, log_std=log_std)
    warm, _ = step_of(config, 1, 4, temperature=1.0, log_std=log_std)
    assert torch.equal(cold.mean, warm.mean)
    assert torch.equal(2 * cold.std, warm.std)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_log_prob_is_the_normal_density_of_the_active_entries(reduction):
    generator = torch.Generator().manual_seed(0)
    x, mean = torch.randn(2, 3, 4, 5, generator=generator)
    std = torch.rand(3, 1, 5, generator=generator) + 0.1
    mask = torch.rand(3, 4, 5, generator=generator) < 0.5
    found = gaussian_log_prob(x, mean, std, mask, reduction)
    each = Normal(mean, std).log_prob(x)
    expected = [getattr(each[row][mask[row]], reduction)() for row in range(3)]
    torch.testing.assert_close(found, torch.stack(expected))
    spoiled = x.masked_fill(~mask, 1e9)
    assert torch.equal(gaussian_log_prob(spoiled, mean, std, mask, reduction), found)


def correlation_matrix(steps, correlation):
    """[steps, steps] what the noise of a chunk is documented to have."""
    gap = torch.arange(steps)[:, None] - torch.arange(steps)
    return torch.tensor(correlation) ** gap.abs()


def test_correlated_noise_has_the_documented_covariance():
    """Its linear map, read off the unit vectors, squares to the correlation matrix."""
    unit = torch.eye(5)[:, :, None]
    mapping = correlated(unit, 0.8)[..., 0].T
    torch.testing.assert_close(mapping @ mapping.T, correlation_matrix(5, 0.8))
    assert correlated(unit, 0.0) is unit


@pytest.mark.parametrize("scored", [1, 3, 4])
def test_correlated_log_prob_is_the_joint_density_of_the_leading_steps(scored):
    generator = torch.Generator().manual_seed(1)
    x, mean = torch.randn(2, 6, 4, 2, generator=generator)
    std = torch.rand(6, 1, 2, generator=generator) + 0.1
    mask = torch.zeros(6, 4, 2, dtype=torch.bool)
    mask[:, :scored, 0] = True
    found = gaussian_log_prob(x, mean, std, mask, correlation=0.7)
    covariance = std[:, :, :1].square() * correlation_matrix(scored, 0.7)
    joint = MultivariateNormal(mean[:, :scored, 0], covariance)
    torch.testing.assert_close(found, joint.log_prob(x[:, :scored, 0]))
    spoiled = x.masked_fill(~mask, 1e9)
    assert torch.equal(gaussian_log_prob(spoiled, mean, std, mask, correlation=0.7), found)


def test_a_step_without_noise_has_no_density():
    zero = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match="noise_level"):
        gaussian_log_prob(zero, zero, torch.zeros(1, 1, 1), torch.ones(1, 2, 2, dtype=torch.bool))


def test_unknown_names_and_a_missing_parameter_are_refused():
    with pytest.raises(ValueError, match="allowed: flow_sde"):
        step_of(ExplorationConfig(kind="flow"), 0, 4)
    with pytest.raises(ValueError, match="exploration_log_std"):
        step_of(ExplorationConfig(kind="flow_noise"), 0, 4)
    one = torch.ones(1, 1, 1)
    with pytest.raises(ValueError, match="sum, mean"):
        gaussian_log_prob(one, one, one, one.bool(), "max")
