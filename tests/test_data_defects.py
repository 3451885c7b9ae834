"""`vlarl data validate` finds what was planted in a real dataset, that, and nothing else."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import make_episode, make_episodes, write_lines, write_v21, write_v30

from actors import cli
from vlarl.data.defects import Defect, validate
from vlarl.data.episode import Episode

IMAGE = "observation.images.ego"


class Planter:
    """Edits the files of a dataset of either version."""

    def __init__(self, path):
        self.path, self.legacy = path, (path / "meta/episodes.jsonl").exists()

    def data(self, episode):
        name = f"episode_{episode:06d}" if self.legacy else "file-000"
        return self.path / f"data/chunk-000/{name}.parquet"

    def video(self, episode):
        key = f"videos/chunk-000/{IMAGE}/episode_{episode:06d}.mp4"
        return self.path / (key if self.legacy else f"videos/{IMAGE}/chunk-000/file-000.mp4")

    def row(self, table, episode, frame):
        pairs = zip(
            table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True
        )
        return list(pairs).index((episode, frame))

    def change(self, episode, frame, key, value):
        file = self.data(episode)
        table = pq.read_table(file)
        values = table[key].to_pylist()
        row = self.row(table, episode, frame)
        values[row] = value(values[row]) if callable(value) else value
        place, field = table.schema.get_field_index(key), table.schema.field(key)
        pq.write_table(table.set_column(place, field, pa.array(values, field.type)), file)

    def drop(self, episode, frame):
        file = self.data(episode)
        table = pq.read_table(file)
        keep = np.arange(len(table)) != self.row(table, episode, frame)
        pq.write_table(table.filter(pa.array(keep)), file)


def damaged(image):
    content = bytearray(image["bytes"])
    content[60:] = bytes(len(content) - 60)
    return {"bytes": bytes(content), "path": None}


def flat(image):
    from vlarl.data.png import encode_png

    return {"bytes": encode_png(np.zeros((64, 80, 3), np.uint8)), "path": None}


def frame_defects(plant):
    """Each plants one defect of one frame: its kind, episode and frame."""
    return {
        "missing row": (lambda: plant.drop(1, 3), ("missing_frame", 1, 3)),
        "damaged image": (lambda: plant.change(2, 7, IMAGE, damaged), ("corrupt_frame", 2, 7)),
        "no image": (
            lambda: plant.change(0, 0, IMAGE, {"bytes": None, "path": None}),
            ("missing_frame", 0, 0),
        ),
        "flat image": (lambda: plant.change(3, 9, IMAGE, flat), ("corrupt_frame", 3, 9)),
        "infinite": (
            lambda: plant.change(1, 8, "action", [0.0, float("nan"), 0.0]),
            ("corrupt_frame", 1, 8),
        ),
        "late": (
            lambda: plant.change(4, 2, "timestamp", lambda t: t + 0.01),
            ("timestamp", 4, 2),
        ),
        "unknown task": (lambda: plant.change(2, 0, "task_index", 7), ("language", 2, 0)),
    }


NAMES = list(frame_defects(None))


def places(defects):
    return [(defect.kind, defect.episode, defect.frame) for defect in defects]


@pytest.mark.parametrize("write", [write_v30, write_v21])
@pytest.mark.parametrize("name", NAMES)
def test_one_frame(tmp_path, write, name):
    plant = Planter(write(tmp_path / "data", make_episodes()))
    assert validate(plant.path) == []
    act, expected = frame_defects(plant)[name]
    act()
    assert places(validate(plant.path)) == [expected]


def test_several_at_once_are_sorted(tmp_path):
    plant = Planter(write_v30(tmp_path / "data", make_episodes()))
    planted = frame_defects(plant)
    for name in NAMES:
        planted[name][0]()
    expected = sorted((place for _, place in planted.values()), key=lambda p: (p[1], p[2]))
    assert places(validate(plant.path)) == expected


@pytest.mark.parametrize(
    ("write", "settings"), [(write_v30, {"video": "h264"}), (write_v21, {"video": True})]
)
def test_damaged_video(tmp_path, write, settings):
    plant = Planter(write(tmp_path / "data", make_episodes((30, 30)), **settings))
    assert validate(plant.path) == []
    file = plant.video(0)
    content = bytearray(file.read_bytes())
    at = content.find(b"mdat") + (len(content) - content.find(b"mdat")) // 3
    content[at : at + 200] = bytes(200)
    file.write_bytes(content)
    found = validate(plant.path)
    assert {defect.kind for defect in found} == {"corrupt_frame"}
    assert all("image of ego at" in defect.message for defect in found)
    frames = [defect.frame for defect in found]
    assert frames == list(range(frames[0], frames[-1] + 1)), "one group of pictures"


def test_a_video_that_is_too_short(tmp_path):
    episodes = make_episodes((20, 20))
    plant = Planter(write_v21(tmp_path / "data", episodes, video=True))
    from recordings import write_mp4

    write_mp4(plant.video(1), episodes[1].images["ego"][:18])
    assert places(validate(plant.path)) == [("missing_frame", 1, 18), ("missing_frame", 1, 19)]


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_file_that_cannot_be_read(tmp_path, damage):
    plant = Planter(write_v21(tmp_path / "data", make_episodes(), video=True))
    for file in (plant.data(3), plant.video(1)):
        content = file.read_bytes()
        file.unlink()
        if damage == "truncated":
            file.write_bytes(content[: len(content) // 2])
    found = validate(plant.path)
    assert places(found) == [("unreadable_file", 1, None), ("unreadable_file", 3, None)]
    assert str(plant.video(1)) in found[0].message
    assert str(plant.data(3)) in found[1].message


@pytest.mark.parametrize("write", [write_v30, write_v21])
def test_an_episode_that_stands_still(tmp_path, write):
    episodes = make_episodes()
    still = episodes[2]
    action = np.tile(still.action[:1], (len(still), 1))
    action[3] += 1e-6
    episodes[2] = Episode(still.images, still.state, action, still.instruction, still.extra)
    found = validate(write(tmp_path / "data", episodes))
    assert places(found) == [("static_actions", 2, None)]


@pytest.mark.parametrize(("length", "is_odd"), [(2, True), (5, False), (30, False), (60, True)])
def test_lengths(tmp_path, length, is_odd):
    episodes = [*make_episodes((12, 14, 11, 13)), make_episode(4, length)]
    found = validate(write_v30(tmp_path / "data", episodes))
    assert places(found) == ([("length", 4, None)] if is_odd else [])


def test_language_of_episodes(tmp_path):
    episodes = make_episodes()
    blank = episodes[3]
    episodes[3] = Episode(blank.images, blank.state, blank.action, " ", blank.extra)
    path = write_v21(tmp_path / "data", episodes)
    rows = [json.loads(line) for line in (path / "meta/episodes.jsonl").read_text().splitlines()]
    rows[1]["tasks"] = ["sing a song"]
    rows[4]["tasks"] = []
    write_lines(path / "meta/episodes.jsonl", rows)
    found = validate(path)
    assert {(d.episode, d.kind) for d in found} == {(i, "language") for i in (1, 3, 4)}
    assert "'sing a song' is none of the dataset's tasks" in found[0].message
    assert any("blank" in d.message for d in found if d.episode == 3)
    assert any("names no task" in d.message for d in found if d.episode == 4)


def test_statistics_of_v30(tmp_path):
    path = write_v30(tmp_path / "data", make_episodes())
    file = path / "meta/stats.json"
    stats = json.loads(file.read_text())
    stats["action"]["mean"][1] += 0.1
    file.write_text(json.dumps(stats))
    (found,) = validate(path)
    assert (found.kind, found.episode, found.frame) == ("statistics", None, None)
    assert "action: mean of channel 1" in found.message
    del stats["observation.state"]
    stats["action"]["mean"][1] -= 0.1
    stats["action"]["count"] = [3]
    file.write_text(json.dumps(stats))
    messages = [defect.message for defect in validate(path)]
    assert len(messages) == 2
    assert any("count is [3], of the data 57" in message for message in messages)
    assert any("observation.state: no statistics" in message for message in messages)


def test_statistics_of_v21_are_of_episodes(tmp_path):
    path = write_v21(tmp_path / "data", make_episodes())
    file = path / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3]["stats"]["observation.state"]["max"][0] += 0.5
    write_lines(file, rows)
    (found,) = validate(path)
    assert (found.kind, found.episode) == ("statistics", 3)
    assert "observation.state: max of channel 0" in found.message


def test_long_recordings_are_on_the_grid(tmp_path):
    """A float32 of thousands of seconds is no exact multiple of the frame time."""
    from vlarl.data.defects import Inspection, check_timestamps
    from vlarl.data.lerobot_reader import LeRobotReader

    row = LeRobotReader(write_v30(tmp_path / "data", make_episodes((4,)))).episodes[0]
    frames = np.arange(300_000, 300_050)
    times = (frames / 30).astype(np.float32).astype(np.float64)
    inspection = Inspection(row, frames, times, np.zeros(50, np.int64), {})
    check_timestamps(inspection, 30.0)
    assert not inspection.defects
    inspection.timestamp[7] += 0.02
    check_timestamps(inspection, 30.0)
    assert places(inspection.defects) == [("timestamp", 0, 300_007)]


def test_meta_that_cannot_be_read_is_a_defect(tmp_path):
    path = write_v30(tmp_path / "data", make_episodes((6, 6)))
    (path / "meta/info.json").unlink()
    (found,) = validate(path)
    assert found == Defect("metadata", None, None, found.message)
    assert "info.json is missing" in found.message


def test_command_line(tmp_path, capsys):
    plant = Planter(write_v30(tmp_path / "data", make_episodes((8, 9))))
    words = ["data", "validate", str(plant.path)]
    assert cli.run(words) == 0
    assert "no defects" in capsys.readouterr().out
    plant.drop(1, 4)
    assert cli.run([*words, "--json"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["counts"] == {"missing_frame": 1}
    assert [(d["episode"], d["frame"]) for d in result["defects"]] == [(1, 4)]
    assert "episode 1, frame 4" in captured.err
