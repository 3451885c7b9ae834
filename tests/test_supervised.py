"""The supervised trainer: it learns, resumes bit for bit, and padding never counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from learners.action_loss import draw, drawn_loss, encode_chunks
from learners.supervised import SupervisedTrainer
from vlarl.codec import ActionCodec, fit_action_stats
from vlarl.config.data_schema import DataConfig
from vlarl.config.schema import FlowConfig, OptimizerConfig, SupervisedConfig
from vlarl.data.episode import Episode
from vlarl.data.grounding import GroundingSet
from vlarl.data.samples import ChunkBatch, ChunkDataset
from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.presets import build, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA

SIZE = 32
RATES = {"vision": 2e-3, "language": 2e-3, "expert": 2e-3}
CONFIG = SupervisedConfig(
    steps=28,
    batch_size=8,
    flow=FlowConfig(repeats=2),
    optimizer=OptimizerConfig(learning_rates=RATES, warmup_steps=3),
    data=DataConfig(objects_per_answer=2),
    log_every=1,
)


def make_dataset(frames: int = 8, seed: int = 0, steady: bool = False) -> ChunkDataset:
    """Two episodes with random images and actions; `steady` ones repeat one action."""
    random = np.random.default_rng(seed)
    bounds = np.float32([channel.high for channel in tabletop_contract().embodiment.channels])
    episodes = [
        Episode(
            images={
                name: random.integers(0, 256, (frames // 2, SIZE, SIZE, 3), dtype=np.uint8)
                for name in ("ego", "cam_right_wrist")
            },
            state=np.zeros((frames // 2, 1), np.float32),
            action=bounds
            * np.repeat(
                random.uniform(-1, 1, (1 if steady else frames // 2, 5)).astype(np.float32),
                frames // 2 if steady else 1,
                axis=0,
            ),
            instruction=instruction,
        )
        for instruction in ("put the spoon on the towel", "put the carrot on the plate")
    ]
    return ChunkDataset(episodes, tabletop_contract().horizon)


def make_grounding(seed: int = 0) -> GroundingSet:
    random = np.random.default_rng(seed)
    images = {
        name: random.integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
        for name in ("ego", "cam_right_wrist")
    }
    places = random.uniform(0, 1, (4, len(images), 2, 2)).astype(np.float32)
    return GroundingSet(images, ("spoon", "towel"), places)


def make_model(dataset: ChunkDataset, awake: bool = False) -> QwenVLA:
    """Tiny random weights; `awake` gives the layers that start at zero something to say."""
    torch.manual_seed(0)
    contract = tabletop_contract(image_size=SIZE)
    stats = fit_action_stats(dataset.actions)
    shape = (contract.tensor_channels, contract.tensor_horizon)
    model = build("tiny", contract, ActionCodec(stats, contract.horizon, *shape))
    if awake:
        with torch.no_grad():
            for parameter in model.expert.parameters():
                parameter += 0.05 * torch.randn(parameter.shape)
    return model


class Log:
    """Records what is logged."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def log(self, step: int, **metrics: float) -> None:
        self.rows.setdefault(step, {}).update(metrics)


def losses(log: Log, name: str) -> list[float]:
    return [row[name] for row in log.rows.values() if name in row]


def test_overfits_a_few_chunks():
    dataset, log = make_dataset(steady=True), Log()
    trainer = SupervisedTrainer(make_model(dataset), CONFIG, dataset, None, seed=0, run=log)
    trainer.train()
    found = losses(log, "action_loss")
    assert np.mean(found[-6:]) < 0.65 * np.mean(found[:4])


def test_a_frozen_backbone_that_is_asked_once_teaches_the_same():
    dataset = make_dataset()
    config = replace(CONFIG, steps=3, optimizer=OptimizerConfig(learning_rates={"expert": 1e-3}))
    learned = []
    for gigabytes in (0.0, 1.0):
        model, asked = make_model(dataset, awake=True), []
        model.backbone.model.visual.register_forward_hook(lambda *_, seen=asked: seen.append(1))
        changed = replace(config, context_gigabytes=gigabytes)
        SupervisedTrainer(model, changed, dataset, None, seed=0).train()
        learned.append(
            (torch.cat([p.detach().flatten() for p in model.expert.parameters()]), asked)
        )
    (anew, often), (once, seldom) = learned
    torch.testing.assert_close(anew, once, atol=1e-5, rtol=1e-4)
    # Beside the steps: one frame tells the size, one batch holds all.
    assert len(often) == 1 + 3
    assert len(seldom) == 1 + 1


def test_learns_where_objects_are():
    dataset, grounding, log = make_dataset(), make_grounding(), Log()
    rates = {name: RATES[name] for name in ("vision", "language")}
    config = replace(
        CONFIG,
        grounding_batch_size=4,
        action_weight=0.0,
        vision_language_weight=1.0,
        optimizer=OptimizerConfig(learning_rates=rates),
    )
    model = make_model(dataset)
    expert = [p.detach().clone() for p in model.parts()["expert"]]
    SupervisedTrainer(model, config, None, grounding, seed=0, run=log).train()
    found = losses(log, "grounding_loss")
    assert np.mean(found[-4:]) < 0.5 * np.mean(found[:2])
    assert all(torch.equal(p, q) for p, q in zip(model.parts()["expert"], expert, strict=True))


def test_expert_learns_alone_at_first():
    dataset, grounding = make_dataset(), make_grounding()
    model = make_model(dataset, awake=True)
    config = replace(CONFIG, steps=4, expert_only_steps=2, grounding_batch_size=2)
    trainer = SupervisedTrainer(model, config, dataset, grounding, seed=0)

    def weights() -> dict[str, list[torch.Tensor]]:
        return {part: [p.detach().clone() for p in ps] for part, ps in model.parts().items()}

    def changed(part: str, before: dict[str, list[torch.Tensor]]) -> bool:
        return any(
            not torch.equal(p, q) for p, q in zip(before[part], weights()[part], strict=True)
        )

    start = weights()
    trainer.train(until=2)
    assert changed("expert", start)
    assert not changed("vision", start)
    assert not changed("language", start)
    trainer.train()
    assert changed("vision", start)
    assert changed("language", start)


def test_resumed_run_takes_the_very_same_steps(tmp_path):
    dataset, grounding = make_dataset(), make_grounding()
    config = replace(CONFIG, steps=6, grounding_batch_size=2, save_every=3)

    def save(trainer: SupervisedTrainer, step: int) -> dict[str, float]:
        trainer.model.save_pretrained(tmp_path / f"step_{step}")
        torch.save(trainer.state_dict(), tmp_path / f"state_{step}.pt")
        return {}

    whole = Log()
    trainer = SupervisedTrainer(make_model(dataset), config, dataset, grounding, 7, whole)
    trainer.train(save=lambda step: save(trainer, step))
    resumed = Log()
    model = QwenVLA.from_pretrained(tmp_path / "step_3")
    torch.manual_seed(99)
    later = SupervisedTrainer(model, config, dataset, grounding, 7, resumed)
    later.load_state_dict(torch.load(tmp_path / "state_3.pt"))
    later.train()
    assert later.step == 6
    assert list(resumed.rows) == [4, 5, 6]
    for step, row in resumed.rows.items():
        expected = {k: v for k, v in whole.rows[step].items() if k != "steps_per_second"}
        assert {k: v for k, v in row.items() if k != "steps_per_second"} == expected
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="seed"):
        SupervisedTrainer(model, config, dataset, grounding, 8).load_state_dict(later.state_dict())


def gradient(model: QwenVLA, batch: ChunkBatch, scribble: float) -> tuple[float, torch.Tensor]:
    """Loss and expert gradient, with `scribble` written into everything that is padding."""
    model.zero_grad()
    clean, mask = encode_chunks([model.codec], batch)
    clean = clean.masked_fill(~mask, scribble)
    context = model.encode(model.processor(batch.observations))
    draws = draw(clean.shape, FlowConfig(repeats=3), torch.Generator().manual_seed(0))
    loss = drawn_loss(model, context, clean, mask, draws)
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in model.expert.parameters()])


def test_padding_changes_neither_loss_nor_gradient():
    dataset = make_dataset()
    model = make_model(dataset, awake=True)
    batch = dataset.chunks(np.array([1, 6]))
    loss, expected = gradient(model, batch, 0.0)
    scribbled, found = gradient(model, batch, 1e3)
    assert scribbled == loss
    assert torch.equal(found, expected)


def test_training_masks_what_acting_masks():
    """A mask that knew where the episode ends would tell the expert what acting cannot know."""
    dataset = make_dataset()
    model = make_model(dataset)
    _, mask = encode_chunks([model.codec], dataset.chunks(np.arange(len(dataset))))
    assert torch.equal(mask, model.codec.mask(len(dataset)))


def test_repeats_are_separate_draws_on_the_same_context():
    dataset = make_dataset()
    model = make_model(dataset, awake=True)
    batch = dataset.chunks(np.array([0, 5]))
    clean, mask = encode_chunks([model.codec], batch)
    with torch.no_grad():
        context = model.encode(model.processor(batch.observations))

        def mean_loss(rows: list[int], repeats: int) -> float:
            index = torch.tensor(rows)
            own, flow = clean[index], FlowConfig(repeats=repeats)
            draws = draw(own.shape, flow, torch.Generator().manual_seed(3))
            return float(drawn_loss(model, context[index], own, mask[index], draws))

        assert mean_loss([0, 1], 2) == pytest.approx(mean_loss([0, 0, 1, 1], 1), rel=1e-5)


def test_frozen_backbone_stays_and_is_not_differentiated():
    dataset = make_dataset()
    model = make_model(dataset)
    config = replace(CONFIG, optimizer=OptimizerConfig(learning_rates={"expert": 1e-3}))
    before = {n: p.detach().clone() for n, p in model.backbone.named_parameters()}
    metrics = SupervisedTrainer(model, config, dataset, None, 0).train_step()
    norms = {f"grad_norm/{part}" for part in ("expert", "expert_biases", "total")}
    assert set(metrics) == {"action_loss", *norms}
    assert all(torch.equal(p, before[n]) for n, p in model.backbone.named_parameters())


def test_hooks_are_called_when_configured():
    dataset, log, calls = make_dataset(), Log(), []
    config = replace(CONFIG, steps=5, save_every=2, eval_every=3, log_every=2)
    trainer = SupervisedTrainer(make_model(dataset), config, dataset, None, 0, log)

    def evaluate(step: int) -> dict[str, float]:
        calls.append(("evaluate", step))
        return {"success_rate": 0.5}

    def save(step: int) -> dict[str, float]:
        calls.append(("save", step))
        return {"saves": float(step)}

    last = trainer.train(save=save, evaluate=evaluate)
    assert calls == [("save", 2), ("evaluate", 3), ("save", 4), ("save", 5)]
    assert [step for step, row in log.rows.items() if "action_loss" in row] == [2, 4, 5]
    assert log.rows[3] == {"success_rate": 0.5}
    # What a save says is in the next row of the training, once.
    assert [log.rows[step].get("saves") for step in (2, 4, 5)] == [None, 2.0, 4.0]
    assert last["saves"] == 5.0
    assert {"action_loss", "success_rate", "rate/expert"} <= set(last)


def test_a_gradient_that_is_not_finite_stops_before_any_change():
    dataset = make_dataset()
    model = make_model(dataset, awake=True)
    trainer = SupervisedTrainer(model, CONFIG, dataset, None, 0)
    with torch.no_grad():
        model.expert.context_in.bias[0] = float("nan")
    before = [p.detach().clone() for p in model.parts()["language"]]
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.train_step()
    assert trainer.step == 0
    assert all(torch.equal(p, q) for p, q in zip(model.parts()["language"], before, strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action_weight": 0.0}, "no loss"),
        ({"grounding_batch_size": 2}, "grounding_images"),
        ({"optimizer": OptimizerConfig(learning_rates={"value": 1e-3})}, "value"),
    ],
)
def test_settings_without_effect_are_refused(changes, words):
    dataset = make_dataset()
    with pytest.raises(ConfigError, match=words):
        SupervisedTrainer(make_model(dataset), replace(CONFIG, **changes), dataset, None, 0)
