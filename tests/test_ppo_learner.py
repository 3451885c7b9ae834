"""The PPO learner on a small model: what it covers, what it keeps apart, that it learns."""

import copy
import dataclasses
import io
import threading

import pytest
import torch
from fake_model import FakeModel, rollout

from learners.ppo import PPOLearner
from vlarl.config.schema import (
    ExplorationConfig,
    OptimizerConfig,
    PPOConfig,
    SamplingConfig,
)
from vlarl.errors import ConfigError
from vlarl.policy import Policy

SAMPLING = SamplingConfig(execute_steps=1)
RATES = {"expert": 1e-3, "value": 1e-2}
CONFIG = PPOConfig(
    epochs=2,
    minibatch=16,
    micro_batch=16,
    value_warmup_iterations=0,
    target_kl=0,
    optimizer=OptimizerConfig(learning_rates=RATES),
)


def configured(**changes):
    rates = changes.pop("rates", RATES)
    optimizer = OptimizerConfig(learning_rates=rates)
    return dataclasses.replace(CONFIG, optimizer=optimizer, **changes)


def setup(seed=0, sampling=SAMPLING, keep="context", streams=8, horizon=6, **changes):
    model = FakeModel(seed)
    learner = PPOLearner(model, configured(**changes), sampling, 10, seed)
    generator = torch.Generator().manual_seed(seed)
    batch = rollout(Policy(model, sampling), streams, horizon, generator, keep)
    return model, learner, batch


def weights(model, part=None):
    parts = model.parts()
    chosen = parts if part is None else [part]
    return torch.cat([p.detach().flatten().clone() for name in chosen for p in parts[name]])


@pytest.mark.parametrize("drop_last", [False, True])
def test_every_epoch_is_a_fresh_permutation_of_all_decisions(drop_last, monkeypatch):
    _, learner, batch = setup(epochs=3, minibatch=20, micro_batch=5, drop_last=drop_last)
    seen = []
    surrogate = learner._surrogate

    def spy(work, rows, context):
        seen.append(rows)
        assert torch.equal(context["hidden"], batch["context", "hidden"][rows])
        return surrogate(work, rows, context)

    monkeypatch.setattr(learner, "_surrogate", spy)
    ticks = []
    learner.update(batch, progress=lambda done, total: ticks.append((done, total)))
    per_epoch = 2 if drop_last else 3
    assert ticks == [(i + 1, 3 * per_epoch) for i in range(3 * per_epoch)]
    rows = torch.cat(seen).view(3, -1)
    assert rows.shape[1] == (40 if drop_last else 48)
    for epoch in rows:
        assert len(epoch.unique()) == len(epoch)
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[1], rows[2])


@pytest.mark.parametrize("micro_batch", [5, 8])
def test_accumulated_micro_batches_equal_the_whole_minibatch(micro_batch):
    """Also with a short last minibatch of another size."""
    found = []
    for size in (20, micro_batch):
        model, learner, batch = setup(minibatch=20, micro_batch=size, epochs=1)
        metrics = learner.update(batch)
        found.append((weights(model), metrics))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", ["flow_sde", "flow_cps", "flow_noise"])
@pytest.mark.parametrize("keep", ["context", "inputs"])
def test_the_first_minibatch_finds_the_rollouts_density(kind, keep):
    exploration = ExplorationConfig(kind=kind, last_step=2)
    sampling = dataclasses.replace(SAMPLING, exploration=exploration, rollout_temperature=0.8)
    rates = RATES if keep == "context" else RATES | {"language": 1e-3}
    model, learner, batch = setup(sampling=sampling, keep=keep, rates=rates)
    before = model.exploration_log_std.detach().clone()
    metrics = learner.update(batch)
    assert metrics["ratio_start"] < 1e-5
    assert metrics["log_prob_gap"] < 1e-5
    assert metrics["approximate_kl"] > 0
    steps = [name for name in metrics if name.startswith("approximate_kl/step_")]
    assert len(steps) == 3
    assert torch.equal(model.exploration_log_std, before) == (kind != "flow_noise")


def test_several_scored_steps_learn_too():
    exploration = ExplorationConfig(noise_at="all", logprob_at="all")
    model, learner, batch = setup(sampling=dataclasses.replace(SAMPLING, exploration=exploration))
    before = weights(model, "expert")
    metrics = learner.update(batch)
    assert metrics["ratio_start"] < 1e-5
    assert not torch.equal(weights(model, "expert"), before)


def test_parts_learn_where_they_have_a_rate():
    for rates, keep, trained in (
        (RATES, "context", False),
        (RATES | {"language": 1e-3}, "inputs", True),
    ):
        model, learner, batch = setup(rates=rates, keep=keep)
        before = {part: weights(model, part) for part in model.parts()}
        metrics = learner.update(batch)
        moved = {part: not torch.equal(weights(model, part), before[part]) for part in before}
        assert moved == {"language": trained, "expert": True, "value": True}
        assert ("grad_norm/language" in metrics) == trained


def test_the_value_loss_gives_the_backbone_nothing_and_the_policy_no_smaller_step():
    """Whatever the value coefficient, the policy's parts end up the same."""
    found = []
    for coefficient in (0.0, 1000.0):
        model, learner, batch = setup(
            rates=RATES | {"language": 1e-3}, keep="inputs", value_coefficient=coefficient
        )
        learner.update(batch)
        found.append(torch.cat([weights(model, "language"), weights(model, "expert")]))
    assert torch.equal(*found)


@pytest.mark.parametrize("keep", ["context", "inputs"])
def test_a_warm_up_trains_the_value_head_alone_and_cheaply(keep):
    rates = RATES if keep == "context" else RATES | {"language": 1e-3}
    model, learner, batch = setup(rates=rates, keep=keep, value_warmup_iterations=1, epochs=4)
    before = {part: weights(model, part) for part in model.parts()}
    model.encoded = model.moved = 0
    metrics = learner.update(batch)
    moved = {part: not torch.equal(weights(model, part), before[part]) for part in before}
    assert moved == {"language": False, "expert": False, "value": True}
    assert model.moved == 0
    assert model.encoded == (0 if keep == "context" else len(batch))
    assert "policy_loss" not in metrics
    assert learner.version == 1
    assert "policy_loss" in learner.update(batch)
    assert not torch.equal(weights(model, "expert"), before["expert"])


@pytest.mark.parametrize("keep", ["context", "inputs"])
def test_too_much_kl_ends_the_policys_part_of_the_update(keep):
    rates = {"expert": 0.1, "value": 1e-3} | ({"language": 0.1} if keep == "inputs" else {})
    model, learner, batch = setup(rates=rates, keep=keep, epochs=4, target_kl=1e-4)
    ticks = []
    metrics = learner.update(batch, progress=lambda done, total: ticks.append(done))
    assert 0 < metrics["epochs_run"] < 1
    assert len(ticks) == 4 * 3
    policy_minibatches = round(metrics["epochs_run"] * 3)
    assert model.moved < (8 * 6) * 4 + 16 * (policy_minibatches + 2)
    _, calm, batch = setup(epochs=4, target_kl=1e9)
    assert calm.update(batch)["epochs_run"] == 4


def test_resuming_gives_the_very_same_next_update():
    model, learner, batch = setup()
    learner.update(batch)
    stored = io.BytesIO()
    torch.save({"model": model.state_dict(), "learner": learner.state_dict()}, stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    expected = learner.update(batch)
    twin = copy.deepcopy(model)
    twin.load_state_dict(state["model"])
    resumed = PPOLearner(twin, CONFIG, SAMPLING, 10, seed=99)
    resumed.load_state_dict(state["learner"])
    assert resumed.version == 1
    assert resumed.update(batch) == expected
    assert torch.equal(weights(twin), weights(model))
    assert resumed.version == learner.version == 2


def test_rates_fall_by_the_cosine_over_the_iterations():
    _, learner, batch = setup(epochs=1)
    rates = [learner.update(batch)["learning_rate/expert"] for _ in range(10)]
    assert rates[0] == RATES["expert"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.15 * rates[0]


def test_a_sparse_batch_without_any_success_gives_finite_metrics():
    _, learner, batch = setup()
    for key in ("reward", "value", "next_value"):
        batch[key] = torch.zeros(len(batch))
    metrics = learner.update(batch)
    assert all(torch.isfinite(torch.tensor(value)) for value in metrics.values())


def test_a_gradient_that_is_not_finite_changes_nothing():
    model, learner, batch = setup()
    batch["reward"][0] = torch.nan
    before = weights(model)
    with pytest.raises(FloatingPointError, match="learning_rates"):
        learner.update(batch)
    assert torch.equal(weights(model), before)


def test_below_float32_old_densities_are_recomputed_and_the_gap_is_told(monkeypatch):
    _, learner, batch = setup()
    monkeypatch.setattr(learner, "_below_float32", lambda: True)
    batch["chunk", "log_prob"] += 0.1
    metrics = learner.update(batch)
    assert metrics["ratio_start"] < 1e-5
    assert metrics["log_prob_gap"] == pytest.approx(0.1, abs=1e-4)


def test_configs_that_cannot_train_are_refused():
    with pytest.raises(ConfigError, match="value head"):
        setup(rates={"expert": 1e-3})
    _, learner, batch = setup(minibatch=64, micro_batch=64, drop_last=True)
    with pytest.raises(ConfigError, match="minibatch=48"):
        learner.update(batch)


def test_it_learns_to_act():
    """One action, no dynamics: the reward is closeness to 0.5; at first there is only noise."""
    torch.set_num_threads(1)
    model = FakeModel(active=1, horizon=1, channels=1, tensor_horizon=1)
    with torch.no_grad():
        model.expert[-1].weight.zero_()
        model.expert[-1].bias.zero_()
    config = configured(
        epochs=4, minibatch=128, micro_batch=128, rates={"expert": 3e-3, "value": 1e-2}
    )
    policy, generator = Policy(model, SAMPLING), torch.Generator().manual_seed(0)
    learner = PPOLearner(model, config, SAMPLING, 40, seed=0)

    def closeness(actions):
        return -torch.from_numpy(actions).flatten().sub(0.5).abs()

    rewards = []
    for _ in range(40):
        batch = rollout(policy, 256, 1, generator, reward=closeness)
        rewards.append(float(batch["reward"].mean()))
        learner.update(batch)
    assert sum(rewards[:3]) / 3 < -0.6
    assert sum(rewards[-3:]) / 3 > -0.3


def flat(gradients):
    return torch.cat(list(gradients.values()))


def test_policy_gradient_is_the_slope_of_the_surrogate_and_learns_nothing():
    model, learner, batch = setup(micro_batch=5, minibatch=20)
    before = weights(model)
    gradient = flat(learner.policy_gradient(batch))
    whole = flat(PPOLearner(model, configured(), SAMPLING, 10, 0).policy_gradient(batch))
    torch.testing.assert_close(gradient, whole, atol=1e-6, rtol=1e-4)
    assert torch.equal(weights(model), before)

    def surrogate():
        with torch.no_grad():
            rows = torch.arange(len(batch))
            return float(learner._surrogate(learner._prepare(batch), rows, batch["context"])[0])

    start, first, small = surrogate(), 0, 1e-3
    with torch.no_grad():
        for parameter in model.parts()["expert"]:
            part = gradient[first : first + parameter.numel()].view_as(parameter)
            parameter += small * part / gradient.norm()
            first += parameter.numel()
    assert (surrogate() - start) / small == pytest.approx(float(gradient.norm()), rel=0.05)


def test_fresh_decisions_learn_alike_with_either_loss():
    found = []
    for staleness in (None, 0):
        model, learner, batch = setup()
        metrics = learner.update(batch, max_staleness=staleness)
        found.append(weights(model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert metrics["behavior_weight_mean"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["behavior_weight_truncated"] == metrics["dropped_over_age"] == 0
    assert metrics["behavior_kl"] == pytest.approx(0.0, abs=1e-6)


def test_decisions_over_age_serve_for_advantages_and_for_nothing_else():
    _, learner, batch = setup(normalize_advantages=False)
    learner.version = 5
    # Six decisions of each of eight streams; the first two of each are too old.
    batch["version"] = torch.tensor([1, 1, 3, 4, 5, 5]).repeat(8)
    whole = learner._prepare(batch)
    work = learner._prepare(batch, max_staleness=2)
    young = batch["version"] >= 3
    assert len(work.batch) == 32
    assert torch.equal(work.advantage, whole.advantage[young])
    assert torch.equal(work.target, whole.target[young])
    assert torch.equal(work.batch["chunk", "y_k"], batch["chunk", "y_k"][young])
    metrics = learner.update(batch, max_staleness=2)
    assert metrics["dropped_over_age"] == 16
    assert metrics["batch_age"] == 2
    assert metrics["batch_age_mean"] == (2 + 1 + 0 + 0) / 4


def test_decisions_of_another_policy_are_weighed_by_the_proximal_one():
    _, learner, batch = setup(behavior_weight_cap=1.5)
    batch["chunk", "log_prob"][:24] -= 0.2
    batch["chunk", "log_prob"][24:] -= 1.0
    metrics = learner.update(batch, max_staleness=0)
    half = torch.tensor(0.2).exp()
    assert metrics["behavior_weight_mean"] == pytest.approx(float(half + 1.5) / 2, rel=1e-4)
    assert metrics["behavior_weight_truncated"] == 0.5
    # The clip range is around the proximal policy, whoever acted.
    assert metrics["ratio_start"] < 1e-5
    assert metrics["log_prob_gap"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("keep", ["context", "inputs"])
def test_the_values_clip_range_is_around_the_proximal_one_whoever_acted(keep, warmup):
    """With lambda = 1 targets do not depend on the acting values, so that nothing else does."""
    rates = RATES if keep == "context" else {"language": 1e-3, **RATES}
    found = []
    for acted in (0.0, 3.0):
        model, learner, batch = setup(
            keep=keep, rates=rates, gae_lambda=1.0, value_warmup_iterations=warmup
        )
        before = weights(model, "value")
        batch["value"] += acted
        metrics = learner.update(batch, max_staleness=0)
        found.append((weights(model, "value"), metrics["value_loss"]))
    assert not torch.equal(found[0][0], before)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_weights_change_with_the_lock_held_and_gradients_need_none(monkeypatch):
    model, _, batch = setup()
    lock = threading.Lock()
    learner = PPOLearner(model, CONFIG, SAMPLING, 10, 0, weights_lock=lock)
    held = []
    learner._optimizer.register_step_pre_hook(lambda *_: held.append(lock.locked()))
    velocity = model.velocity
    monkeypatch.setattr(model, "velocity", lambda *a: (held.append(lock.locked()), velocity(*a))[1])
    learner.update(batch)
    assert held.count(True) == 2 * 3
    assert held.count(False) == 2 * 3
