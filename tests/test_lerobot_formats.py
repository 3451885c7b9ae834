"""Both versions, PNG and mp4: what was recorded comes back, frame by frame."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import (
    ACTIONS,
    CAMERAS,
    FPS,
    STATES,
    make_episode,
    make_episodes,
    write_mp4,
    write_v21,
    write_v30,
)

from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.data.video_files import VideoFile
from vlarl.errors import UserError
from vlarl.types import CameraSpec

WRITERS = {
    "v3.0-png": (write_v30, {}, 0),
    "v3.0-h264": (write_v30, {"video": "h264"}, 30),
    "v3.0-av1": (write_v30, {"video": "libsvtav1"}, 30),
    "v2.1-png": (write_v21, {}, 0),
    "v2.1-mp4": (write_v21, {"video": True}, 30),
}
"""Writer, its settings, and how far a pixel of a frame's own corner may be off."""


def corners(images):
    """[T, 2] upper left and lower right, away from edges."""
    return images[:, [8, -8], [8, -8], 0].astype(int)


@pytest.mark.parametrize("name", WRITERS)
def test_episodes_come_back(tmp_path, name):
    write, settings, tolerance = WRITERS[name]
    written = make_episodes(shade=7)
    write(tmp_path / "data", written, **settings)
    reader = LeRobotReader(tmp_path / "data")
    assert (reader.fps, reader.cameras, reader.action_names) == (FPS, CAMERAS, ACTIONS)
    assert set(reader.meta.tasks.values()) == {episode.instruction for episode in written}
    for index in (3, 0, 4, 1, 2):
        found, expected = reader.episode(index), written[index]
        assert np.array_equal(found.state, expected.state)
        assert np.array_equal(found.action, expected.action)
        assert (found.instruction, found.extra) == (expected.instruction, expected.extra)
        for camera, images in expected.images.items():
            error = corners(found.images[camera]) - corners(images)
            assert np.abs(error).max() <= tolerance / 10, "a frame is another's"
            mean = np.abs(found.images[camera].astype(int) - images).mean()
            assert mean <= tolerance / 3


@pytest.mark.parametrize("name", ["v3.0-h264", "v3.0-av1", "v2.1-mp4"])
def test_any_frame_of_a_video_in_any_order(tmp_path, name):
    write, settings, _ = WRITERS[name]
    written = make_episodes((30, 25), shade=8)
    write(tmp_path / "data", written, **settings)
    reader = LeRobotReader(tmp_path / "data")
    for episode in (1, 0):
        frames = np.random.default_rng(episode).permutation(len(written[episode]))[:20].tolist()
        for name_of, images in reader.images(episode, frames).items():
            expected = corners(written[episode].images[name_of])[frames]
            assert np.abs(corners(images) - expected).max() <= 3
    assert reader.videos.opened == (2 if "v3.0" in name else 4)


def test_a_video_that_begins_late_is_read_on_its_own_clock(tmp_path):
    """Time stands in the file, not in the count of frames."""
    images = make_episode(0, 10, shade=20).images["ego"]
    write_mp4(tmp_path / "a.mp4", images)
    video = VideoFile(tmp_path / "a.mp4")
    assert abs(int(video.image(1.02, FPS, CAMERAS[0])[8, 8, 0]) - 100) <= 2
    for seconds in (1.1, 2.0, -0.2):
        with pytest.raises(ValueError, match="is missing"):
            video.image(seconds, FPS, CAMERAS[0])
    with pytest.raises(ValueError, match=r"80 x 64, info\.json says 64 x 64"):
        video.image(0.0, FPS, CAMERAS[1])


def test_several_files_and_row_groups(tmp_path, monkeypatch):
    """Others write one row group for many episodes, and many files."""
    written = make_episodes()
    write_v30(tmp_path / "data", written)
    file = tmp_path / "data/data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table, file, row_group_size=20)
    reader = LeRobotReader(tmp_path / "data")
    for index, expected in enumerate(written):
        found = reader.episode(index)
        assert np.array_equal(found.action, expected.action)
        assert np.array_equal(found.images["ego"], expected.images["ego"])
    monkeypatch.setattr("vlarl.data.lerobot_writer._DATA_MEGABYTES", 0)
    monkeypatch.setattr("vlarl.data.video_track.VIDEO_MEGABYTES", -1)
    write_v30(tmp_path / "many", written, video="h264")
    for kind in ("data/chunk-000/*.parquet", "videos/observation.images.ego/chunk-000/*.mp4"):
        assert len(list((tmp_path / "many").glob(kind))) == len(written)
    reader = LeRobotReader(tmp_path / "many")
    for index, expected in enumerate(written):
        found = reader.episode(index)
        assert np.array_equal(found.action, expected.action)
        assert np.abs(corners(found.images["ego"]) - corners(expected.images["ego"])).max() <= 3


def test_single_channels_are_numbers_not_lists(tmp_path):
    """As LeRobot's reader takes a feature of shape [1]."""
    episode = make_episode(0, 6)
    with LeRobotWriter(tmp_path / "data", FPS, CAMERAS, ("x",), 1, "arm") as writer:
        writer.add(type(episode)(episode.images, episode.state[:, :1], episode.action[:, :1], "a"))
    file = tmp_path / "data/data/chunk-000/file-000.parquet"
    assert pq.read_schema(file).field("action").type == pa.float32()
    found = LeRobotReader(tmp_path / "data").episode(0)
    assert np.array_equal(found.action, episode.action[:, :1])
    assert np.array_equal(found.state, episode.state[:, :1])


def test_a_dataset_without_state(tmp_path):
    episode = make_episode(0, 6)
    nothing = np.zeros((6, 0), np.float32)
    with LeRobotWriter(tmp_path / "data", FPS, CAMERAS, ACTIONS, 0, "arm") as writer:
        writer.add(type(episode)(episode.images, nothing, episode.action, "a"))
    found = LeRobotReader(tmp_path / "data").episode(0)
    assert found.state.shape == (6, 0)
    assert np.array_equal(found.action, episode.action)


def test_a_dataset_without_actions_gets_differences_of_the_state(tmp_path):
    written = make_episodes((8, 6))
    write_v21(tmp_path / "data", written, action=False)
    reader = LeRobotReader(tmp_path / "data")
    assert reader.action_names == STATES
    assert not reader.has_actions
    for index, expected in enumerate(written):
        found = reader.episode(index)
        assert np.array_equal(found.state, expected.state)
        assert np.allclose(found.action[:-1, 0], np.diff(expected.state[:, 0]), atol=1e-7)
        assert not found.action[-1].any()


@pytest.mark.parametrize(
    ("camera", "codec", "words"),
    [
        (CameraSpec("ego", 63, 64), "h264", "64 x 63: mp4 needs even sizes"),
        (CameraSpec("ego", 64, 64), "mpeg2", "choose one of h264, libsvtav1"),
    ],
)
def test_what_cannot_be_encoded_is_refused_at_once(tmp_path, camera, codec, words):
    with pytest.raises(UserError, match=words):
        LeRobotWriter(tmp_path / "data", FPS, [camera], ACTIONS, 4, "arm", video=codec)
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_remedy_is_named(tmp_path, monkeypatch):
    write_v30(tmp_path / "data", make_episodes((6,)), video="h264")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'vlarl\[video\]'"):
        LeRobotReader(tmp_path / "data").episode(0)
    with pytest.raises(UserError, match=r"pip install 'vlarl\[video\]'"):
        write_v30(tmp_path / "more", make_episodes((6,)), video="h264")


def edit_info(path, **values):
    file = path / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: edit_info(path, codebase_version="v1.6"), "v3.0 and v2.1 are read here"),
        (lambda path: edit_info(path, fps="fast"), "fps = 'fast'"),
        (lambda path: edit_info(path, total_episodes=9), "promises 9 episodes"),
        (lambda path: edit_info(path, features={}), "neither a feature 'action' nor"),
        (lambda path: (path / "meta/tasks.jsonl").unlink(), r"tasks\.jsonl is missing"),
        (lambda path: (path / "meta/tasks.jsonl").write_text("{"), r"tasks\.jsonl is not valid"),
        (
            lambda path: (path / "meta/episodes.jsonl").write_text('{"episode_index": 0}\n'),
            r"episodes\.jsonl: entry 0 lacks tasks, length",
        ),
        (lambda path: (path / "meta/episodes.jsonl").write_text(""), "lists no episodes"),
    ],
)
def test_broken_meta_of_v21_is_named(tmp_path, damage, words):
    damage(write_v21(tmp_path / "data", make_episodes((6, 6))))
    with pytest.raises(UserError, match=words):
        LeRobotReader(tmp_path / "data")


def test_channels_first_shapes_are_understood(tmp_path):
    path = write_v21(tmp_path / "data", make_episodes((6,)), video=True)
    info = json.loads((path / "meta/info.json").read_text())
    for key, camera in zip(list(info["features"])[:2], CAMERAS, strict=True):
        info["features"][key]["shape"] = [3, camera.height, camera.width]
        info["features"][key]["names"] = ["channels", "height", "width"]
    edit_info(path, features=info["features"])
    reader = LeRobotReader(path)
    assert reader.cameras == CAMERAS
    assert reader.episode(0).images["ego"].shape == (6, 64, 80, 3)
