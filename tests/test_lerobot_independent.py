"""A second reader of v3.0, from the format's page alone, reads what is written here.

It knows parquet, mp4 and JSON, and nothing of this package. It asks for what LeRobot's own reader
relies on: pandas' index in `tasks.parquet`, columns that match `features` one to one, exact Arrow
types, episodes by `dataset_from_index`, video frames within a tenth of a millisecond.
"""

import io
import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from recordings import ACTIONS, FPS, STATES, make_episodes, write_v30

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TYPES = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}
AUTOMATIC = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


class Reader:
    def __init__(self, root):
        self.root = root
        self.info = json.loads((root / "meta/info.json").read_text())
        self.tasks = pq.read_table(root / "meta/tasks.parquet")
        files = sorted((root / "meta/episodes").glob("*/*.parquet"))
        self.episodes = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
        files = sorted((root / "data").glob("*/*.parquet"))
        self.data = pa.concat_tables([pq.read_table(file) for file in files])
        for name, value in json.loads((root / "meta/stats.json").read_text()).items():
            assert {"min", "max", "mean", "std", "count"} <= value.keys(), name

    def check_schema(self):
        features = self.info["features"]
        in_parquet = {key for key, value in features.items() if value["dtype"] != "video"}
        assert set(self.data.column_names) == in_parquet
        assert set(features) >= AUTOMATIC
        for key in in_parquet:
            dtype, shape = features[key]["dtype"], features[key]["shape"]
            if dtype == "image":
                expected = IMAGE
            elif shape == [1]:
                expected = TYPES[dtype]
            else:
                (width,) = shape
                expected = pa.list_(TYPES[dtype], width)
            assert self.data.schema.field(key).type == expected, key
            if features[key]["names"] is not None and dtype != "image":
                assert len(features[key]["names"]) == shape[0]

    def sentences(self):
        """The index that pandas would make of the table of tasks."""
        pandas = json.loads(self.tasks.schema.metadata[b"pandas"])
        (name,) = pandas["index_columns"]
        assert name == "task"
        described = {column["name"] for column in pandas["columns"]}
        assert described == set(self.tasks.column_names)
        pairs = zip(self.tasks["task_index"].to_pylist(), self.tasks[name].to_pylist(), strict=True)
        return dict(pairs)

    def item(self, index):
        """Frame `index` of the dataset, as LeRobot's `__getitem__` puts it together."""
        row = self.data.slice(index, 1).to_pylist()[0]
        assert row["index"] == index
        episode = self.episodes[row["episode_index"]]
        assert episode["dataset_from_index"] <= index < episode["dataset_to_index"]
        assert index - episode["dataset_from_index"] == row["frame_index"]
        assert abs(row["timestamp"] - row["frame_index"] / self.info["fps"]) < 1e-4
        found = {"task": self.sentences()[row["task_index"]], "row": row, "images": {}}
        assert found["task"] in episode["tasks"]
        for key, feature in self.info["features"].items():
            if feature["dtype"] == "image":
                picture = Image.open(io.BytesIO(row[key]["bytes"]))
                assert picture.format == "PNG"
                found["images"][key] = np.asarray(picture)
            elif feature["dtype"] == "video":
                found["images"][key] = self.video_frame(key, episode, row["timestamp"])
        return found

    def video_frame(self, key, episode, timestamp):
        place = {part: episode[f"videos/{key}/{part}"] for part in ("chunk_index", "file_index")}
        time = episode[f"videos/{key}/from_timestamp"] + timestamp
        assert time < episode[f"videos/{key}/to_timestamp"]
        with av.open(
            str(self.root / self.info["video_path"].format(video_key=key, **place))
        ) as file:
            stream = file.streams.video[0]
            assert float(stream.average_rate) == self.info["fps"]
            info = self.info["features"][key]["info"]
            height, width = self.info["features"][key]["shape"][:2]
            assert (stream.height, stream.width) == (height, width)
            assert (info["video.height"], info["video.width"]) == (height, width)
            assert info["video.pix_fmt"] == stream.pix_fmt
            file.seek(int(time / stream.time_base), stream=stream)
            for frame in file.decode(stream):
                if abs(frame.time - time) < 1e-4:
                    return frame.to_ndarray(format="rgb24")
        raise AssertionError(f"no frame of {key} at {time}")


@pytest.mark.parametrize("video", ["", "h264", "libsvtav1"])
def test_another_reader_reads_it(tmp_path, video):
    written = make_episodes(shade=16)
    reader = Reader(write_v30(tmp_path / "data", written, video=video))
    reader.check_schema()
    info = reader.info
    assert info["codebase_version"] == "v3.0"
    assert info["features"]["action"]["names"] == list(ACTIONS)
    assert info["features"]["observation.state"]["names"] == list(STATES)
    assert (info["total_episodes"], info["total_frames"]) == (len(written), len(reader.data))
    assert (info["fps"], info["total_tasks"]) == (FPS, 2)
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    index = 0
    for episode in written:
        for frame in range(len(episode)):
            found = reader.item(index)
            assert found["task"] == episode.instruction
            assert np.array_equal(np.float32(found["row"]["action"]), episode.action[frame])
            assert np.array_equal(
                np.float32(found["row"]["observation.state"]), episode.state[frame]
            )
            for name, images in episode.images.items():
                image = found["images"][f"observation.images.{name}"]
                if video:
                    gap = abs(int(image[8, 8, 0]) - int(images[frame, 8, 8, 0]))
                    assert gap <= 4, "another frame"
                else:
                    assert np.array_equal(image, images[frame])
            index += 1
    assert index == len(reader.data)
