"""Adapters: what they change, what they leave alone, and where they go."""

from __future__ import annotations

import json

import pytest
import torch
from fake_model import rollout
from safetensors.torch import load_file
from tiny_model import linear_preset, make_model, move_adapters, observed, outputs

from actors import cli
from actors.env_host import EnvAccess
from actors.learner import Learner
from actors.weights import apply_weights, extract_weights
from learners.ppo import PPOLearner
from vlarl.config.load import load_config
from vlarl.config.schema import LoraConfig, ModelConfig, OptimizerConfig, PPOConfig, SamplingConfig
from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import given_model
from vlarl.policy import Policy

LORA = ModelConfig(lora=LoraConfig(rank=4))
BOTH = ModelConfig(lora=LoraConfig(rank=4), dtype="bfloat16")
SAMPLING = SamplingConfig(denoising_steps=4, execute_steps=5)


def learner_of(model: QwenVLA, **rates: float) -> PPOLearner:
    config = PPOConfig(
        epochs=1,
        minibatch=8,
        micro_batch=4,
        value_warmup_iterations=0,
        optimizer=OptimizerConfig(learning_rates={**rates, "value": 1e-3}),
    )
    return PPOLearner(model, config, SAMPLING, 10, 0)


def batch_of(model: QwenVLA, seed: int = 0, keep: str = "inputs"):
    generator = torch.Generator().manual_seed(seed)
    return rollout(Policy(model, SAMPLING), 4, 2, generator, keep, observe=observed)


def test_new_adapters_change_nothing_and_are_the_same_each_time():
    state = torch.get_rng_state()
    model = make_model("tiny", LORA)
    assert torch.equal(torch.get_rng_state(), state)
    for name, expected in outputs(make_model()).items():
        assert torch.equal(outputs(model)[name], expected), name
    again = make_model("tiny", LORA, seed=1).parts()["lora"]
    assert all(map(torch.equal, model.parts()["lora"], again))


def test_every_linear_layer_of_the_language_model_has_one_and_the_vision_tower_if_asked(tmp_path):
    preset = linear_preset(tmp_path)
    names = {n for n, _ in make_model(preset, LORA).named_parameters() if ".lora_A." in n}
    layers = {name.rpartition(".lora_A.")[0].split("layers.")[1] for name in names}
    linear = {f"linear_attn.{n}" for n in ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b")}
    linear |= {"linear_attn.out_proj"}
    full = {f"self_attn.{n}_proj" for n in "qkvo"}
    mlp = {f"mlp.{n}_proj" for n in ("gate", "up", "down")}
    assert layers == {f"0.{n}" for n in linear | mlp} | {f"1.{n}" for n in full | mlp}
    seeing = LoraConfig(rank=4, targets=("visual.blocks.*.qkv",))
    model = make_model("tiny", ModelConfig(lora=seeing))
    adapted = [n for n, _ in model.named_parameters() if ".lora_A." in n]
    assert len(adapted) == 3
    assert all(".visual." in name for name in adapted)
    listed = [id(p) for part in model.parts().values() for p in part]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


def test_a_target_that_fits_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"'language.layer.\*' fits no linear layer"):
        make_model("tiny", ModelConfig(lora=LoraConfig(rank=4, targets=("language.layer.*",))))


@pytest.mark.parametrize("config", [LORA, BOTH], ids=["float32", "bfloat16"])
def test_a_checkpoint_keeps_weights_and_adapters_apart_and_comes_back_the_same(config, tmp_path):
    plain, model = make_model("tiny", ModelConfig(dtype=config.dtype)), make_model("tiny", config)
    move_adapters(model)
    for name, each in (("plain", plain), ("adapted", model)):
        each.save_pretrained(tmp_path / name)
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("plain", "adapted")]
    assert weights[0] == weights[1]
    adapters = load_file(tmp_path / "adapted" / "adapters.safetensors")
    assert {tensor.dtype for tensor in adapters.values()} == {torch.float32}
    settings = json.loads((tmp_path / "adapted" / "config.json").read_text())
    assert settings["lora"]["rank"] == 4
    again = QwenVLA.from_pretrained(tmp_path / "adapted").eval()
    for name, expected in outputs(model).items():
        assert torch.equal(outputs(again)[name], expected), name
        assert not torch.equal(outputs(plain)[name], expected), name


def test_a_checkpoint_without_its_adapters_or_with_others_is_refused(tmp_path):
    make_model("tiny", LORA).save_pretrained(tmp_path / "model")
    folder = str(tmp_path / "model")
    assert given_model(ModelConfig(checkpoint=folder)) is not None
    assert given_model(ModelConfig(checkpoint=folder, lora=LORA.lora)) is not None
    with pytest.raises(ConfigError, match="has adapters already"):
        given_model(ModelConfig(checkpoint=folder, lora=LoraConfig(rank=8)))
    file = tmp_path / "model" / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "lora": {"rank": 4}}))
    with pytest.raises(CheckpointError, match=r"config.json: targets is missing"):
        QwenVLA.from_pretrained(folder)
    file.write_text(json.dumps(settings))
    (tmp_path / "model" / "adapters.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapters.safetensors is missing"):
        QwenVLA.from_pretrained(folder)


def test_merging_gives_a_plain_checkpoint_with_the_same_hidden_states(tmp_path, capsys):
    model = make_model("tiny", LORA)
    move_adapters(model)
    model.save_pretrained(tmp_path / "adapted")
    words = ["merge", str(tmp_path / "adapted"), f"out={tmp_path}/merged"]
    assert cli.run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"] == 4
    merged = QwenVLA.from_pretrained(tmp_path / "merged").eval()
    assert merged.lora is None
    assert merged.state_dict().keys() == make_model().state_dict().keys()
    for name, expected in outputs(model).items():
        torch.testing.assert_close(outputs(merged)[name], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(outputs(make_model())["hidden"], outputs(model)["hidden"], atol=1e-3)
    for wrong, message in (
        (words, "exists already"),
        (words[:2], "needs out="),
        (["merge", f"{tmp_path}/merged", f"out={tmp_path}/twice"], "has no adapters"),
    ):
        assert cli.run(wrong) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("config", [LORA, BOTH], ids=["float32", "bfloat16"])
def test_policy_gradient_reaches_adapters_and_the_weights_under_them_stay(config):
    model = make_model("tiny", config)
    base = {n: p.detach().clone() for n, p in model.backbone.named_parameters() if "lora_" not in n}
    learner = learner_of(model, lora=1e-3, expert=1e-4)
    before = [p.detach().clone() for p in model.parts()["lora"]]
    metrics = learner.update(batch_of(model))
    assert metrics["ratio_start"] == 0
    assert metrics["grad_norm/lora"] > 0
    assert not all(map(torch.equal, model.parts()["lora"], before))
    for name, weight in base.items():
        assert torch.equal(model.backbone.get_parameter(name), weight), name


@pytest.mark.parametrize(
    ("config", "rates"),
    [
        (LORA, {"lora": 1e-3, "expert": 1e-4}),
        (BOTH, {"lora": 1e-3, "expert": 1e-4}),
        (ModelConfig(dtype="bfloat16"), {"vision": 1e-4, "language": 1e-4, "expert": 1e-4}),
        (ModelConfig(dtype="bfloat16", checkpoint_activations=True), {"expert": 1e-4}),
    ],
    ids=["lora", "lora-bfloat16", "all-bfloat16", "expert-bfloat16"],
)
def test_a_run_that_stops_goes_on_bit_for_bit(config, rates, tmp_path):
    keep = "inputs" if len(rates) > 1 else "context"
    whole = make_model("tiny", config)
    batches = [batch_of(whole, seed, keep) for seed in (0, 1)]
    learner = learner_of(whole, **rates)
    assert learner.update(batches[0])["ratio_start"] == 0
    whole.save_pretrained(tmp_path / "model")
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    expected = learner.update(batches[1])
    resumed = given_model(config, tmp_path / "model")
    assert resumed is not None
    again = learner_of(resumed, **rates)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.update(batches[1]) == expected
    for name, parameter in whole.named_parameters():
        assert torch.equal(resumed.get_parameter(name), parameter), name


def test_adapters_travel_to_the_rollout_unmerged():
    model, acting = make_model("tiny", LORA), make_model("tiny", LORA)
    learner_of(model, lora=1e-3)
    move_adapters(model)
    update = extract_weights(model, 3)
    assert sum(".lora_" in form.name for form in update.forms) == len(model.parts()["lora"])
    assert all(".lora_" in form.name or form.name.startswith("value") for form in update.forms)
    apply_weights(acting, update)
    for name, expected in outputs(model).items():
        assert torch.equal(outputs(acting)[name], expected), name


def test_rl_with_adapters_runs_in_one_process_and_its_ratio_starts_at_1():
    overrides = [
        "model.lora.rank=4",
        "ppo.optimizer.learning_rates={lora: 1e-3, expert: 1e-4, value: 1e-3}",
        "ppo.value_warmup_iterations=0",
        "ppo.micro_batch=4",
    ]
    config = load_config("configs/rl/debug.yaml", overrides)
    learner = Learner(config, EnvAccess(config.env, None))
    metrics = learner.iterate()
    learner.close()
    assert metrics["ratio_start"] == 0
    assert metrics["learning_rate/lora"] == pytest.approx(1e-3)
    assert "grad_norm/lora" in metrics
