"""A mixed batch is worth what its rows are worth alone, however it is divided."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from mixture_sources import write_conversations

import learners.mixed_losses
from learners.action_loss import encode_chunks
from learners.mixed_losses import (
    ACTION,
    CONVERSATION,
    mixed_losses,
    trimmed,
)
from learners.shares import Peers, length_buckets
from learners.supervised import SupervisedTrainer
from vlarl.config.embodiments import load_embodiment
from vlarl.config.schema import FlowConfig, OptimizerConfig, SupervisedConfig
from vlarl.contract import Contract
from vlarl.data.conversations import ConversationSet
from vlarl.data.mixed_batches import EmbodiedChunks, MixedBatch, MixedBatches, Source, joined
from vlarl.data.samples import ChunkBatch
from vlarl.flow import flow_matching_loss
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.presets import build, channel_bounds_codec, new_contract
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.types import CameraSpec

ARM, AGENT, HANDS = map(load_embodiment, ("tabletop_arm", "vln_agent", "human_hands"))
ROBOTS = (ARM, AGENT, HANDS)
EGO, WRIST, LARGE = (
    CameraSpec("ego", 32, 32),
    CameraSpec("cam_right_wrist", 32, 32),
    CameraSpec("ego", 64, 32),
)
CAMERAS = ((EGO, WRIST), (EGO,), (LARGE,))
SENTENCES = ("go", "put the carrot on the plate", "walk past the red chair")
FLOW = FlowConfig(repeats=1)


class Frames:
    """Frames of one robot: random images, actions at half of the upper bounds."""

    def __init__(self, place: int, count: int = 6, cameras: tuple = ()) -> None:
        self.place, self.count, self.sentences = place, count, SENTENCES
        self.cameras = cameras or CAMERAS[place]
        self.instructions = np.arange(count) % 3

    def __len__(self) -> int:
        return self.count

    def chunks(self, frames: np.ndarray) -> ChunkBatch:
        random, robot = np.random.default_rng(self.place), ROBOTS[self.place]
        images = {
            camera.name: random.integers(0, 256, (self.count, camera.height, camera.width, 3))
            for camera in self.cameras
        }
        high = [channel.high / 2 for channel in robot.channels]
        actions = np.tile(np.float32(high), (len(frames), robot.horizon, 1))
        channels = None
        if robot is HANDS:
            channels = np.ones((len(frames), 32), bool)
            channels[frames % 2 == 0, :16] = False
        seen = Observations(
            {name: image[frames].astype(np.uint8) for name, image in images.items()},
            [SENTENCES[place] for place in self.instructions[frames]],
        )
        return ChunkBatch(seen, actions, channels)


@pytest.fixture(scope="module")
def model() -> QwenVLA:
    """Of three robots that see different things; nothing in it is zero."""
    contract = new_contract(
        CAMERAS[0],
        ARM,
        instructions=SENTENCES,
        further_embodiments=(AGENT, HANDS),
        further_cameras=CAMERAS[1:],
    )
    torch.manual_seed(0)
    first, *further = (channel_bounds_codec(contract, place) for place in range(3))
    made = build("tiny", contract, first, further_codecs=further)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def talks(tmp_path_factory) -> ConversationSet:
    return ConversationSet(write_conversations(tmp_path_factory.mktemp("talks") / "set.jsonl"))


@pytest.fixture
def batch(model, talks) -> MixedBatch:
    """12 rows: of every robot and some conversations."""
    sources = [
        Source("robots", 2.0, (EmbodiedChunks(0, Frames(0)), EmbodiedChunks(1, Frames(1)))),
        Source("hands", 1.0, (EmbodiedChunks(2, Frames(2)),)),
        Source("talks", 1.0, conversations=talks),
    ]
    cameras = [model.contract.cameras_of(place) for place in range(3)]
    return MixedBatches(sources, cameras, 12, 0).batch(0)


def words_of(model: QwenVLA) -> ConversationProcessor:
    return ConversationProcessor(model.processor.tokenizer, model.processor.layout, 512, 16)


def fixed_loss(model, context, clean, mask, draws) -> torch.Tensor:
    """The flow-matching loss at noise and time that are the same for every row."""
    noise = torch.full_like(clean, 0.5).masked_fill(~mask, 0.0)
    tau = torch.full((len(clean),), 0.3)
    velocity = model.velocity(context, 0.7 * clean + 0.3 * noise, tau, mask)
    return flow_matching_loss(velocity, noise - clean, mask).mean()


def row_of(part: ChunkBatch, row: int) -> ChunkBatch:
    seen, rows = part.observations, slice(row, row + 1)
    images = {name: image[rows] for name, image in seen.images.items()}
    alone = Observations(images, seen.instructions[rows], embodiment=seen.embodiment[rows])
    return ChunkBatch(alone, part.actions[rows], part.channels[rows])


def losses(model, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(mixed_losses(model, batch, FLOW, words_of(model), generator, Peers()))


def test_a_batch_holds_every_layout_and_no_row_twice(batch):
    assert len(batch) == 12
    assert sorted(len(part.actions) for part in batch.chunks) == [3, 3, 3]
    assert len(batch.conversations) == 3
    places = [set(part.observations.embodiment.tolist()) for part in batch.chunks]
    assert places == [{0}, {1}, {2}]


def test_the_loss_of_a_mixed_batch_is_the_mean_over_its_rows(monkeypatch, model, batch):
    """Of rows with differing cameras, horizons, channels, and texts, and its gradient likewise."""
    monkeypatch.setattr(learners.mixed_losses, "drawn_loss", fixed_loss)
    weights = {ACTION: 1.0, CONVERSATION: 0.1}
    model.zero_grad()
    parts = losses(model, batch)
    total = sum(weights[part.kind] * part.share * part.loss for part in parts)
    total.backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert sum(part.share for part in parts) == pytest.approx(1)
    model.zero_grad()
    codecs = tuple(model.codecs.values())
    alone = []
    for part in batch.chunks:
        for row in range(len(part.actions)):
            single = row_of(part, row)
            clean, mask = encode_chunks(codecs, single)
            context = model.encode(model.processor(single.observations))
            alone.append(fixed_loss(model, context, clean, mask, None))
    mean = sum(alone) / 12
    spoken, count = 0.0, 0
    for talk in batch.conversations:
        inputs = words_of(model)([talk])
        tokens = int((inputs["labels"] != -100).sum())
        spoken, count = spoken + tokens * model.language_loss(inputs), count + tokens
    mean = mean + 0.1 * (3 / 12) * spoken / count
    torch.testing.assert_close(total, mean, rtol=1e-5, atol=1e-6)
    mean.backward()
    apart = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert together.keys() == apart.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[name], rtol=1e-3, atol=1e-5, msg=name)


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 1), (1, 2), (2, 0), (5, 2), (12, 0)])
def test_the_gradient_of_a_batch_is_the_sum_of_its_shares(model, batch, world, micro_batch):
    """With flow times and noise as drawn; of processes too that have no row of some kind."""
    weights = {ACTION: 1.0, CONVERSATION: 0.1}
    model.zero_grad()
    whole = losses(model, batch)
    sum(weights[part.kind] * part.share * part.loss for part in whole).backward()
    expected = gradients(model)
    model.zero_grad()
    shares, rows, kinds = 0.0, 0, []
    for rank in range(world):
        generator = torch.Generator().manual_seed(0)
        peers = Peers(rank, world)
        own = mixed_losses(model, batch, FLOW, words_of(model), generator, peers, micro_batch)
        kinds.append(set())
        for part in own:
            (weights[part.kind] * part.share * part.loss).backward()
            shares, rows = shares + part.share, rows + 1
            kinds[-1].add(part.kind)
    assert shares == pytest.approx(1)
    assert rows > len(whole)
    assert ({CONVERSATION} in kinds) == (world == 12)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_micro_batches_take_the_step_of_the_whole_mixed_batch(model, talks):
    """Through the trainer, whose metrics are those of the whole batch."""
    sources = [
        Source("arm", 3.0, (EmbodiedChunks(0, Frames(0)),)),
        Source("others", 2.0, (EmbodiedChunks(1, Frames(1)), EmbodiedChunks(2, Frames(2)))),
        Source("talks", 3.0, conversations=talks),
    ]
    cameras = [model.contract.cameras_of(place) for place in range(3)]
    optimizer = OptimizerConfig(
        learning_rates={"vision": 1e-4, "language": 1e-4, "expert": 1e-3}, max_grad_norm=1e9
    )
    config = SupervisedConfig(steps=2, batch_size=16, flow=FLOW, optimizer=optimizer)
    found = []
    for micro_batch in (0, 2):
        own = copy.deepcopy(model)
        mixture = MixedBatches(sources, cameras, 16, 0)
        settings = dataclasses.replace(config, micro_batch=micro_batch)
        trainer = SupervisedTrainer(own, settings, None, None, 3, mixture=mixture)
        metrics = trainer.train_step()
        metrics.pop("padding_share")
        found.append((metrics, gradients(own)))
    (whole, expected), (parts, divided) = found
    assert {"action_loss", "conversation_loss", "grad_norm/vision"} <= whole.keys()
    assert parts == pytest.approx(whole, rel=1e-4)
    assert divided.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(divided[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_the_loss_is_the_weighted_mean_of_the_losses_of_its_parts(model, batch):
    """With flow times and noise as they are drawn, one part after another."""
    whole = losses(model, batch)
    generator = torch.Generator().manual_seed(0)
    for index, part in enumerate(batch.chunks):
        alone = MixedBatch((part,), ())
        (found,) = mixed_losses(model, alone, FLOW, words_of(model), generator, Peers())
        assert found.share == found.share_of_kind == 1
        torch.testing.assert_close(found.loss, whole[index].loss)
        assert whole[index].share == pytest.approx(len(alone) / 12)
        assert whole[index].share_of_kind == pytest.approx(len(alone) / 9)


def test_conversations_wait_until_the_expert_has_learned_alone(model, batch):
    generator = torch.Generator().manual_seed(0)
    words = words_of(model)
    found = mixed_losses(
        model, batch, FLOW, words, generator, Peers(), opened=False, through_backbone=False
    )
    model.zero_grad()
    for part in found:
        assert part.kind == ACTION
        part.loss.backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert any(parameter.grad is not None for parameter in model.expert.parameters())


def test_rows_with_the_same_cameras_share_a_forward(model):
    """Whatever their channels and horizons."""
    datasets = [EmbodiedChunks(place, Frames(place, cameras=(EGO,))) for place in range(3)]
    sources = [Source("all", 1.0, tuple(datasets))]
    mixed = MixedBatches(sources, [(EGO,)] * 3, 9, 0).batch(0)
    (part,) = mixed.chunks
    assert part.actions.shape == (9, 16, 32)
    _, mask = encode_chunks(tuple(model.codecs.values()), part)
    for row, place in enumerate(part.observations.embodiment):
        robot = ROBOTS[place]
        steps, channels = mask[row].any(1), mask[row].any(0)
        assert int(steps.sum()) == robot.horizon
        assert int(channels.sum()) in {len(robot.channels), 16 if robot is HANDS else -1}


def test_joined_parts_keep_their_rows():
    parts = []
    for place in (1, 2):
        rows = Frames(place).chunks(np.array([0, 3]))
        channels = np.ones((2, rows.actions.shape[2]), bool)
        seen = Observations(
            {"ego": rows.observations.images["ego"][:, :32]},
            rows.observations.instructions,
            embodiment=np.full(2, place),
        )
        parts.append(ChunkBatch(seen, rows.actions, channels))
    whole = joined(parts)
    assert whole.observations.embodiment.tolist() == [1, 1, 2, 2]
    np.testing.assert_array_equal(whole.actions[:2, :8, :3], parts[0].actions)
    np.testing.assert_array_equal(whole.actions[2:], parts[1].actions)
    assert whole.channels.sum(axis=1).tolist() == [3, 3, 32, 32]


def test_prompts_are_cut_to_the_longest(model, batch):
    saved = []
    for part in batch.chunks:
        full = model.processor(part.observations)
        cut = trimmed(full)
        length = cut["input_ids"].shape[1]
        saved.append(full["input_ids"].shape[1] - length)
        assert not full["attention_mask"][:, length:].any()
        whole, short = model.encode(full)["hidden"], model.encode(cut)["hidden"]
        torch.testing.assert_close(whole[:, :length], short, rtol=1e-4, atol=1e-5)
    assert max(saved) >= 8


def test_the_padding_share_is_that_of_the_tokens(model, batch):
    parts = losses(model, batch)
    for part, chunks in zip(parts, batch.chunks, strict=False):
        real = int(model.processor(chunks.observations)["attention_mask"].sum())
        assert part.tokens - part.padding == real
    counts = [words_of(model).token_count(talk) for talk in batch.conversations]
    spoken = [part for part in parts if part.kind == CONVERSATION]
    assert sum(part.tokens - part.padding for part in spoken) == sum(counts)


def test_buckets_hold_every_row_once_and_no_row_far_shorter_than_the_longest():
    random = np.random.default_rng(0)
    lengths = random.integers(20, 1000, 100).tolist()
    buckets = length_buckets(lengths)
    assert sorted(np.concatenate(buckets)) == list(range(100))
    for bucket in buckets:
        own = [lengths[place] for place in bucket]
        assert min(own) >= 0.75 * max(own)
    assert len(buckets) < 16
    assert [bucket.tolist() for bucket in length_buckets([5, 5, 5])] == [[0, 1, 2]]
    assert [bucket.tolist() for bucket in length_buckets([3, 100, 80])] == [[1, 2], [0]]
    assert [bucket.tolist() for bucket in length_buckets([5, 5, 5], 2)] == [[0, 1], [2]]


def test_a_source_has_either_datasets_or_conversations(talks):
    for more in ({}, {"datasets": (EmbodiedChunks(0, Frames(0)),), "conversations": talks}):
        with pytest.raises(ValueError, match="'x' needs either datasets or conversations"):
            Source("x", 1.0, **more)


def test_tasks_of_several_datasets_are_joined_by_their_sentence():
    datasets = (EmbodiedChunks(0, Frames(0, 4)), EmbodiedChunks(0, Frames(0, 5)))
    (tasks,) = Source("x", 1.0, datasets).groups
    assert [sorted(task.tolist()) for task in tasks] == [[0, 3, 4, 7], [1, 5, 8], [2, 6]]


def test_contracts_and_checkpoints_hold_the_cameras_of_each_robot(tmp_path: Path, model) -> None:
    model.save_pretrained(tmp_path / "model")
    again = QwenVLA.from_pretrained(tmp_path / "model")
    assert again.contract == model.contract
    assert [again.contract.cameras_of(place) for place in range(3)] == list(CAMERAS)
    seen = Frames(2).chunks(np.arange(2)).observations
    told = Observations(seen.images, seen.instructions, embodiment=np.array([2, 2]))
    inputs, expected = again.processor(told), model.processor(told)
    assert all(torch.equal(value, inputs[key]) for key, value in expected.items())
    assert inputs["pixel_values"].shape[1] == 4 * 2
    text = again.processor.tokenizer.decode(inputs["input_ids"][0])
    assert "cam_right_wrist" not in text
    with pytest.raises(ValueError, match="see different cameras"):
        model.processor(Observations(seen.images, seen.instructions, embodiment=np.array([1, 2])))


def test_contracts_refuse_cameras_that_do_not_go_with_their_robots(model) -> None:
    contract = model.contract
    for changes, words in (
        (
            {"further_cameras": CAMERAS[1:2]},
            "of 1 embodiments: expected some for each",
        ),
        ({"further_cameras": ((EGO,), ())}, "expected some for each of vln_agent, human_hands"),
        ({"history": 2, "history_hz": 1.0}, "a history needs embodiments that see the same"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(contract, **changes)
    older = contract.to_dict()
    del older["further_cameras"]
    assert Contract.from_dict(older).cameras_of(2) == CAMERAS[0]
    unknown = dataclasses.replace(contract, further_cameras=((EGO,), (CameraSpec("x", 32, 32),)))
    with pytest.raises(ValueError, match=r"\['x'\] have no view tags"):
        Processor(model.processor.tokenizer, unknown)


def test_every_robot_is_asked_with_its_own_words(model) -> None:
    """There is as much room for text beside one image as beside two."""
    long = "go " * 120
    for place in range(3):
        model.processor.check_instruction(SENTENCES[1], place)
        with pytest.raises(ValueError, match="exceed the contract's prompt_tokens"):
            model.processor.check_instruction(long, place)
