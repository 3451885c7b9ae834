"""Flow matching: the path and its inverse predictions, and what the loss must not see."""

import pytest
import torch

from vlarl.config.schema import FlowConfig
from vlarl.flow import (
    flow_matching_loss,
    interpolate,
    predict_clean,
    predict_noise,
    sample_tau,
    target_velocity,
)


def chunks(seed=0, batch=5, horizon=4, channels=3):
    generator = torch.Generator().manual_seed(seed)
    y0, y1 = torch.randn(2, batch, horizon, channels, generator=generator)
    return y0, y1, torch.rand(batch, generator=generator)


def test_the_path_runs_from_clean_at_0_to_noise_at_1():
    y0, y1, _ = chunks()
    assert torch.equal(interpolate(y0, y1, torch.zeros(5)), y0)
    assert torch.equal(interpolate(y0, y1, torch.ones(5)), y1)


def test_predictions_invert_the_path():
    y0, y1, tau = chunks()
    y, velocity = interpolate(y0, y1, tau), target_velocity(y0, y1)
    torch.testing.assert_close(predict_clean(y, tau, velocity), y0)
    torch.testing.assert_close(predict_noise(y, tau, velocity), y1)


def test_the_loss_weighs_channels_alike_whatever_their_number_of_steps():
    velocity, target = torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)
    target[0, :, 0], target[0, :, 1] = 1.0, 3.0
    mask = torch.zeros(1, 4, 3, dtype=torch.bool)
    mask[0, :, 0], mask[0, :1, 1] = True, True
    assert flow_matching_loss(velocity, target, mask).tolist() == [(1.0 + 9.0) / 2]


def test_padding_changes_neither_loss_nor_gradient_even_with_nan():
    y0, y1, _ = chunks()
    mask = torch.zeros_like(y0, dtype=torch.bool)
    mask[:, :3, :2] = True
    velocity = y0.clone().requires_grad_()
    loss = flow_matching_loss(velocity, y1, mask)
    spoiled = y1.masked_fill(~mask, torch.nan)
    assert torch.equal(flow_matching_loss(velocity, spoiled, mask), loss)
    flow_matching_loss(velocity, spoiled, mask).sum().backward()
    assert not velocity.grad[~mask].any()
    assert velocity.grad[mask].all()


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.5), (1.5, 1.0)])
def test_beta_times_have_the_beta_mean(alpha, beta):
    config = FlowConfig(alpha=alpha, beta=beta)
    tau = sample_tau(20_000, config, torch.Generator().manual_seed(0))
    assert ((tau >= 0) & (tau <= 1)).all()
    assert float(tau.mean()) == pytest.approx(alpha / (alpha + beta), abs=0.01)


def test_logit_normal_times_have_normal_logits():
    config = FlowConfig(tau_distribution="logit_normal")
    logits = sample_tau(20_000, config, torch.Generator().manual_seed(0)).logit()
    assert float(logits.mean()) == pytest.approx(0, abs=0.03)
    assert float(logits.std()) == pytest.approx(1, abs=0.03)


def test_times_depend_on_the_generator_alone_and_unknown_names_are_refused():
    drawn = [sample_tau(4, FlowConfig(), torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn)
    with pytest.raises(ValueError, match="logit_normal"):
        sample_tau(1, FlowConfig(tau_distribution="uniform"), torch.Generator())
