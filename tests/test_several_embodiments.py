"""One checkpoint for several embodiments: prompts, masks and codecs by row, RL on any of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_model import rollout
from test_model import random_images

from actors.controller import train
from envservers.registry import make_suite
from learners.action_loss import draw, drawn_loss, encode_chunks
from learners.ppo import PPOLearner
from learners.supervised import SupervisedTrainer
from vlarl.config.embodiments import load_embodiment
from vlarl.config.load import load_config
from vlarl.config.schema import (
    FlowConfig,
    OptimizerConfig,
    PPOConfig,
    SamplingConfig,
    SupervisedConfig,
)
from vlarl.contract import Contract
from vlarl.data.samples import ChunkBatch
from vlarl.errors import CheckpointError
from vlarl.model.expert_config import PROJECTIONS
from vlarl.model.presets import build, channel_bounds_codec, new_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.types import CameraSpec

ARM, WIDOW, COUNTER = map(load_embodiment, ("tabletop_arm", "widowx_eef", "counting"))
DESIGNS = pytest.mark.parametrize("design", PROJECTIONS)
WHICH = np.array([1, 0, 2, 1])
SENTENCES = ["put the carrot on the plate", "go", "count", "put the spoon on the towel"]


def contract_of(size: int = 64) -> Contract:
    cameras = tuple(CameraSpec(name, size, size) for name in ARM.cameras)
    # What the counting suite says is longer than most.
    said = ["count_green with seed 1000000"]
    return new_contract(cameras, ARM, instructions=said, further_embodiments=(WIDOW, COUNTER))


def model_of(folder: Path, design: str, size: int = 64) -> QwenVLA:
    """Random weights in which nothing is zero any more."""
    file = folder / f"{design}.yaml"
    file.write_text(f"base: tiny-pooled\nexpert: {{projection: {design}}}\n")
    contract = contract_of(size)
    torch.manual_seed(0)
    first, *further = (channel_bounds_codec(contract, place) for place in range(3))
    model = build(str(file), contract, first, further_codecs=further)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def mixed_batch(beyond: float = 0.0) -> ChunkBatch:
    """Four rows; actions at half of each channel's upper bound, `beyond` where they have none."""
    actions = np.full((4, 16, 7), beyond, np.float32)
    for row, place in enumerate(WHICH):
        robot = (ARM, WIDOW, COUNTER)[place]
        high = [channel.high / 2 for channel in robot.channels]
        actions[row, : robot.horizon, : len(high)] = high
    return ChunkBatch(Observations(random_images(4), SENTENCES, embodiment=WHICH), actions)


def test_contracts_hold_several_embodiments() -> None:
    contract = contract_of()
    assert contract.embodiments == (ARM, WIDOW, COUNTER)
    assert contract.horizons == (8, 16, 8)
    written = json.loads(json.dumps(contract.to_dict()))
    assert Contract.from_dict(written) == contract
    del written["further_embodiments"]
    older = Contract.from_dict(written)
    assert older == dataclasses.replace(contract, further_embodiments=())
    assert contract.place_of("some/folder/widowx_eef.yaml") == 1
    with pytest.raises(CheckpointError, match="drives tabletop_arm, widowx_eef, counting, not 'x'"):
        contract.place_of("x")
    for changes, words in (
        ({"further_embodiments": (ARM,)}, "a name of its own"),
        ({"tensor_horizon": 8}, "'widowx_eef': horizon 16 is not within 1..8"),
        ({"tensor_channels": 6}, "7 action channels exceed 6"),
        ({"state_mode": "dit", "state_dim": 3}, "single embodiment, not 3"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(contract, **changes)


def test_the_environment_is_held_against_the_embodiment_it_names() -> None:
    contract = contract_of(32)
    suite = make_suite("counting", 1, image_size=32)
    spec = suite.spec
    suite.close()
    contract.check(spec)
    for changes, words in (
        ({"embodiment": "widowx_eef"}, "action channels: checkpoint .'delta_x'"),
        ({"embodiment": "gr00t"}, "checkpoint 'tabletop_arm' or 'widowx_eef' or 'counting'"),
        ({"control_hz": 7.0}, "control frequency: checkpoint 5 Hz, environment 7 Hz"),
    ):
        with pytest.raises(CheckpointError, match=words):
            contract.check(dataclasses.replace(spec, **changes))


def test_each_row_is_told_its_own_robot(tmp_path: Path) -> None:
    model = model_of(tmp_path, "zero_pad")
    inputs = model.processor(mixed_batch().observations)
    assert inputs["embodiment"].tolist() == WHICH.tolist()
    for row, (place, horizon) in enumerate(zip(WHICH, (16, 8, 8, 16), strict=True)):
        used = int(inputs["attention_mask"][row].sum())
        text = model.processor.tokenizer.decode(inputs["input_ids"][row, :used])
        assert f"The robot is {(ARM, WIDOW, COUNTER)[place].robot_tag} with single arm" in text
        assert f"the next {horizon} control actions" in text
    images = random_images(2)
    silent = model.processor(Observations(images, ["go", "go"]))
    first = model.processor(Observations(images, ["go", "go"], embodiment=np.zeros(2, np.int64)))
    assert all(torch.equal(value, first[key]) for key, value in silent.items())
    for which in (np.array([0, 3]), np.array([0]), np.array([-1, 0])):
        with pytest.raises(ValueError, match="expected 2 places in the contract's 3 embodiments"):
            model.processor(Observations(images, ["go", "go"], embodiment=which))


def test_chunks_of_a_mixed_batch_have_their_own_masks_and_scales(tmp_path: Path) -> None:
    model = model_of(tmp_path, "zero_pad")
    codecs = tuple(model.codecs.values())
    clean, mask = encode_chunks(codecs, mixed_batch())
    again, _ = encode_chunks(codecs, mixed_batch(beyond=9.0))
    assert torch.equal(clean, again)
    assert not clean[~mask].any()
    for row, place in enumerate(WHICH):
        robot = (ARM, WIDOW, COUNTER)[place]
        expected = torch.zeros(16, 64, dtype=torch.bool)
        expected[: robot.horizon, : len(robot.channels)] = True
        assert torch.equal(mask[row], expected)
        # Half of the upper bound is at 0.5 of a symmetric range, in the middle of one from zero.
        unit = [0.0 if channel.low == 0 else 0.5 for channel in robot.channels]
        torch.testing.assert_close(clean[row, 0, : len(unit)], torch.tensor(unit))


@DESIGNS
def test_the_loss_of_a_mixed_batch_is_the_mean_of_its_rows(tmp_path: Path, design: str) -> None:
    """With noise drawn alike; and nothing beyond a row's own channels and steps counts."""
    model = model_of(tmp_path, design)
    clean, mask = encode_chunks(tuple(model.codecs.values()), mixed_batch())
    context = model.encode(model.processor(mixed_batch().observations))
    y = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    tau = torch.full((4,), 0.3)
    together = model.velocity(context, y, tau, mask)
    assert not together[~mask].any()
    assert (together[mask] != 0).all()
    spoiled = y.masked_fill(~mask, 1e3)
    assert torch.equal(model.velocity(context, spoiled, tau, mask), together)
    for row in range(4):
        rows = slice(row, row + 1)
        alone = model.velocity(context[rows], y[rows], tau[rows], mask[rows])
        torch.testing.assert_close(alone[0], together[row], atol=2e-6, rtol=1e-5)
    draws = draw(clean.shape, FlowConfig(repeats=3), torch.Generator().manual_seed(0))
    loss = drawn_loss(model, context, clean, mask, draws)
    model.zero_grad()
    loss.backward()
    gradient = model.expert.action_in.get_parameter(
        "1.0.weight" if design == "multi_mlp" else "0.weight"
    ).grad
    assert gradient is not None
    reached = (gradient != 0).any(dim=0)
    used = {"zero_pad": 7, "multi_mlp": 7, "concatenation": 5 + 7 + 3}[design]
    assert int(reached.sum()) == used


class Mixture:
    """Eight frames of three embodiments, one after the other."""

    sentences = tuple(SENTENCES)

    def __len__(self) -> int:
        return 8

    def chunks(self, frames: np.ndarray) -> ChunkBatch:
        whole, rows = mixed_batch(), frames % 4
        seen = whole.observations
        images = {name: image[rows] for name, image in seen.images.items()}
        sentences = [SENTENCES[row] for row in rows]
        return ChunkBatch(
            Observations(images, sentences, embodiment=WHICH[rows]), whole.actions[rows]
        )


@DESIGNS
def test_the_trainer_takes_mixed_batches_also_from_remembered_contexts(
    tmp_path: Path, design: str
) -> None:
    losses = []
    for gigabytes in (1.0, 0.0):
        config = SupervisedConfig(
            steps=3,
            batch_size=4,
            flow=FlowConfig(repeats=2),
            optimizer=OptimizerConfig(learning_rates={"expert": 1e-3}),
            context_gigabytes=gigabytes,
        )
        model = model_of(tmp_path, design)
        before = {name: t.clone() for name, t in model.expert.state_dict().items()}
        losses.append(SupervisedTrainer(model, config, Mixture(), None, 0).train()["action_loss"])
        changed = {n for n, t in model.expert.state_dict().items() if (t != before[n]).any()}
        assert {n for n in before if n.startswith(("action_in", "action_out"))} <= changed
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@DESIGNS
def test_checkpoints_hold_every_embodiment(tmp_path: Path, design: str) -> None:
    model = model_of(tmp_path, design)
    model.save_pretrained(tmp_path / "model")
    again = QwenVLA.from_pretrained(tmp_path / "model")
    assert again.contract == model.contract
    assert again.expert_config == model.expert_config
    for name, codec in model.codecs.items():
        found = again.codecs[name]
        assert found.stats.to_dict() == codec.stats.to_dict()
        assert found.horizon == codec.horizon
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    file = tmp_path / "model/action_stats.json"
    stats = json.loads(file.read_text())
    del stats["further"]["counting"]
    file.write_text(json.dumps(stats))
    with pytest.raises(CheckpointError, match=r"action_stats\.json: counting is missing"):
        QwenVLA.from_pretrained(tmp_path / "model")


def test_a_checkpoint_at_odds_with_its_embodiments_is_refused(tmp_path: Path) -> None:
    model_of(tmp_path, "multi_mlp").save_pretrained(tmp_path / "model")
    file = tmp_path / "model/config.json"
    config = json.loads(file.read_text())
    config["expert"]["embodiments"] = [7, 5, 3]
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has embodiments \(7, 5, 3\), the contract \(5, 7"):
        QwenVLA.from_pretrained(tmp_path / "model")


@DESIGNS
def test_a_policy_drives_the_embodiment_it_is_given(tmp_path: Path, design: str) -> None:
    model = model_of(tmp_path, design)
    sampling = SamplingConfig(denoising_steps=2, execute_steps=8)
    policy = Policy(model, sampling, model.contract.place_of("counting"))
    noise = torch.zeros(2, *policy.noise_shape)
    seen = Observations(random_images(2), ["count", "count"])
    actions = policy.act(seen, None, explore=False, noise=noise).actions
    assert actions.shape == (2, 8, 3)
    assert np.abs(actions).max() > 1, "in the counting arm's unit, not in meters"
    told = dataclasses.replace(seen, embodiment=np.array([2, 2]))
    assert torch.equal(policy.value(seen), model.value(model.encode(model.processor(told))))
    config = PPOConfig(
        epochs=1,
        minibatch=4,
        micro_batch=4,
        value_warmup_iterations=0,
        optimizer=OptimizerConfig(learning_rates={"expert": 1e-4, "value": 1e-3}),
    )
    generator = torch.Generator().manual_seed(0)

    def observe(streams: int, time: int) -> Observations:
        return Observations(random_images(streams, time), ["count"] * streams)

    batch = rollout(policy, 4, 2, generator, observe=observe)
    assert batch["context", "embodiment"].tolist() == [2] * 8
    assert PPOLearner(model, config, sampling, 10, 0).update(batch)["ratio_start"] == 0


def test_reinforcement_learning_on_another_embodiment_than_the_first(tmp_path: Path) -> None:
    model_of(tmp_path, "multi_mlp", size=32).save_pretrained(tmp_path / "model")
    words = [f"model.checkpoint={tmp_path}/model", f"output={tmp_path}", "name=rl"]
    words += ["env.suite=counting", "env.image_size=32", "ppo.value_warmup_iterations=1"]
    before = QwenVLA.from_pretrained(tmp_path / "model").expert.state_dict()
    run = train(load_config("configs/rl/debug.yaml", words))
    learned = QwenVLA.from_pretrained(run["checkpoint"])
    assert learned.contract == contract_of(32)
    changed = {n for n, t in learned.expert.state_dict().items() if (t != before[n]).any()}
    assert "action_in.2.0.weight" in changed
    assert not {n for n in changed if n.startswith(("action_in.0.", "action_in.1."))}
