"""Policy and PPO learner with the real tiny model: densities agree, the right parts learn."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_model import rollout
from padding import lengthened, moved_right

from learners.ppo import PPOLearner
from vlarl.config.load import load_config
from vlarl.config.schema import ExplorationConfig, OptimizerConfig, PPOConfig, SamplingConfig
from vlarl.flow import flow_matching_loss, interpolate, target_velocity
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.ppo import clipped_surrogate, clipped_value_loss
from vlarl.sampler import sample_explore, score

SAMPLING = SamplingConfig(denoising_steps=4, execute_steps=5)
INSTRUCTION = "Pick up the red cube"


@pytest.fixture(scope="module", params=["tiny", "tiny-pooled"])
def model(request):
    """Random weights in which nothing is zero any more; the pooled one is what ships."""
    torch.set_num_threads(1)
    contract = tabletop_contract()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = build(request.param, contract, channel_bounds_codec(contract))
        with torch.no_grad():
            for parameters in built.parts().values():
                for parameter in parameters:
                    parameter.add_(0.02 * torch.randn_like(parameter))
    return built.eval()


def observed(n, seed=0):
    random = np.random.default_rng(seed)
    cameras = ("ego", "cam_right_wrist")
    images = {name: random.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for name in cameras}
    return Observations(images, [INSTRUCTION] * n)


def explored(model, n=6, keep="context", sampling=SAMPLING):
    generator = torch.Generator().manual_seed(0)
    return Policy(model, sampling).act(observed(n), generator, True, keep)


def scored(model, context, chunk, sampling=SAMPLING):
    return score(
        lambda y, tau: model.velocity(context, y, tau, chunk["mask"]),
        chunk,
        sampling.denoising_steps,
        sampling.exploration,
        sampling.rollout_temperature,
        model.exploration_log_std,
    )


SAMPLINGS = {
    kind: dataclasses.replace(SAMPLING, exploration=ExplorationConfig(kind=kind, last_step=2))
    for kind in ("flow_sde", "flow_cps", "flow_noise")
} | {"demo": load_config("configs/rl/demo.yaml").sampling}
every_sampling = pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)


def log_ratio(new, chunk):
    """The largest, of any sample."""
    return float((new - chunk["log_prob"]).abs().max())


@every_sampling
def test_scoring_at_the_same_shapes_gives_ratio_1_kl_0_and_nothing_clipped(model, sampling):
    """Although sampling uses the prepared context and scoring the stored one."""
    decisions = explored(model, sampling=sampling)
    context, chunk = decisions.context, decisions.chunk
    assert context.get("shared") is None
    assert (model.prepare(context).get("shared") is not None) == model.expert_config.prefix
    with torch.no_grad():
        again = scored(model, context, chunk, sampling)
        seen_otherwise = scored(model, context[[5, 0, 1, 2, 3, 4]], chunk, sampling)
    assert torch.equal(again, chunk["log_prob"])
    _, stats = clipped_surrogate(again, chunk["log_prob"], torch.ones(6), 0.2)
    assert stats["ratio"].tolist() == [1.0] * 6
    assert not stats["kl"].any()
    assert not stats["clipped"].any()
    assert log_ratio(seen_otherwise, chunk) > 1e-2


@every_sampling
def test_another_composition_of_the_batch_hardly_changes_the_ratio(model, sampling):
    decisions = explored(model, sampling=sampling)
    context, chunk = decisions.context, decisions.chunk
    with torch.no_grad():
        for rows in ([0, 1], [5], [3, 0, 3, 3, 1, 2, 5, 4, 4, 0, 0]):
            found = scored(model, context[rows], chunk[rows], sampling)
            assert log_ratio(found, chunk[rows]) < 1e-3


@every_sampling
@pytest.mark.parametrize("padded", [moved_right, lengthened])
def test_other_padding_of_the_prompt_hardly_changes_the_ratio(model, sampling, padded):
    decisions = explored(model, keep="inputs", sampling=sampling)
    with torch.no_grad():
        context = model.encode(padded(decisions.inputs, 3))
        found = scored(model, context, decisions.chunk, sampling)
    assert log_ratio(found, decisions.chunk) < 1e-3


def outcome(model, context, chunk):
    """Of the first sample: velocity, training loss, log-probability, value."""
    tau = torch.linspace(0.1, 0.9, len(chunk))
    clean, noise, mask = chunk["action"], chunk["y_k"], chunk["mask"]
    velocity = model.velocity(context, interpolate(clean, noise, tau), tau, mask)
    loss = flow_matching_loss(velocity, target_velocity(clean, noise), mask)
    with torch.no_grad():
        log_prob = scored(model, context, chunk)
    every = (velocity, loss, log_prob, model.value(context))
    return [tensor[0].detach() for tensor in every]


def spoil_padded_channels(_context, chunk):
    for key in ("action", "y_k", "y_next"):
        chunk[key][..., ~chunk["mask"].any(dim=1)[0]] = 1e3


def spoil_padded_steps(_context, chunk):
    for key in ("action", "y_k", "y_next"):
        chunk[key][:, ~chunk["mask"].any(dim=2)[0]] = 1e3


def spoil_padded_tokens(context, _chunk):
    context["hidden"][~context["mask"]] = 1e3


def spoil_other_samples(context, chunk):
    context["hidden"][1:] += torch.randn_like(context["hidden"][1:])
    context["mask"][1:, -30:] = False
    for key in ("action", "y_k", "y_next"):
        chunk[key][1:] *= -2


@pytest.mark.parametrize(
    "spoil",
    [spoil_padded_channels, spoil_padded_steps, spoil_padded_tokens, spoil_other_samples],
)
def test_what_is_not_the_samples_own_changes_nothing_of_it(model, spoil):
    context = explored(model, 3).context
    mask = model.codec.mask(3)
    mask[:, 5:] = False
    generator = torch.Generator().manual_seed(0)
    chunk = sample_explore(
        lambda y, tau: model.velocity(context, y, tau, mask),
        torch.randn(mask.shape, generator=generator),
        mask,
        SAMPLING.denoising_steps,
        SAMPLING.exploration,
        1.0,
        generator,
    ).detach()
    before = outcome(model, context, chunk)
    spoiled = context.clone(), chunk.clone()
    spoil(*spoiled)
    assert not all((a == b).all() for a, b in zip(spoiled, (context, chunk), strict=True))
    for found, expected in zip(outcome(model, *spoiled), before, strict=True):
        assert torch.equal(found, expected)


def test_the_value_loss_reaches_the_value_head_alone_and_the_policy_loss_all_else(model):
    decisions = explored(model, keep="inputs")
    context, chunk = model.encode(decisions.inputs), decisions.chunk
    value_loss = clipped_value_loss(
        model.value(context), decisions.value, decisions.value + 1.0, clip=0.2
    )
    advantage = torch.linspace(-1, 1, 6)
    policy_loss, _ = clipped_surrogate(
        scored(model, context, chunk), chunk["log_prob"], advantage, 0.2
    )
    reached = {}
    for name, loss in (("value", value_loss), ("policy", policy_loss)):
        model.zero_grad()
        loss.backward(retain_graph=True)
        reached[name] = {
            part
            for part, parameters in model.parts().items()
            if any(p.grad is not None and p.grad.any() for p in parameters)
        }
    model.zero_grad()
    assert reached["value"] == {"value"}
    assert reached["policy"] == {"vision", "language", "expert", "expert_biases"}


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
        return Policy(model, sampling).act(observed(3), None, explore=False, noise=noise)

    first = act(noise)
    assert first.chunk is None
    assert first.context is None
    assert np.array_equal(first.actions, act(noise).actions)
    assert not np.array_equal(first.actions, act(-noise).actions)
    cold = dataclasses.replace(SAMPLING, eval_temperature=0.0)
    assert np.array_equal(act(noise, cold).actions, act(-noise, cold).actions)
    assert torch.equal(policy.value(observed(3)), first.value)


def test_rollouts_may_start_colder_than_they_explore(model):
    noise = torch.randn(3, *Policy(model, SAMPLING).noise_shape)

    def act(noise, seed, start):
        sampling = dataclasses.replace(SAMPLING, rollout_start_temperature=start)
        generator = torch.Generator().manual_seed(seed)
        policy = Policy(model, sampling)
        return policy.act(observed(3), generator, True, noise=noise).actions

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

    batch = rollout(Policy(model, SAMPLING), 4, 2, generator, keep, observe=observed)
    metrics = learner.update(batch)
    assert metrics["ratio_start"] < 1e-3
    assert metrics["log_prob_gap"] < 1e-3
    trained = {name.partition("/")[2] for name in metrics if name.startswith("grad_norm/")}
    assert trained == {*rates, "expert_biases"}
    assert all(metrics[f"grad_norm/{part}"] > 0 for part in trained)
    model.load_state_dict(saved)
