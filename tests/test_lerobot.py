"""LeRobot folders: what is written comes back bit for bit; what is broken is named."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from vlarl.data.episode import Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.errors import UserError
from vlarl.types import CameraSpec

CAMERAS = (CameraSpec("ego", 12, 16), CameraSpec("cam_right_wrist", 8, 8))
LENGTHS = (5, 1, 9)


def make_episode(index: int, length: int) -> Episode:
    random = np.random.default_rng(index)
    return Episode(
        images={
            c.name: random.integers(0, 256, (length, c.height, c.width, 3), dtype=np.uint8)
            for c in CAMERAS
        },
        state=random.normal(size=(length, 4)).astype(np.float32),
        action=random.normal(size=(length, 3)).astype(np.float32),
        instruction=("put the cup down", "öffne die Tür")[index % 2],
        extra={"seed": 100 + index, "success": index != 1, "scene": f"s{index}"},
    )


def write(path) -> list[Episode]:
    episodes = [make_episode(index, length) for index, length in enumerate(LENGTHS)]
    with LeRobotWriter(path, 5.0, CAMERAS, ("x", "y", "grip"), 4, "arm") as writer:
        for episode in episodes:
            writer.add(episode)
    return episodes


def test_round_trip_is_bit_equal(tmp_path):
    written = write(tmp_path / "data")
    reader = LeRobotReader(tmp_path / "data")
    assert (reader.fps, reader.cameras, reader.action_names) == (5.0, CAMERAS, ("x", "y", "grip"))
    assert len(reader) == len(written)
    for index in (2, 0, 1):
        found, expected = reader.episode(index), written[index]
        for name in expected.images:
            assert np.array_equal(found.images[name], expected.images[name])
        assert np.array_equal(found.state, expected.state)
        assert np.array_equal(found.action, expected.action)
        assert (found.instruction, found.extra) == (expected.instruction, expected.extra)
    assert np.array_equal(reader.actions(), np.concatenate([e.action for e in written]))
    assert [p.name for p in tmp_path.iterdir()] == ["data"], "temporary folders are left"


def test_folder_is_what_lerobot_expects(tmp_path):
    write(tmp_path / "data")
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["total_frames"] == sum(LENGTHS)
    assert info["splits"] == {"train": "0:3"}
    file = pq.ParquetFile(tmp_path / "data/data/chunk-000/file-000.parquet")
    assert [file.metadata.row_group(g).num_rows for g in range(3)] == list(LENGTHS)
    table = file.read()
    assert set(table.column_names) == set(info["features"])
    assert table["index"].to_pylist() == list(range(sum(LENGTHS)))
    frame = table["frame_index"].to_numpy()
    assert np.array_equal(table["timestamp"].to_numpy(), (frame / 5.0).astype(np.float32))
    assert table.schema.field("action").type.list_size == 3
    tasks = pq.read_table(tmp_path / "data/meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert [tasks["task"][i.as_py()].as_py() for i in table["task_index"]][5] == "öffne die Tür"


def test_stats_agree_with_numpy(tmp_path):
    episodes = write(tmp_path / "data")
    stats = json.loads((tmp_path / "data/meta/stats.json").read_text())
    action = np.concatenate([e.action for e in episodes])
    assert stats["action"]["mean"] == pytest.approx(action.mean(0).tolist(), rel=1e-5)
    assert stats["action"]["max"] == pytest.approx(action.max(0).tolist())
    pixels = np.concatenate([e.images["ego"] for e in episodes]) / 255.0
    found = stats["observation.images.ego"]
    assert np.allclose(np.ravel(found["mean"]), pixels.mean((0, 1, 2)))
    assert np.allclose(np.ravel(found["std"]), pixels.std((0, 1, 2)))
    assert np.allclose(np.ravel(found["q50"]), np.median(pixels, (0, 1, 2)), atol=1 / 255)
    assert np.shape(found["mean"]) == (3, 1, 1)


def write_and_fail(path) -> None:
    with LeRobotWriter(path, 5.0, CAMERAS, ("x", "y", "grip"), 4, "arm") as writer:
        writer.add(make_episode(0, 3))
        raise ZeroDivisionError


def test_nothing_is_left_when_writing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_is_never_overwritten_nor_empty(tmp_path):
    write(tmp_path / "data")
    with pytest.raises(UserError, match="exists already"):
        LeRobotWriter(tmp_path / "data", 5.0, CAMERAS, ("x",), 4, "arm")
    with (
        pytest.raises(UserError, match="no episodes"),
        LeRobotWriter(tmp_path / "empty", 5.0, CAMERAS, ("x",), 4, "arm"),
    ):
        pass
    assert not (tmp_path / "empty").exists()


def test_episode_of_another_shape_is_refused(tmp_path):
    episode = make_episode(0, 3)
    with LeRobotWriter(tmp_path / "data", 5.0, CAMERAS, ("x", "y", "grip"), 4, "arm") as writer:
        writer.add(episode)
        wider = np.zeros((3, 7), np.float32)
        with pytest.raises(ValueError, match="widths"):
            writer.add(Episode(episode.images, episode.state, wider, "x", episode.extra))
        with pytest.raises(ValueError, match="as many"):
            Episode(episode.images, episode.state[:1], episode.action, "x")


DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.mark.parametrize("name", [DATA, EPISODES, "meta/info.json", "meta/tasks.parquet"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_broken_files_are_named(tmp_path, name, damage):
    write(tmp_path / "data")
    file = tmp_path / "data" / name
    content = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError) as caught:
        LeRobotReader(tmp_path / "data").episode(1)
    expected = file if damage == "truncated" or name != EPISODES else "meta/episodes"
    assert str(expected) in str(caught.value)


def test_damaged_pages_are_named(tmp_path):
    write(tmp_path / "data")
    file = tmp_path / "data" / DATA
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)
    file.write_bytes(content)
    with pytest.raises(UserError, match="file-000"):
        LeRobotReader(tmp_path / "data").episode(0)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("codebase_version", "v2.0", "v2.0"), ("total_frames", 99, "99"), ("fps", None, "fps")],
)
def test_wrong_info_is_refused(tmp_path, key, value, words):
    write(tmp_path / "data")
    path = tmp_path / "data/meta/info.json"
    info = json.loads(path.read_text())
    info[key] = value
    if value is None:
        del info[key]
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match=words):
        LeRobotReader(tmp_path / "data")


def test_no_dataset_at_all(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        LeRobotReader(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"info\.json is missing"):
        LeRobotReader(tmp_path)


def test_names_of_the_state_come_back_and_must_be_as_many(tmp_path):
    names = ("a", "b", "c", "d")
    arguments = (5.0, CAMERAS, ("x", "y", "grip"), 4, "arm")
    with LeRobotWriter(tmp_path / "data", *arguments, state_names=names) as writer:
        writer.add(make_episode(0, 3))
        writer.add(make_episode(1, 4))
    reader = LeRobotReader(tmp_path / "data")
    assert reader.state_names == names
    assert np.array_equal(reader.state(1), make_episode(1, 4).state)
    with pytest.raises(ValueError, match="2 state_names for a state of 4 numbers"):
        LeRobotWriter(tmp_path / "other", *arguments, state_names=names[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
