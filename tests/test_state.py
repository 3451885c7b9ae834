"""Proprioceptive state: what it is mapped to, whom it reaches, and that it goes all the way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_model import rollout
from padding import lengthened, moved_right
from tensordict import TensorDict
from test_model import random_images

from actors.controller import train
from actors.supervise import supervise
from learners.ppo import PPOLearner
from vlarl.codec import ActionStats
from vlarl.config.load import load_config
from vlarl.config.schema import OptimizerConfig, PPOConfig, SamplingConfig
from vlarl.contract import Contract
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import CheckpointError, ConfigError, UserError
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.tokenizer import load_tiny_tokenizer
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.prompt import prompt
from vlarl.state import StateCodec, fit_state_codec
from vlarl.types import EnvSpec

SENTENCES = ["put the carrot on the plate", "stack the green block on the yellow block", "go"]
STATE = np.array([[0.5, -1, 0], [1, 0.2, 0.3], [-0.5, 0, 1]], np.float32)
GOLDEN = "state: [34, 128, 255] pick up the bowl"
GOLDEN_IDS = [345, 333, 25, 220, 58, 18, 19, 11, 220, 16, 17, 23, 11, 220, 17, 20, 20, 60]
GOLDEN_IDS += [718, 790, 258, 377]
VARIANTS = pytest.mark.parametrize("preset", ["tiny", "tiny-prefix", "tiny-pooled"])
MODES = pytest.mark.parametrize("mode", ["vlm_prompt", "dit"])


@pytest.fixture(autouse=True)
def _prefix_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets by path: the prefix variant is a file of one's own."""
    (tmp_path / "tiny-prefix.yaml").write_text("base: tiny\nexpert: {prefix: true}\n")
    monkeypatch.setitem(PRESETS, "tiny-prefix", str(tmp_path / "tiny-prefix.yaml"))


PRESETS = {"tiny": "tiny", "tiny-pooled": "tiny-pooled"}


def model_of(mode: str, preset: str = "tiny-pooled", dimensions: int = 3) -> QwenVLA:
    """Random weights in which nothing is zero any more."""
    contract = tabletop_contract(state=(mode, 0 if mode == "none" else dimensions))
    torch.manual_seed(0)
    model = build(PRESETS[preset], contract, channel_bounds_codec(contract))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def observed(
    state: np.ndarray | None = STATE, sentences: list[str] = SENTENCES, seed: int = 0
) -> Observations:
    return Observations(random_images(len(sentences), seed), sentences, state=state)


@torch.no_grad()
def velocity_of(model: QwenVLA, inputs: TensorDict) -> torch.Tensor:
    """Of one and the same noisy chunk for every row."""
    generator = torch.Generator().manual_seed(1)
    horizon, channels = model.codec.tensor_horizon, model.codec.channels
    y = torch.randn(1, horizon, channels, generator=generator).expand(len(inputs), -1, -1)
    context = model.encode(inputs)
    tau = torch.full((len(inputs),), 0.4)
    found = model.velocity(context, y, tau, model.codec.mask(len(inputs)))
    prepared = model.velocity(model.prepare(context), y, tau, model.codec.mask(len(inputs)))
    assert torch.equal(found, prepared)
    return found


def test_states_are_mapped_from_their_percentiles() -> None:
    low, high = np.array([0, -1, 5], np.float32), np.array([10, 1, 5], np.float32)
    codec = StateCodec(ActionStats(low, high))
    states = np.array([[0, 1, 5], [5, -0.5, 9], [99, -7, 0]], np.float32)
    assert codec.normalize(states).tolist() == [[-1, 1, 0], [0, -0.5, 0], [1, -1, 0]]
    assert codec.bins(states).tolist() == [[0, 255, 128], [128, 64, 128], [255, 0, 128]]
    assert codec.middle(2).tolist() == [[5, 0, 5]] * 2


def test_ranges_are_the_exact_percentiles_of_all_states() -> None:
    states = np.stack([np.arange(101.0), -10 * np.arange(101.0)], axis=1)
    stats = fit_state_codec(states).stats
    np.testing.assert_allclose(stats.low, [1, -990], rtol=1e-6)
    np.testing.assert_allclose(stats.high, [99, -10], rtol=1e-6)
    with pytest.raises(ValueError, match="dataset's states contain NaN"):
        fit_state_codec(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"states must be \[M, d\]"):
        fit_state_codec(np.zeros((0, 2)))


def test_golden_ids_of_the_state_in_the_prompt() -> None:
    """Wording as in the example of section 5.2.4, within the template of 2.3."""
    tokenizer = load_tiny_tokenizer()
    assert tokenizer.encode(GOLDEN, add_special_tokens=False) == GOLDEN_IDS
    model = model_of("vlm_prompt")
    # The range is [-1, 1] here, so that 34.5 / 128 - 1 is in the middle of bin 34.
    state = np.array([[34.5 / 128 - 1, 0, 1]], np.float32)
    inputs = model.processor(observed(state, ["pick up the bowl"]))
    used = int(inputs["attention_mask"].sum())
    text = tokenizer.decode(inputs["input_ids"][0, :used])
    robot = model.contract.embodiment
    said = prompt(robot, "pick up the bowl", robot.horizon, [34, 128, 255])
    assert said.endswith(f"to execute the following task: {GOLDEN}.")
    assert text.endswith(f"{said}<|im_end|>\n<|im_start|>assistant\n")


def test_prompts_have_room_for_the_longest_state_and_are_not_remembered() -> None:
    model = model_of("vlm_prompt", dimensions=11)
    longest = max(SENTENCES, key=len)
    states = np.random.default_rng(0).uniform(-1, 1, (64, 11)).astype(np.float32)
    states[0] = 1
    inputs = model.processor(observed(states, [longest] * 64))
    assert int(inputs["attention_mask"].sum(dim=1).max()) <= model.contract.prompt_tokens
    assert not model.processor._rows


@VARIANTS
@MODES
def test_the_state_reaches_the_velocity(mode: str, preset: str) -> None:
    model = model_of(mode, preset)
    moved = STATE.copy()
    moved[0, 1] += 0.5
    before, after = (model.processor(observed(state)) for state in (STATE, moved))
    one, other = velocity_of(model, before), velocity_of(model, after)
    mask = model.codec.mask(3)[0]
    assert (one[0] != other[0])[mask].all()
    assert torch.equal(one[1:], other[1:])
    with torch.no_grad():
        hidden = [model.encode(inputs)["hidden"] for inputs in (before, after)]
    assert torch.equal(*hidden) == (mode == "dit")


@VARIANTS
def test_without_conditioning_the_state_is_ignored_bit_for_bit(preset: str) -> None:
    model = model_of("none", preset)
    told, silent = (model.processor(observed(state)) for state in (STATE, None))
    assert all(torch.equal(value, told[key]) for key, value in silent.items())
    assert told.keys() == silent.keys()
    assert torch.equal(velocity_of(model, told), velocity_of(model, silent))


@VARIANTS
@MODES
def test_neighbors_and_padding_change_nothing(mode: str, preset: str) -> None:
    model = model_of(mode, preset)
    inputs = model.processor(observed())
    together = velocity_of(model, inputs)
    for row in range(3):
        single = {name: image[row : row + 1] for name, image in random_images(3).items()}
        alone = Observations(single, SENTENCES[row : row + 1], state=STATE[row : row + 1])
        alone = velocity_of(model, model.processor(alone))
        torch.testing.assert_close(alone[0], together[row], atol=2e-6, rtol=1e-5)
    for padded in (moved_right, lengthened):
        found = velocity_of(model, padded(inputs[2:], 3))
        torch.testing.assert_close(found[0], together[2], atol=2e-6, rtol=1e-5)


@MODES
def test_mistakes_in_states_are_named(mode: str) -> None:
    model = model_of(mode)
    spoiled = STATE.copy()
    spoiled[1, 2] = np.nan
    for state, words in (
        (None, "observations have none"),
        (STATE[:, :2], r"the state is \(3, 2\), the model was made for \[n, 3\]"),
        (spoiled, r"NaN or infinity in rows \[1\]"),
        (STATE[:2], "2 states but 3 observations"),
    ):
        with pytest.raises(ValueError, match=words):
            model.processor(observed(state))
    with pytest.raises(ValueError, match="instruction is empty"):
        model.processor(observed(STATE, ["", "go", "go"]))


def test_contracts_hold_mode_and_dimension_together() -> None:
    contract = tabletop_contract(state=("dit", 11))
    assert Contract.from_dict(contract.to_dict()) == contract
    for changes, words in (
        ({"state_mode": "dti"}, "allowed: none, vlm_prompt, dit"),
        ({"state_dim": 0}, "state_dim 0 does not go with state_mode 'dit'"),
        ({"state_mode": "none"}, "state_dim 11 does not go with state_mode 'none'"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(contract, **changes)
    embodiment = contract.embodiment
    spec = EnvSpec(
        suite="tabletop",
        tasks=("one",),
        cameras=contract.cameras,
        channels=embodiment.channels,
        embodiment=embodiment.name,
        control_hz=embodiment.control_hz,
        max_steps=10,
        state_dim=11,
    )
    contract.check(spec)
    with pytest.raises(CheckpointError, match="state: checkpoint 11 numbers, environment 9"):
        contract.check(dataclasses.replace(spec, state_dim=9))
    tabletop_contract().check(dataclasses.replace(spec, state_dim=9))


@pytest.mark.parametrize("keep", ["context", "inputs"])
@MODES
def test_ppo_starts_at_ratio_1(mode: str, keep: str) -> None:
    model = model_of(mode)
    sampling = SamplingConfig(denoising_steps=4, execute_steps=5)
    rates = {"expert": 1e-4, "value": 1e-3} | ({"language": 1e-4} if keep == "inputs" else {})
    config = PPOConfig(
        epochs=1,
        minibatch=4,
        micro_batch=4,
        value_warmup_iterations=1,
        optimizer=OptimizerConfig(learning_rates=rates),
    )
    learner = PPOLearner(model, config, sampling, 10, 0)
    generator = torch.Generator().manual_seed(0)

    def observe(streams: int, time: int) -> Observations:
        states = np.random.default_rng(time).uniform(-1, 1, (streams, 3)).astype(np.float32)
        return observed(states, ["go"] * streams, time)

    batch = rollout(Policy(model, sampling), 4, 2, generator, keep, observe=observe)
    assert ("state" in batch[keep]) == (mode == "dit")
    before = {name: tensor.clone() for name, tensor in model.expert.state_dict().items()}
    assert "policy_loss" not in learner.update(batch)
    metrics = learner.update(batch)
    assert metrics["ratio_start"] == 0
    assert metrics["log_prob_gap"] == 0
    learned = {n for n, tensor in model.expert.state_dict().items() if (tensor != before[n]).any()}
    assert ("state_in.0.weight" in learned) == (mode == "dit")


@MODES
def test_checkpoints_carry_the_ranges(tmp_path: Path, mode: str) -> None:
    model = model_of(mode)
    model.processor.state = fit_state_codec(3 * np.random.default_rng(0).normal(size=(50, 3)))
    model.save_pretrained(tmp_path / "model")
    again = QwenVLA.from_pretrained(tmp_path / "model")
    assert again.contract == model.contract
    assert again.processor.state.stats.to_dict() == model.processor.state.stats.to_dict()
    one, other = (m.processor(observed()) for m in (model, again))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert torch.equal(velocity_of(model, one), velocity_of(again, other))
    file = tmp_path / "model/state_stats.json"
    file.write_text(json.dumps({"low": [0, 0], "high": [1, 1]}))
    with pytest.raises(CheckpointError, match=r"state_stats\.json: low and high are of 2 numbers"):
        QwenVLA.from_pretrained(tmp_path / "model")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"state_stats\.json is missing"):
        QwenVLA.from_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["expert"]["state_dim"] = 7
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"expert\.state_dim = 7"):
        QwenVLA.from_pretrained(tmp_path / "model")


@pytest.mark.slow
@MODES
def test_from_demonstrations_to_reinforcement_learning(tmp_path: Path, mode: str) -> None:
    seeing = [f"supervised.localization.{key}=1" for key in ("steps", "binding_steps")]
    words = [f"output={tmp_path}", "name=sft", f"model.state={mode}", *seeing]
    trained = supervise(load_config("configs/sft/debug.yaml", words))
    model = QwenVLA.from_pretrained(trained["checkpoint"])
    assert model.contract.state_mode == mode
    expected = fit_state_codec(LeRobotReader(tmp_path / "sft/demonstrations").states())
    assert model.contract.state_dim == 11
    assert model.processor.state.stats.to_dict() == expected.stats.to_dict()
    words = [f"model.checkpoint={trained['checkpoint']}", f"output={tmp_path}", "name=rl"]
    words += ["env.image_size=32", "ppo.iterations=2", "ppo.value_warmup_iterations=1"]
    run = train(load_config("configs/rl/debug.yaml", words))
    rows = [json.loads(line) for line in (tmp_path / "rl/metrics.jsonl").read_text().splitlines()]
    assert run["steps"] == 2
    assert rows[-1]["ratio_start"] < 1e-6
    assert QwenVLA.from_pretrained(run["checkpoint"]).contract == model.contract


def test_a_dataset_of_other_states_is_refused(tmp_path: Path) -> None:
    whole = ["name=whole", f"output={tmp_path}", "model.state=dit"]
    supervise(load_config("configs/sft/debug.yaml", whole))
    info = tmp_path / "whole/demonstrations/meta/info.json"
    values = json.loads(info.read_text())
    values["features"]["observation.state"]["shape"] = [7]
    info.write_text(json.dumps(values))
    words = ["name=other", f"output={tmp_path}", "supervised.collect.episodes=400"]
    words += [f"supervised.data.path={tmp_path}/whole/demonstrations"]
    words += [f"model.checkpoint={tmp_path}/whole"]
    with pytest.raises(UserError, match="state: 7 numbers, expected 11"):
        supervise(load_config("configs/sft/debug.yaml", words))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.state=dti"], "Did you mean dit?"),
        (["model.state=dit"], "made by `vlarl sft`"),
        (["stage=sft", "model.state=dit", "model.checkpoint=a"], "no effect with model.checkpoint"),
        (
            ["stage=sft", "model.state=dit", "model.init.backbone=a", "model.init.expert=b"],
            "no effect with model.init",
        ),
        (
            ["stage=sft", "model.state=dit", "supervised.data={path: a, eigengrasps: b}"],
            "no effect with supervised.data.eigengrasps",
        ),
    ],
)
def test_settings_without_effect_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.state = ") as caught:
        load_config(None, overrides)
    assert words in str(caught.value)
