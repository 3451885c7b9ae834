"""History: which frames, who remembers them, and how Qwen3.5's video path is fed with them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_policy import EXECUTE, FakePolicy, decoded
from tensordict import TensorDict
from transformers import Qwen3_5ForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from actors.episodes import EpisodeSource, held_out_starts
from actors.player import play
from actors.rollout import RolloutCollector
from envservers.counting import TASKS, CountingSuite
from envservers.inprocess import InprocessClient
from vlarl.config.embodiments import load_embodiment
from vlarl.contract import Contract
from vlarl.data.episode import Episode
from vlarl.data.samples import ChunkDataset
from vlarl.errors import CheckpointError, ConfigError
from vlarl.history import FrameMemory, PastFrames
from vlarl.model.backbone import hidden_states
from vlarl.model.patches import PatchLayout
from vlarl.model.presets import build, channel_bounds_codec, new_contract, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.types import CameraSpec

FRAMES = 4
PAST = PastFrames("ego", (5, 2, 1))
SENTENCES = ["go to the red box", "turn left, go to the blue ball"]


def number_images(numbers: list[int]) -> np.ndarray:
    return np.tile(np.array(numbers, np.uint8)[:, None, None, None], (1, 2, 2, 3))


def random_frames(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def contract_of(history: int = FRAMES) -> Contract:
    cameras = (CameraSpec("ego", 64, 96), CameraSpec("cam_right_wrist", 64, 64))
    embodiment = load_embodiment("vln_agent")
    return new_contract(cameras, embodiment, instructions=SENTENCES, history=history)


def random_model() -> QwenVLA:
    torch.manual_seed(0)
    contract = contract_of()
    return build("tiny", contract, channel_bounds_codec(contract))


def observations(seed: int = 0) -> Observations:
    images = {
        "ego": random_frames(2, 64, 96, seed=seed),
        "cam_right_wrist": random_frames(2, 64, 64, seed=seed),
    }
    return Observations(images, SENTENCES, history=random_frames(2, FRAMES, 64, 96, seed=seed + 1))


@pytest.mark.parametrize(
    ("history_hz", "control_hz", "expected"),
    [
        (2, 2, (4, 3, 2, 1)),
        (2, 5, (10, 8, 5, 3)),
        (2, 30, (60, 45, 30, 15)),
        (0.5, 2, (16, 12, 8, 4)),
    ],
)
def test_frames_come_at_their_rate_whatever_the_control_frequency(history_hz, control_hz, expected):
    assert PastFrames.at("ego", 4, history_hz, control_hz).steps_back == expected


def test_memory_of_an_episode_made_by_hand():
    """Slot 0 shows 10, 11, 12 ...; slot 1 shows 20 and, after its reset, 30, 31 ..."""
    memory = FrameMemory(PAST, 2)
    slots = np.arange(2)
    memory.reset(slots, number_images([10, 20]))
    assert memory.frames()[:, :, 0, 0, 0].tolist() == [[10, 10, 10], [20, 20, 20]]
    memory.advance(slots, [number_images([11, 12, 13]), number_images([21])])
    assert memory.frames()[:, :, 0, 0, 0].tolist() == [[10, 11, 12], [20, 20, 20]]
    memory.reset(np.array([1]), number_images([30]))
    memory.advance(np.array([1, 0]), [number_images(list(range(31, 39))), number_images([14])])
    assert memory.frames()[:, :, 0, 0, 0].tolist() == [[10, 12, 13], [33, 36, 37]]
    again = FrameMemory(PAST, 2)
    again.load_state(memory.state())
    for each in (memory, again):
        each.advance(np.array([0]), [number_images([15, 16])])
    assert np.array_equal(again.frames(), memory.frames())


def test_datasets_show_the_frames_that_a_memory_holds():
    lengths, episodes, number = (3, 9), [], 0
    for length in lengths:
        values = np.zeros((length, 2), np.float32)
        pixels = number_images(list(range(number, number + length)))
        episodes.append(Episode({"ego": pixels}, values, values, "go"))
        number += length
    dataset = ChunkDataset(episodes, horizon=4, past=PAST)
    shown = dataset.chunks(np.arange(number)).observations.history
    frame = 0
    for episode in episodes:
        memory = FrameMemory(PAST, 1)
        memory.reset(np.arange(1), episode.images["ego"][:1])
        for step in range(len(episode)):
            if step:
                memory.advance(np.arange(1), [episode.images["ego"][step : step + 1]])
            assert np.array_equal(shown[frame], memory.frames()[0])
            frame += 1
    assert ChunkDataset(episodes, horizon=4).chunks(np.arange(2)).observations.history is None


@pytest.mark.parametrize(("patch", "height", "width"), [(16, 64, 96), (8, 32, 64)])
def test_video_patches_equal_transformers(patch: int, height: int, width: int) -> None:
    """Its image processor on the odd and on the even frames, and its own arrangement of patches."""
    layout = PatchLayout(patch_size=patch)
    frames = random_frames(2, FRAMES, height, width)
    ours = layout.patchify_video(torch.from_numpy(frames))
    still = Qwen2VLImageProcessorPil(patch_size=patch, merge_size=2, temporal_patch_size=1)
    options = {"do_resize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for row, film in enumerate(frames):
        each = still(list(film), return_tensors="pt", **options)["pixel_values"]
        pairs = each.view(FRAMES // 2, 2, -1, 3, patch, patch).permute(0, 2, 3, 1, 4, 5)
        expected = pairs.reshape(ours.shape[1], -1)
        torch.testing.assert_close(ours[row], expected, atol=1e-6, rtol=0)
    scaled = torch.from_numpy(frames).permute(0, 1, 4, 2, 3) / 127.5 - 1
    arranged, *grid = Qwen3VLVideoProcessor.patchify(None, scaled, patch, 2, 2)
    torch.testing.assert_close(ours, arranged, atol=1e-6, rtol=0)
    assert grid == [FRAMES // 2, *layout.grid(height, width)[1:]]


def test_a_history_without_motion_is_its_frame_as_an_image() -> None:
    layout, frame = PatchLayout(), torch.from_numpy(random_frames(1, 64, 64))
    film = layout.patchify_video(frame[:, None].expand(-1, 2, -1, -1, -1))
    assert torch.equal(film, layout.patchify(frame))


def test_the_text_of_a_video_is_that_of_transformers() -> None:
    model = random_model()
    inputs = model.processor(observations())
    text = model.processor.tokenizer.decode(inputs["input_ids"][0])
    metadata = SimpleNamespace(fps=2.0, frames_indices=list(range(FRAMES)))
    reference = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        _calculate_timestamps=lambda *args: Qwen3VLProcessor._calculate_timestamps(None, *args),
    )
    video = {"video_grid_thw": inputs["video_grid_thw"][0], "video_metadata": [metadata]}
    expected = Qwen3VLProcessor.replace_video_token(reference, video, 0)
    assert expected.startswith("<0.2 seconds><|vision_start|><|video_pad|>")
    assert "<1.2 seconds>" in expected
    assert text.startswith(
        f"<|im_start|>user\n<|ego_start|>{expected}<|vision_start|><|image_pad|>"
    )
    assert text.count("<|video_pad|>") == FRAMES // 2 * 6


def test_positions_equal_transformers() -> None:
    model = random_model()
    inputs = model.processor(observations())
    assert inputs["video_grid_thw"].tolist() == [[[2, 4, 6]], [[2, 4, 6]]]
    assert set(inputs["mm_token_type_ids"].unique().tolist()) == {0, 1, 2}
    expected, _ = model.backbone.model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        inputs["image_grid_thw"].flatten(0, 1),
        inputs["video_grid_thw"].flatten(0, 1),
        attention_mask=inputs["attention_mask"],
    )
    assert torch.equal(inputs["position_ids"], expected.transpose(0, 1))


@torch.no_grad()
def test_hidden_states_equal_plain_transformers() -> None:
    model = random_model()
    plain = Qwen3_5ForConditionalGeneration(model.config)
    plain.load_state_dict(model.backbone.state_dict())
    inputs = model.processor(observations())
    expected = plain.model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        pixel_values=inputs["pixel_values"].flatten(0, 1),
        image_grid_thw=inputs["image_grid_thw"].flatten(0, 1),
        pixel_values_videos=inputs["pixel_values_videos"].flatten(0, 1),
        video_grid_thw=inputs["video_grid_thw"].flatten(0, 1),
    ).last_hidden_state
    used = inputs["attention_mask"].bool()
    ours = hidden_states(model.backbone, inputs)
    torch.testing.assert_close(ours[used], expected[used], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_past_frame_changes_what_the_model_thinks_of_its_own_sample_alone() -> None:
    model, seen = random_model(), observations()
    before = model.encode(model.processor(seen))["hidden"]
    other = seen.history.copy()
    other[0, 1] = 255 - other[0, 1]
    after = model.encode(model.processor(replace(seen, history=other)))["hidden"]
    assert (after[0] - before[0]).abs().max() > 1e-3
    assert (after[1] - before[1]).abs().max() < 1e-5


def test_without_a_history_the_episode_has_just_begun() -> None:
    model, seen = random_model(), observations()
    repeated = np.repeat(seen.images["ego"][:, None], FRAMES, axis=1)
    first = model.processor(replace(seen, history=None))
    again = model.processor(replace(seen, history=repeated))
    assert all(torch.equal(first[key], again[key]) for key in again.keys())  # noqa: SIM118
    with pytest.raises(ValueError, match="history: expected uint8"):
        model.processor(replace(seen, history=seen.history[:, :2]))


def test_questions_are_asked_without_a_history() -> None:
    model, seen = random_model(), observations()
    inputs = model.processor.question(seen.images, ["Where is it?"] * 2)
    assert "pixel_values_videos" not in inputs
    assert set(inputs["mm_token_type_ids"].unique().tolist()) == {0, 1}
    assert torch.isfinite(model.language_logits(inputs)).all()


def test_room_for_the_history_is_reserved() -> None:
    """Two more pairs take, each, the tokens of an image, of its two marks and of a timestamp."""
    longer, shorter = contract_of(8), contract_of(4)
    processor = random_model().processor
    timestamp = len(processor.tokenizer.encode("<2.2 seconds>"))
    assert longer.prompt_tokens - shorter.prompt_tokens == 2 * (6 + 2 + timestamp)
    assert processor.tokens_of("go")[0] == 6 + 4 + FRAMES // 2 * 6


def test_contract_round_trip_and_refusals() -> None:
    contract = contract_of()
    assert Contract.from_dict(contract.to_dict()) == contract
    assert contract.past_frames == PastFrames("ego", (4, 3, 2, 1))
    older = {k: v for k, v in tabletop_contract().to_dict().items() if "history" not in k}
    assert Contract.from_dict(older).past_frames is None
    with pytest.raises(ValueError, match="at most the control frequency, 2 Hz"):
        replace(contract, history_hz=4.0)
    with pytest.raises(ValueError, match="at least 0"):
        replace(contract, history=-1)
    other = replace(load_embodiment("vln_agent"), name="other", control_hz=4.0)
    with pytest.raises(ValueError, match="one control frequency"):
        replace(contract, further_embodiments=(other,))
    with pytest.raises(ConfigError, match=r"share a patch.*model\.history=0"):
        contract_of(3)
    spec = InprocessClient(CountingSuite(1)).spec
    mirrored = replace(contract, cameras=contract.cameras[::-1])
    with pytest.raises(CheckpointError, match="returns those of 'ego'"):
        mirrored.check(spec)


class RememberingPolicy(FakePolicy):
    """Also keeps what it was shown of the past, and of the present that goes with it."""

    past_frames = PAST

    def __init__(self):
        super().__init__()
        self.seen = []

    def act(self, observations, *args, **options):
        decisions = super().act(observations, *args, **options)
        past = observations.history
        rows = decoded(past.reshape(-1, *past.shape[2:])).reshape(*past.shape[:2], 8)
        now = decoded(observations.images["ego"])
        self.seen.append((now, rows))
        if decisions.context is not None:
            decisions.context["past"] = torch.from_numpy(rows)
        return decisions

    def value(self, observations):
        check_past(decoded(observations.images["ego"]), observations.history)
        return super().value(observations)


def check_past(now, history):
    """Same environment, same episode, as many steps earlier as asked, not before its beginning."""
    for row, frames in zip(now, history, strict=True):
        rows = decoded(frames)
        assert (rows[:, 0] == row[0]).all()
        assert (rows[:, 1] == row[1]).all()
        assert rows[:, 2].tolist() == [max(row[2] - back, 0) for back in PAST.steps_back]


def make_collector(policy):
    clients = [InprocessClient(CountingSuite(3, 10)) for _ in range(2)]
    source = EpisodeSource(TASKS, (0,), 6)
    reward = lambda seen: np.zeros(len(seen.after), np.float32)  # noqa: E731
    return RolloutCollector(clients, policy, reward, source, 6, bootstrap_time_limit=True)


def test_rollouts_show_each_decision_the_past_of_its_own_episode():
    policy = RememberingPolicy()
    collector = make_collector(policy)
    for _ in range(3):
        collector.collect()
    steps = {step for now, _ in policy.seen for step in now[:, 2]}
    assert 0 in steps
    assert max(steps) >= EXECUTE


def test_resume_and_loan_keep_the_history():
    first = make_collector(RememberingPolicy())
    first.collect()
    state = first.state_dict()
    other = RememberingPolicy()
    first.lend(lambda clients: play(other, clients, held_out_starts(TASKS, 9, 1_000_000)))
    assert other.seen
    expected = [first.collect()[0] for _ in range(2)]
    second = make_collector(RememberingPolicy())
    second.load_state_dict(state)
    for batch in expected:
        assert (batch == second.collect()[0]).all()


def test_evaluation_shows_the_past_and_films_as_before():
    policy = RememberingPolicy()
    clients = [InprocessClient(CountingSuite(3, 10)) for _ in range(2)]
    starts = held_out_starts(TASKS, 17, 1_000_000)
    records = play(policy, clients, starts, record=2)
    plain = play(FakePolicy(), clients, starts, record=2)
    for one, two in zip(records, plain, strict=True):
        assert (one.success, one.steps) == (two.success, two.steps)
        assert (one.frames is None) == (two.frames is None)
    assert len(records[0].frames) == records[0].steps


def test_inputs_with_a_history_can_be_stacked_and_indexed() -> None:
    model = random_model()
    batch = torch.stack([model.processor(observations(seed)) for seed in (0, 3)], dim=1).flatten(
        0, 1
    )
    assert isinstance(batch, TensorDict)
    alone = model.encode(batch[torch.tensor([3])])["hidden"]
    torch.testing.assert_close(model.encode(batch)["hidden"][3:], alone, atol=1e-5, rtol=1e-4)
