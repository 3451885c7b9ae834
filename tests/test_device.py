"""A model elsewhere than its batches: the same numbers, whatever the device."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_model import rollout
from second_device import ELSEWHERE, second_device

from learners.binding import BindingTrainer
from learners.localization import LocalizationTrainer
from learners.ppo import PPOLearner
from learners.supervised import SupervisedTrainer
from vlarl.config.data_schema import DataConfig
from vlarl.config.load import load_config
from vlarl.config.schema import (
    FlowConfig,
    LocalizationConfig,
    OptimizerConfig,
    PPOConfig,
    SamplingConfig,
    SupervisedConfig,
)
from vlarl.data.episode import Episode
from vlarl.data.grounding import GroundingSet
from vlarl.data.samples import ChunkDataset
from vlarl.errors import ConfigError
from vlarl.model import device as devices
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.policy import Policy

CAMERAS = ("ego", "cam_right_wrist")
SENTENCES = ("put the spoon on the towel", "put the carrot on the plate")
SAMPLING = SamplingConfig(denoising_steps=3, execute_steps=4)


@pytest.fixture(autouse=True)
def fused_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch lets a list of devices have fused optimizers, and `meta` is not on it."""
    module = sys.modules["torch.optim.adam"]
    monkeypatch.setattr(module, "_device_dtype_check_for_fused", lambda *_, **__: None)


def random_model(preset: str = "tiny") -> QwenVLA:
    """The same weights each time, none of them zero, on the CPU."""
    torch.manual_seed(0)
    contract = tabletop_contract()
    model = build(preset, contract, channel_bounds_codec(contract))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def random_images(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for name in CAMERAS}


def observed(n: int, seed: int = 0) -> Observations:
    return Observations(random_images(n, seed), [SENTENCES[i % 2] for i in range(n)])


def weights(model: QwenVLA) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def assert_moved_alike(here: QwenVLA, there: QwenVLA) -> None:
    """Adam makes steps of noise where there is no gradient: compared is where all of it goes."""
    assert {p.device for p in there.parameters()} == {ELSEWHERE}
    start, one, other = weights(random_model()), weights(here), weights(there)
    moves = [
        torch.cat([(after[name] - start[name]).flatten() for name in start])
        for after in (one, other)
    ]
    assert moves[0].norm() > 0
    assert torch.cosine_similarity(*moves, dim=0) > 0.99


def test_the_second_device_computes_and_refuses_to_mix() -> None:
    here = torch.arange(6.0).view(2, 3)
    with second_device():
        there = here.to(ELSEWHERE)
        assert there.device == ELSEWHERE
        assert (there @ there.T).sum().item() == float((here @ here.T).sum())
        assert there[torch.tensor([1])].cpu().tolist() == [[3.0, 4.0, 5.0]]
        for mixed in (
            lambda: here + there,
            lambda: here.add_(there.sum()),
            lambda: here[there.long()],
        ):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        layer = torch.nn.Linear(3, 1).to(ELSEWHERE)
        layer(there).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.cpu().tolist() == [[3.0, 5.0, 7.0]]


@pytest.mark.parametrize("preset", ["tiny", "tiny-prefix", "tiny-pooled"])
@pytest.mark.parametrize("keep", ["context", "inputs"])
def test_a_policy_elsewhere_draws_the_same_and_answers_on_the_cpu(preset: str, keep: str) -> None:
    here = Policy(random_model(preset), SAMPLING)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    expected = here.act(observed(3), generators[0], True, keep)
    with second_device():
        there = Policy(random_model(preset).to(ELSEWHERE), SAMPLING)
        found = there.act(observed(3), generators[1], True, keep)
        best = there.act(observed(3), generators[1], False)
        value = there.value(observed(3))
    assert value.device.type == "cpu"
    np.testing.assert_allclose(found.actions, expected.actions, atol=1e-6)
    assert found.chunk is not None
    assert expected.chunk is not None
    for key in ("step", "y_k", "y_next", "log_prob"):
        assert found.chunk[key].device.type == "cpu"
        torch.testing.assert_close(found.chunk[key], expected.chunk[key], atol=1e-3, rtol=1e-4)
    kept = found.context if keep == "context" else found.inputs
    assert kept is not None
    assert {leaf.device.type for leaf in kept.values(True, True)} == {"cpu"}
    np.testing.assert_allclose(
        best.actions, here.act(observed(3), generators[0], False).actions, atol=1e-6
    )


@pytest.mark.parametrize("keep", ["context", "inputs"])
def test_ppo_learns_the_same_elsewhere(keep: str) -> None:
    rates = {"expert": 1e-3, "value": 1e-2} | ({} if keep == "context" else {"language": 1e-3})
    config = PPOConfig(
        epochs=1,
        minibatch=4,
        micro_batch=2,
        target_kl=0.0,
        value_warmup_iterations=1,
        optimizer=OptimizerConfig(learning_rates=rates),
    )
    acting, generator = Policy(random_model(), SAMPLING), torch.Generator().manual_seed(0)
    batch = rollout(acting, 4, 2, generator, keep, observe=observed)
    here = random_model()
    learner = PPOLearner(here, config, SAMPLING, 4, seed=0)
    expected = [learner.update(batch), learner.update(batch)][1]
    gradient = learner.policy_gradient(batch)["expert"]
    with second_device():
        there = random_model().to(ELSEWHERE)
        learner = PPOLearner(there, config, SAMPLING, 4, seed=0)
        found = [learner.update(batch), learner.update(batch)][1]
        assert_moved_alike(here, there)
        moved = learner.policy_gradient(batch)["expert"].cpu()
    assert found == pytest.approx(expected, rel=2e-2, abs=2e-3)
    assert torch.cosine_similarity(moved, gradient, dim=0) > 0.99


def dataset() -> ChunkDataset:
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            images=random_images(4, seed),
            state=np.zeros((4, 1), np.float32),
            action=random.uniform(-0.04, 0.04, (4, 5)).astype(np.float32),
            instruction=sentence,
        )
        for seed, sentence in enumerate(SENTENCES)
    ]
    return ChunkDataset(episodes, tabletop_contract().horizon)


def scenes() -> GroundingSet:
    random = np.random.default_rng(0)
    places = random.uniform(0, 1, (8, 2, 3, 2)).astype(np.float32)
    offsets = random.uniform(-0.1, 0.1, (8, 3, 3)).astype(np.float32)
    return GroundingSet(random_images(8), ("spoon", "towel", "gripper"), places, offsets)


@pytest.mark.parametrize("part", ["expert", "vision"])
def test_supervised_training_is_the_same_elsewhere(part: str) -> None:
    config = SupervisedConfig(
        steps=2,
        batch_size=4,
        grounding_batch_size=2 if part == "vision" else 0,
        flow=FlowConfig(repeats=2),
        optimizer=OptimizerConfig(learning_rates={"expert": 1e-3, part: 1e-3}),
        data=DataConfig(objects_per_answer=2),
        log_every=1,
    )
    here = random_model()
    expected = SupervisedTrainer(here, config, dataset(), scenes(), seed=0).train()
    with second_device():
        there = random_model().to(ELSEWHERE)
        found = SupervisedTrainer(there, config, dataset(), scenes(), seed=0).train()
        assert_moved_alike(here, there)
    assert found["action_loss"] == pytest.approx(expected["action_loss"], rel=1e-3)


def test_learning_to_see_is_the_same_elsewhere() -> None:
    config = LocalizationConfig(steps=2, batch_size=4, binding_steps=2, binding_batch_size=4)
    here = random_model()
    errors = [
        LocalizationTrainer(here, config, scenes(), seed=0).train(),
        BindingTrainer(here, config, scenes(), SENTENCES[:1], seed=0).train(),
    ]
    with second_device():
        there = random_model().to(ELSEWHERE)
        found = [
            LocalizationTrainer(there, config, scenes(), seed=0).train(),
            BindingTrainer(there, config, scenes(), SENTENCES[:1], seed=0).train(),
        ]
    assert found == pytest.approx(errors, rel=1e-3)


def test_a_checkpoint_is_read_onto_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looks for tensors that were left on the real `meta`.
    monkeypatch.setattr("vlarl.model.checkpoint.still_empty", lambda _: [])
    here = random_model()
    here.save_pretrained(tmp_path / "model")
    with second_device():
        there = QwenVLA.from_pretrained(tmp_path / "model", ELSEWHERE)
        tensors = [*there.parameters(), *there.buffers()]
        assert {tensor.device for tensor in tensors} == {ELSEWHERE}
        assert there.backbone.lm_head.weight is there.backbone.get_input_embeddings().weight
        read = weights(there)
    assert all(torch.equal(read[name], tensor) for name, tensor in weights(here).items())


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
        ("cuda", 0, "finds no GPU that it can use here .* runtime.device=cpu"),
        ("cuda:2", 2, "'cuda:2': torch finds 2 GPUs here .* runtime.device=cuda:0"),
    ],
)
def test_the_device_is_one_that_torch_finds(
    monkeypatch: pytest.MonkeyPatch, name: str, found: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    if expected.startswith(("cpu", "cuda")):
        assert devices.resolved(name) == torch.device(expected)
        return
    with pytest.raises(ConfigError, match=expected):
        devices.resolved(name)


@pytest.mark.parametrize(
    ("device", "kind", "message"),
    [
        ("gpu", "inprocess", "no such choice"),
        ("cuda:one", "inprocess", "no such device. Try runtime.device=cuda:0"),
        ("cpu:0", "inprocess", "no such device"),
        ("cuda:1", "ray", "is Ray's to choose"),
    ],
)
def test_devices_that_cannot_be_meant_are_refused(device: str, kind: str, message: str) -> None:
    words = [f"runtime.kind={kind}", "env.mode=spawn"]
    with pytest.raises(ConfigError, match=message):
        load_config("configs/rl/debug.yaml", [*words, f"runtime.device={device}"])
    load_config("configs/rl/debug.yaml", [*words, "runtime.device=cuda"])
