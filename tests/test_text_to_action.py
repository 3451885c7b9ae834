"""Text-to-action pretraining: its data, whole trajectories in the expert, and the stage itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from t2a_data import REAL_ROBOT, Invented, record, synthesize

from actors import cli
from actors.supervise import supervise
from actors.text_to_action import text_to_action
from learners.action_loss import draw, drawn_loss, encode_chunks
from learners.supervised import SupervisedTrainer
from vlarl.codec import ActionCodec, fit_action_stats
from vlarl.config.embodiments import load_embodiment
from vlarl.config.load import load_config
from vlarl.config.schema import FlowConfig, ModelConfig, OptimizerConfig, SupervisedConfig
from vlarl.data.text_chunks import TextChunks, balanced
from vlarl.data.trajectories import SynthesizedTrajectories, every_action, trajectory_stats
from vlarl.errors import CheckpointError, UserError
from vlarl.model.presets import build, channel_bounds_codec, new_contract, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import configured, transferred
from vlarl.observations import Observations
from vlarl.prompt import prompt
from vlarl.runs import RunFolder
from vlarl.synthesis.dataset import SynthesisDataset

CONFIGS = Path(__file__).parents[1] / "configs"
ROBOT = load_embodiment("tabletop_arm")
LENGTHS = [5, 12, 40]


@pytest.mark.parametrize(("first", "second"), [(3, 40), (40, 3), (7, 7)])
def test_a_mixture_keeps_its_share_and_leaves_nothing_out(first, second):
    order = balanced(first, second, 0.2)
    assert set(order) == set(range(first + second))
    assert np.mean(order < first) == pytest.approx(0.2, abs=1 / len(order))


def test_shares_without_a_choice():
    assert balanced(0, 4, 0.2).tolist() == [0, 1, 2, 3]
    assert balanced(2, 2, 0.0).tolist() == [2, 3]
    assert balanced(2, 2, 1.0).tolist() == [0, 1]


def test_a_whole_trajectory_is_one_sample_and_its_prompt_says_how_long():
    robots = [Invented([5, 12], 3, "wave"), Invented([7], 5, "nod")]
    chunks = TextChunks(robots, 1, 0.5)
    batch = chunks.chunks(np.arange(len(chunks)))
    seen = batch.observations
    assert not seen.images
    expected = {(0, 5, "wave 0"), (0, 12, "wave 1"), (1, 7, "nod 0")}
    assert set(zip(seen.embodiment, seen.steps, seen.instructions, strict=True)) == expected
    assert {(place, steps, text) for place, text, steps in chunks.prompts()} == expected
    for row in range(len(seen)):
        place, steps = seen.embodiment[row], seen.steps[row]
        index = int(seen.instructions[row][-1])
        own = robots[place].actions(index)
        assert np.array_equal(batch.actions[row, :steps, : own.shape[1]], own)


def test_windows_join_to_the_trajectories_and_share_a_context_by_sentence():
    robot = Invented([5, 12, 8], 3, "wave")
    chunks = TextChunks([robot], 1, 0.2, [4])
    batch = chunks.chunks(np.arange(len(chunks)))
    assert batch.actions.shape == (2 + 3 + 2, 4, 3)
    assert batch.observations.steps is None
    kept = [row[: len(row)] for row in batch.actions]
    found = np.concatenate([kept[0], kept[1][:1], *kept[2:5], *kept[5:]])
    assert np.array_equal(found, np.concatenate(list(every_action(robot))))
    assert np.array_equal(kept[1][1:], np.repeat(kept[1][:1], 3, axis=0))
    assert len(chunks.representatives) == len(chunks.sentences) == 2
    said = np.array(batch.observations.instructions)
    assert (said[chunks.representatives][chunks.context_of] == said).all()


def test_synthesized_arms_can_be_read_at_a_fraction_of_their_rate(tmp_path):
    dataset = SynthesisDataset(synthesize(tmp_path))
    robot = dataset.robots[0]
    whole, fifth = (SynthesizedTrajectories(dataset, robot, stride) for stride in (1, 5))
    for index, (many, few) in enumerate(zip(whole.lengths, fifth.lengths, strict=True)):
        every, taken = whole.actions(index), fifth.actions(index)
        assert len(every) == many
        assert len(taken) == few == -(-many // 5)
        # Each action is where the arm is a control step later; the last, where it ends.
        assert (taken[: many // 5] == every[4::5]).all()
        assert (taken[-1] == every[-1]).all()


def test_stats_are_the_quantiles_of_every_action():
    robot = Invented([30, 12, 80], 3, "wave")
    expected = fit_action_stats(np.concatenate(list(every_action(robot))))
    found = trajectory_stats(robot)
    np.testing.assert_allclose(found.low, expected.low, rtol=1e-6)
    np.testing.assert_allclose(found.high, expected.high, rtol=1e-6)


def text_model(preset: str, horizon: int = 40) -> QwenVLA:
    """Without cameras; nothing in it is zero."""
    robot = replace(ROBOT, horizon=horizon)
    contract = new_contract((), robot, tensor_horizon=horizon)
    torch.manual_seed(0)
    model = build(preset, contract, channel_bounds_codec(contract))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return configured(model, ModelConfig()).eval()


def trajectories(lengths: list[int]) -> tuple[Observations, torch.Tensor]:
    """What is seen of some trajectories, and noise [B, H, K] of which rows never change."""
    said = [f"put the spoon on the towel {length}" for length in lengths]
    noise = [
        torch.randn(max(LENGTHS), 64, generator=torch.Generator().manual_seed(length))
        for length in lengths
    ]
    return Observations({}, said, steps=np.array(lengths)), torch.stack(noise)


def velocities(model: QwenVLA, lengths: list[int], steps: int, beyond: float = 0.0):
    """[B, steps, K] and what is padded of the noise set to `beyond`."""
    seen, noise = trajectories(lengths)
    mask = model.codec.mask(len(lengths))
    mask &= (torch.arange(mask.shape[1]) < torch.tensor(lengths)[:, None])[..., None]
    noisy = noise.masked_fill(~mask, beyond)[:, :steps]
    with torch.no_grad():
        context = model.encode(model.processor(seen))
        return model.velocity(context, noisy, torch.full((len(lengths),), 0.4), mask[:, :steps])


@pytest.mark.parametrize("preset", ["tiny", "tiny-prefix", "tiny-pooled"])
def test_padding_of_a_trajectory_is_as_if_it_were_not_there(preset):
    model = text_model(preset)
    together = velocities(model, LENGTHS, 40)
    assert together.abs().max() > 0.01
    assert torch.equal(velocities(model, LENGTHS, 40, beyond=1e3), together)
    for row, length in enumerate(LENGTHS):
        alone = velocities(model, [length], length)
        torch.testing.assert_close(together[row, :length], alone[0], atol=2e-5, rtol=1e-4)


def test_the_loss_of_trajectories_is_the_mean_of_each_by_itself():
    model = text_model("tiny")
    robot = Invented(LENGTHS, len(ROBOT.channels), "wave")
    model.codec = ActionCodec(trajectory_stats(robot), 40, tensor_horizon=40)
    batch = TextChunks([robot], 1, 1.0).chunks(np.arange(3))
    clean, mask = encode_chunks([model.codec], batch)
    assert mask.any(dim=2).sum(dim=1).tolist() == LENGTHS
    draws = draw(clean.shape, FlowConfig(), torch.Generator().manual_seed(0))
    losses = []
    with torch.no_grad():
        context = model.encode(model.processor(batch.observations))
        together = drawn_loss(model, context, clean, mask, draws)
        for row, steps in enumerate(LENGTHS):
            own = slice(row, row + 1)
            cut = clean[own, :steps], mask[own, :steps], draws.part(own, steps)
            losses.append(drawn_loss(model, context[own], *cut))
    torch.testing.assert_close(torch.stack(losses).mean(), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("preset", ["tiny", "tiny-pooled"])
def test_the_expert_of_whole_trajectories_is_the_same_in_a_model_of_chunks(preset):
    """No weight depends on the horizon or on the cameras."""
    source = text_model(preset)
    steps = ROBOT.horizon
    expected = velocities(source, [steps], steps)
    contract = tabletop_contract()
    model = transferred(source, contract, channel_bounds_codec(contract)).eval()
    assert model.expert_config.horizon == contract.tensor_horizon == steps
    text = replace(source.contract, horizon=steps)
    assert prompt(text.embodiment, "a", steps) == prompt(contract.embodiment, "a", steps)
    with torch.no_grad():
        seen, noise = trajectories([steps])
        context = source.encode(source.processor(seen))
        mask = model.codec.mask(1)
        noisy = noise[:, :steps].masked_fill(~mask, 0.0)
        found = model.velocity(context.exclude("steps"), noisy, torch.tensor([0.4]), mask)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_padding_share_is_that_of_what_is_computed():
    """10 beside 9 and 4 alone: 24 control steps are computed, 23 of them of trajectories."""
    model = text_model("tiny")
    robot = Invented([10, 4, 9], len(ROBOT.channels), "wave")
    model.codec = ActionCodec(trajectory_stats(robot), 40, tensor_horizon=40)
    optimizer = OptimizerConfig(learning_rates={"expert": 1e-3})
    flow = FlowConfig("logit_normal", repeats=1)
    config = SupervisedConfig(batch_size=3, micro_batch=2, flow=flow, optimizer=optimizer)
    trainer = SupervisedTrainer(model, config, TextChunks([robot], 1, 1.0), None, 0)
    assert trainer.train_step()["padding_share"] == pytest.approx(1 / 24)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("t2a")
    key = "supervised.data.t2a"
    return [
        f"{key}.synthetic={synthesize(folder / 'synthetic')}",
        f"{key}.real={record(folder / 'real')}",
        f"{key}.embodiment={REAL_ROBOT}",
    ]


def pretrain(output: Path, *overrides: str) -> dict:
    return text_to_action(load_config(CONFIGS / "t2a/debug.yaml", [f"output={output}", *overrides]))


def state_of(result: dict) -> dict[str, torch.Tensor]:
    return QwenVLA.from_pretrained(result["checkpoint"]).state_dict()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_and_resumed_stage_ends_where_a_whole_one_does(tmp_path, data, workers):
    whole = pretrain(tmp_path, "name=whole", *data)
    assert (whole["steps"], whole["trajectories"], whole["skipped_episodes"]) == (4, 7, 0)
    common = ("name=parts", "resume=auto", f"supervised.data.workers={workers}", *data)
    pretrain(tmp_path, *common)
    run = tmp_path / "parts"
    (run / "checkpoints/last").unlink()
    (run / "checkpoints/step_4").rename(tmp_path / "moved")
    again = pretrain(tmp_path, *common)
    assert [row["step"] for row in RunFolder(run).metrics()] == [1, 2, 3, 4]
    one, other = state_of(whole), state_of(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    averages = [QwenVLA.from_pretrained(r["average"]).state_dict() for r in (whole, again)]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in one)
    moved = {name for name in one if not torch.equal(one[name], averages[0][name])}
    assert moved
    assert all(name.startswith("expert.") for name in moved)
    other_data = data[:1]
    with pytest.raises(CheckpointError, match="other data"):
        pretrain(tmp_path, "name=parts", "resume=auto", *other_data)


def test_chunks_instead_of_trajectories(tmp_path, data):
    found = pretrain(
        tmp_path, "name=chunks", *data, "supervised.data.t2a.prediction=chunk", "supervised.ema=0"
    )
    model = QwenVLA.from_pretrained(found["checkpoint"])
    assert model.contract.tensor_horizon == 16
    assert model.contract.horizons == (16, 16, ROBOT.horizon)
    assert found["samples"] > found["trajectories"]
    assert "average" not in found


def test_all_of_the_model_goes_on_from_text_to_action(tmp_path, data, capsys):
    first = pretrain(tmp_path, "name=t2a", *data)
    words = [str(CONFIGS / "cpt/debug.yaml"), f"output={tmp_path}", "name=cpt", "--json"]
    assert cli.run(["cpt", *words, f"model.init.weights={tmp_path / 't2a'}"]) == 0
    second = json.loads(capsys.readouterr().out)
    source = QwenVLA.from_pretrained(first["checkpoint"])
    model = QwenVLA.from_pretrained(second["checkpoint"])
    assert source.contract.cameras == ()
    assert [camera.name for camera in model.contract.cameras] == ["ego", "cam_right_wrist"]
    assert model.contract.tensor_horizon == ROBOT.horizon
    for part in ("vision", "language", "expert"):
        pairs = zip(source.parts()[part], model.parts()[part], strict=True)
        gaps = [float((one - other).detach().abs().mean()) for one, other in pairs]
        # Four steps of at most 1e-3: moved, but not made anew.
        assert 0 < max(gaps) < 5e-3, part
    assert cli.run(["eval", str(tmp_path / "t2a"), "episodes=1", "env.servers=1"]) == 2
    assert "vlarl cpt" in capsys.readouterr().err


def test_data_of_another_robot_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="expected"):
        pretrain(tmp_path, "name=x", data[0], data[1], "supervised.data.t2a.embodiment=widowx_eef")
    assert not (tmp_path / "x").exists()


def test_a_config_of_another_stage_names_its_command(capsys):
    assert cli.run(["t2a", str(CONFIGS / "sft/debug.yaml")]) == 2
    assert "Try: vlarl sft" in capsys.readouterr().err


def test_supervised_config_of_no_images(tmp_path):
    """Text alone needs no dataset of images; images need one."""
    config = load_config(CONFIGS / "cpt/debug.yaml", [f"output={tmp_path}", "name=x"])
    with pytest.raises(UserError, match="runs/t2a"):
        supervise(config)
