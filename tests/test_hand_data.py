"""Recorded hands: from a dataset to chunks, through training, and back to absolute poses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded_hands import CAMERA, FPS, make_track, make_tracks, write

from actors import cli
from actors.supervise import supervise
from learners.action_loss import encode_chunks
from vlarl.codec import ActionCodec
from vlarl.config.load import load_config
from vlarl.config.schema import SamplingConfig
from vlarl.data.hand_fit import read_eigengrasps
from vlarl.data.hand_recording import STATE_NAMES, HandTrack, read_tracks, state_of, tracks_of
from vlarl.data.hand_samples import HandChunks, HandSource
from vlarl.data.hands import SIDES, Eigengrasps, Wrist, decode_hands, fit_eigengrasps
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.samples import ChunkDataset
from vlarl.errors import ConfigError, UserError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.rotations import angle_between

HORIZON = 16


def fitted(tracks: list[dict[str, HandTrack]]) -> Eigengrasps:
    sides = [np.concatenate([t[side].pose[t[side].seen] for t in tracks]) for side in SIDES]
    return fit_eigengrasps(*sides)


def hidden(track: HandTrack, frames: slice, value: float = 0.0) -> HandTrack:
    """The track, unseen in `frames`, with `value` for all its numbers there."""
    seen, pose, position = track.seen.copy(), track.pose.copy(), track.wrist.position.copy()
    seen[frames], pose[frames], position[frames] = False, value, value
    return HandTrack(Wrist(position, track.wrist.rotation), pose, seen)


def test_a_dataset_gives_back_the_poses_that_were_written(tmp_path: Path) -> None:
    written = make_tracks()
    written[1]["left"] = hidden(written[1]["left"], slice(4, 9))
    reader = LeRobotReader(write(tmp_path / "data", written))
    assert reader.state_names == STATE_NAMES
    for found, expected in zip(read_tracks(reader), written, strict=True):
        for side in SIDES:
            seen = expected[side].seen
            np.testing.assert_array_equal(found[side].seen, seen)
            ours, theirs = found[side].wrist, expected[side].wrist
            np.testing.assert_allclose(ours.position[seen], theirs.position[seen], atol=1e-6)
            assert angle_between(ours.rotation, theirs.rotation)[seen].max() < 1e-6
            np.testing.assert_allclose(found[side].pose[seen], expected[side].pose[seen], atol=1e-6)


def test_columns_are_found_by_name_and_nan_is_unseen() -> None:
    tracks = {side: make_track(n, 12) for n, side in enumerate(SIDES)}
    state, order = state_of(tracks), np.random.default_rng(0).permutation(len(STATE_NAMES))
    names = [STATE_NAMES[i] for i in order]
    found = tracks_of(np.column_stack([state[:, order], np.ones(12)]), [*names, "battery"])
    np.testing.assert_allclose(found["left"].pose, tracks["left"].pose, atol=1e-6)
    state[3:5, STATE_NAMES.index("right_wrist_y")] = np.nan
    kept = [i for i, name in enumerate(STATE_NAMES) if not name.endswith("_seen")]
    found = tracks_of(state[:, kept], [STATE_NAMES[i] for i in kept])
    assert found["left"].seen.all()
    assert np.nonzero(~found["right"].seen)[0].tolist() == [3, 4]
    assert np.isfinite(found["right"].wrist.rotation).all()


def test_chunks_decode_to_the_recorded_poses() -> None:
    tracks = make_tracks(episodes=2)
    grasps = fitted(tracks)
    hands = HandChunks(tracks, grasps, HORIZON)
    lost = 0.0
    for frame in (0, 7, 30, 39, 40, 84):
        number, own = (0, frame) if frame < 40 else (1, frame - 40)
        actions = hands.actions(np.array([frame]))
        wrists, poses = decode_hands(actions, hands.start(np.array([frame])), grasps)
        steps = np.minimum(own + np.arange(1, HORIZON + 1), len(tracks[number]["left"]) - 1)
        for side in SIDES:
            expected = tracks[number][side]
            np.testing.assert_allclose(
                wrists[side].position[0], expected.wrist.position[steps], atol=1e-5
            )
            turned = angle_between(wrists[side].rotation[0], expected.wrist.rotation[steps])
            assert turned.max() < 1e-5
            again = grasps.pose(grasps.weights(expected.pose[steps], side), side)
            np.testing.assert_allclose(poses[side][0], again, atol=1e-4)
            lost = max(lost, float(np.abs(poses[side][0] - expected.pose[steps]).max()))
    # Noise of 0.02 in 45 directions, of which ten come back.
    assert 0.001 < lost < 0.1


def test_a_hand_that_is_lost_within_a_chunk_does_not_count() -> None:
    tracks = make_tracks(episodes=1, frames=60)
    tracks[0]["left"] = hidden(tracks[0]["left"], slice(30, 35))
    hands = HandChunks(tracks, fitted(tracks), HORIZON)
    left = np.nonzero(~hands.counts[:, 0])[0]
    assert left.tolist() == list(range(30 - HORIZON, 35))
    assert hands.counts[:, 1].all()
    channels = hands.channels(np.array([13, 14, 34, 35]))
    assert channels[:, :16].any(axis=1).tolist() == [True, False, False, True]
    assert channels[:, 16:].all()
    tracks[0]["right"] = hidden(tracks[0]["right"], slice(20, 25))
    starts = HandChunks(tracks, fitted(tracks), HORIZON).starts
    assert set(range(60)) - set(starts.tolist()) == set(range(14, 25))


def test_what_stands_where_a_hand_is_unseen_changes_nothing(tmp_path: Path) -> None:
    found = []
    for number, value in enumerate((0.0, 99.0)):
        tracks = make_tracks(episodes=2)
        tracks[0]["left"] = hidden(tracks[0]["left"], slice(10, 20), value)
        grasps = fitted(tracks)
        hands = HandChunks(tracks, grasps, HORIZON)
        reader = LeRobotReader(write(tmp_path / str(number), tracks))
        dataset = HandSource(ChunkDataset.read(reader, HORIZON), hands)
        codec = ActionCodec(hands.stats(), HORIZON)
        clean, mask = encode_chunks([codec], dataset.chunks(np.arange(len(dataset))))
        found.append((clean, mask, hands.stats().high))
    (clean, mask, high), (other, other_mask, other_high) = found
    assert torch.equal(clean, other)
    assert torch.equal(mask, other_mask)
    np.testing.assert_array_equal(high, other_high)
    assert not mask[0, :, :16].any()
    assert mask[0, :, 16:32].all()
    assert not mask[..., 32:].any()


def test_statistics_are_those_of_the_chunks() -> None:
    tracks = make_tracks()
    hands = HandChunks(tracks, fitted(tracks), HORIZON)
    every = hands.actions(np.arange(len(hands.counts))).reshape(-1, 32)
    stats = hands.stats()
    assert (every.min(0) <= stats.low).all()
    assert ((every < stats.low).mean(axis=0) < 0.012).all()
    assert ((every > stats.high).mean(axis=0) < 0.012).all()
    alone = [{**t, "left": hidden(t["left"], slice(None))} for t in tracks]
    right = fit_eigengrasps(np.empty((0, 45)), np.concatenate([t["right"].pose for t in tracks]))
    stats = HandChunks(alone, right, HORIZON).stats()
    assert not stats.low[:16].any()
    assert not stats.high[:16].any()
    assert (stats.high[16:] > stats.low[16:]).all()


def test_mistakes_in_a_recording_name_episode_and_frame(tmp_path: Path) -> None:
    tracks = make_tracks(episodes=2)
    turned = tracks[1]["right"]
    turned.pose[5] = np.degrees(turned.pose[5])
    reader = LeRobotReader(write(tmp_path / "data", tracks))
    with pytest.raises(UserError, match=r"episode 1: frame 5: right_joint_\d+ turns .* degrees\?"):
        read_tracks(reader)
    state = state_of({side: make_track(n, 12) for n, side in enumerate(SIDES)})
    with pytest.raises(ValueError, match="lacks 51 of the 51 numbers of the left hand"):
        tracks_of(state, [f"number_{i}" for i in range(len(STATE_NAMES))])
    state[4, STATE_NAMES.index("left_seen")] = 0.5
    with pytest.raises(ValueError, match=r"frame 4: left_seen = 0\.5"):
        tracks_of(state, STATE_NAMES)
    tracks = [{side: hidden(t, slice(9, None, 10)) for side, t in make_tracks()[0].items()}]
    with pytest.raises(ValueError, match="no hand was seen throughout any chunk of 16"):
        HandChunks(tracks, fitted(tracks), HORIZON)
    few = replace(fitted(make_tracks()), basis=np.eye(45)[:9])
    with pytest.raises(ValueError, match="9 eigengrasps; the channels are for 10"):
        HandChunks(make_tracks(), few, HORIZON)


def test_the_command_fits_and_says_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "data", make_tracks()), tmp_path / "fit"
    assert cli.run(["data", "hands", str(data), f"out={out}", "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["out"] == str(out / "hands.json")
    assert answer["frames"] == {"left": 135, "right": 135}
    for side in SIDES:
        found = answer["reconstruction"][side]
        assert 0 < found["mean_degrees"] < found["p95_degrees"] < 10
        assert 0.5 < found["explained_variance"] < 1
        assert np.mean(found["joints"]["mean_degrees"]) == pytest.approx(found["mean_degrees"])
    grasps = fitted(read_tracks(LeRobotReader(data)))
    np.testing.assert_array_equal(read_eigengrasps(out).basis, grasps.basis)
    assert "10 of 45 components" in captured.err
    assert cli.run(["data", "hands", str(data), f"out={out}"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.run(["data", "hands", str(data)]) == 2
    assert "needs out=" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset of hands, and the checkpoint of two steps of training on it."""
    folder = tmp_path_factory.mktemp("hands")
    tracks = make_tracks()
    tracks[0]["left"] = hidden(tracks[0]["left"], slice(10, 20))
    data = write(folder / "data", tracks)
    assert cli.run(["data", "hands", str(data), f"out={folder / 'hands.json'}"]) == 0
    result = supervise(config(folder, data, "name=first"))
    assert result["steps"] == 2
    assert np.isfinite(result["action_loss"])
    return data, Path(result["checkpoint"])


def config(folder: Path, data: Path, *more: str):
    overrides = [
        f"output={folder}",
        "stage=sft",
        "supervised.steps=2",
        "supervised.batch_size=4",
        "supervised.optimizer.learning_rates={expert: 1e-3, language: 1e-4}",
        "supervised.optimizer.warmup_steps=0",
        f"supervised.data.path={data}",
        f"supervised.data.eigengrasps={folder / 'hands.json'}",
        *more,
    ]
    return load_config(None, overrides)


def test_training_on_hands_leaves_a_checkpoint_that_decodes_to_poses(
    trained: tuple[Path, Path],
) -> None:
    data, checkpoint = trained
    model, grasps = QwenVLA.from_pretrained(checkpoint), read_eigengrasps(checkpoint)
    robot = model.contract.embodiment
    assert (robot.name, robot.control_hz, len(robot.channels)) == ("human_hands", FPS, 32)
    assert model.contract.cameras == (CAMERA,)
    reader = LeRobotReader(data)
    episode, tracks = reader.episode(2), read_tracks(reader)
    seen = Observations({"ego": episode.images["ego"][:1]}, (episode.instruction,))
    policy = Policy(model, SamplingConfig(execute_steps=HORIZON))
    acted = policy.act(seen, torch.Generator().manual_seed(0), explore=False).actions
    hands = HandChunks(tracks, grasps, model.contract.horizon)
    first = np.array([85])
    wrists, poses = decode_hands(acted, hands.start(first), grasps)
    assert wrists["left"].position.shape == (1, 16, 3)
    assert poses["right"].shape == (1, 16, 45)
    # What the checkpoint's own statistics do not clip comes back through the model's tensor.
    frames = np.arange(len(hands.counts))[hands.counts.all(axis=1)]
    given = hands.actions(frames)
    inside = ((given >= model.codec.stats.low) & (given <= model.codec.stats.high)).all((1, 2))
    assert inside.sum() > 5
    encoded, _ = model.codec.encode(given[inside])
    wrists, _ = decode_hands(model.codec.decode(encoded), hands.start(frames[inside]), grasps)
    exact, _ = decode_hands(given[inside], hands.start(frames[inside]), grasps)
    for side in SIDES:
        np.testing.assert_allclose(wrists[side].position, exact[side].position, atol=1e-5)


def test_a_dataset_that_does_not_fit_is_refused(trained: tuple[Path, Path]) -> None:
    data, checkpoint = trained
    folder = data.parent
    slow = folder / "slow"
    if not slow.exists():
        write(slow, make_tracks(episodes=1), fps=10.0)
    with pytest.raises(UserError, match="fps: 10; human_hands has 30"):
        supervise(config(folder, slow, f"model.checkpoint={checkpoint}"))
    with pytest.raises(UserError, match="tabletop_arm, whose channels are not those of human_hand"):
        supervise(config(folder, data, "model.checkpoint=tabletop-sft"))
    other = folder / "other.json"
    other.write_text(json.dumps({"eigengrasps": fitted(make_tracks(1)).to_dict()}))
    changed = [f"model.checkpoint={checkpoint}", f"supervised.data.eigengrasps={other}"]
    with pytest.raises(UserError, match="was trained with others"):
        supervise(config(folder, data, *changed))
    with pytest.raises(UserError, match="is missing; `vlarl data hands"):
        supervise(config(folder, data, "supervised.data.eigengrasps=nowhere.json"))
    with pytest.raises(ConfigError, match="none has human hands"):
        config(folder, data, "supervised.eval_every=1")
    with pytest.raises(ConfigError, match="needs recorded hands"):
        config(folder, data, "supervised.data.path=")
