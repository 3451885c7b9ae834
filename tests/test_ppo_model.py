"""Policy and PPO learner with the real tiny model: densities agree, the right parts learn."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_model import rollout

from learners.ppo import PPOLearner
from vlarl.config.schema import ExplorationConfig, OptimizerConfig, PPOConfig, SamplingConfig
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.policy import Policy
from vlarl.sampler import score

SAMPLING = SamplingConfig(denoising_steps=4, execute_steps=5)
INSTRUCTION = "Pick up the red cube"


@pytest.fixture(scope="module")
def model():
    """Random weights in which nothing is zero any more."""
    torch.set_num_threads(1)
    contract = tabletop_contract()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build("tiny", contract, channel_bounds_codec(contract))
        with torch.no_grad():
            for parameters in built.parts().values():
                for parameter in parameters:
                    parameter.add_(0.02 * torch.randn_like(parameter))
    return built


def images(n, seed=0):
    random = np.random.default_rng(seed)
    cameras = ("ego", "cam_right_wrist")
    return {name: random.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for name in cameras}


def explored(model, n=6, keep="context", sampling=SAMPLING):
    generator = torch.Generator().manual_seed(0)
    return Policy(model, sampling).act(images(n), [INSTRUCTION] * n, generator, True, keep)


def scored(model, context, chunk, sampling=SAMPLING):
    return score(
        lambda y, tau: model.velocity(context, y, tau, chunk["mask"]),
        chunk,
        sampling.denoising_steps,
        sampling.exploration,
        sampling.rollout_temperature,
        model.exploration_log_std,
    )


@pytest.mark.parametrize("kind", ["flow_sde", "flow_cps", "flow_noise"])
def test_the_density_is_the_same_at_the_same_shapes_and_nearly_so_at_others(model, kind):
    exploration = ExplorationConfig(kind=kind, last_step=2)
    sampling = dataclasses.replace(SAMPLING, exploration=exploration)
    decisions = explored(model, sampling=sampling)
    context, chunk = decisions.context, decisions.chunk
    with torch.no_grad():
        again = scored(model, context, chunk, sampling)
        few = scored(model, context[:2], chunk[:2], sampling)
    assert torch.equal(again, chunk["log_prob"])
    assert float((few - again[:2]).abs().max()) < 1e-3


def test_decisions_have_the_shapes_they_say(model):
    decisions = explored(model, keep="inputs")
    channels = len(model.contract.embodiment.channels)
    assert decisions.actions.shape == (6, 5, channels)
    assert decisions.actions.dtype == np.float32
    assert decisions.value.shape == (6,)
    assert decisions.context is None
    assert not any(tensor.is_inference() for tensor in decisions.chunk.values())
    assert torch.equal(model.value(model.encode(decisions.inputs)), decisions.value)


def test_given_noise_decides_the_action_and_its_temperature_is_the_configured_one(model):
    policy = Policy(model, SAMPLING)
    noise = torch.randn(3, *policy.noise_shape, generator=torch.Generator().manual_seed(1))

    def act(noise, sampling=SAMPLING):
        return Policy(model, sampling).act(
            images(3), [INSTRUCTION] * 3, None, explore=False, noise=noise
        )

    first = act(noise)
    assert first.chunk is None
    assert first.context is None
    assert np.array_equal(first.actions, act(noise).actions)
    assert not np.array_equal(first.actions, act(-noise).actions)
    cold = dataclasses.replace(SAMPLING, eval_temperature=0.0)
    assert np.array_equal(act(noise, cold).actions, act(-noise, cold).actions)
    assert torch.equal(policy.value(images(3), [INSTRUCTION] * 3), first.value)


def test_rollouts_may_start_colder_than_they_explore(model):
    noise = torch.randn(3, *Policy(model, SAMPLING).noise_shape)

    def act(noise, seed, start):
        sampling = dataclasses.replace(SAMPLING, rollout_start_temperature=start)
        generator = torch.Generator().manual_seed(seed)
        policy = Policy(model, sampling)
        return policy.act(images(3), [INSTRUCTION] * 3, generator, True, noise=noise).actions

    assert np.array_equal(act(noise, 0, 0.0), act(-noise, 0, 0.0))
    assert not np.array_equal(act(noise, 0, 0.0), act(noise, 1, 0.0))
    assert np.array_equal(act(noise, 0, None), act(noise, 0, SAMPLING.rollout_temperature))
    assert not np.array_equal(act(noise, 0, None), act(-noise, 0, None))


@pytest.mark.parametrize("keep", ["context", "inputs"])
def test_an_update_starts_at_ratio_1_and_reaches_the_parts_that_train(model, keep):
    rates = {"expert": 1e-4, "value": 1e-3}
    if keep == "inputs":
        rates |= {"language": 1e-4, "vision": 1e-4}
    config = PPOConfig(
        epochs=1,
        minibatch=8,
        micro_batch=4,
        value_warmup_iterations=0,
        optimizer=OptimizerConfig(learning_rates=rates),
    )
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner = PPOLearner(model, config, SAMPLING, 10, 0)
    generator = torch.Generator().manual_seed(0)

    batch = rollout(Policy(model, SAMPLING), 4, 2, generator, keep, observe=images)
    metrics = learner.update(batch)
    assert metrics["ratio_start"] < 1e-3
    assert metrics["log_prob_gap"] < 1e-3
    trained = {name.partition("/")[2] for name in metrics if name.startswith("grad_norm/")}
    assert trained == {*rates, "expert_biases"}
    assert all(metrics[f"grad_norm/{part}"] > 0 for part in trained)
    model.load_state_dict(saved)
