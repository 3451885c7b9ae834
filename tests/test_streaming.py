"""Streaming serves what memory would, opens files once, and keeps no more than it may."""

import json
import pickle

import numpy as np
import pytest
from recordings import make_episodes, write_v21, write_v30
from torch.utils.data import DataLoader

from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.samples import BatchSampler, ChunkDataset
from vlarl.data.skipped import SkippedEpisodes, readable_actions
from vlarl.data.streaming import StreamingChunks, as_is, open_chunks
from vlarl.errors import UserError
from vlarl.history import PastFrames

HORIZON = 4
DATA = "data/chunk-000/file-000.parquet"


def in_memory(path, limit=0.0, past=None):
    reader = LeRobotReader(path)
    return ChunkDataset.read(reader, HORIZON, past, SkippedEpisodes(path, len(reader), limit))


def streaming(path, cache_bytes=10**6, limit=0.0, past=None):
    reader = LeRobotReader(path, cache_bytes)
    return StreamingChunks(reader, HORIZON, SkippedEpisodes(path, len(reader), limit), past)


def assert_same(one, other):
    seen, other_seen = one.observations, other.observations
    assert seen.images.keys() == other_seen.images.keys()
    for name, images in seen.images.items():
        assert np.array_equal(images, other_seen.images[name])
    assert seen.instructions == other_seen.instructions
    assert np.array_equal(seen.state, other_seen.state)
    assert np.array_equal(one.actions, other.actions)
    assert np.array_equal(one.action_is_pad, other.action_is_pad)


@pytest.mark.parametrize(
    ("write", "settings"),
    [
        (write_v30, {}),
        (write_v30, {"video": "h264"}),
        (write_v21, {}),
        (write_v21, {"video": True}),
    ],
)
def test_batches_are_those_of_memory(tmp_path, write, settings):
    path = write(tmp_path / "data", make_episodes(), **settings)
    one, other = in_memory(path), streaming(path)
    assert len(one) == len(other) == 57
    assert one.sentences == other.sentences
    sampler = BatchSampler(len(one), 16, seed=3)
    for step in (0, 5, 1):
        frames = sampler.indices(step)
        assert_same(one.chunks(frames), other.chunks(frames))


@pytest.mark.parametrize("settings", [{}, {"video": "h264"}])
def test_histories_are_those_of_memory_and_end_at_the_first_frame(tmp_path, settings):
    path = write_v30(tmp_path / "data", make_episodes(), **settings)
    past = PastFrames(LeRobotReader(path).cameras[0].name, (4, 2))
    one, other = in_memory(path, past=past), streaming(path, past=past)
    frames = np.array([14, 5, 12, 0, 56])
    expected, found = (each.chunks(frames).observations.history for each in (one, other))
    assert found.shape[:2] == (5, 2)
    assert np.array_equal(found, expected)
    images = other.chunks(np.arange(len(other))).observations.images[past.camera]
    # Episodes begin at frames 0, 12, 21, 36 and 46.
    assert np.array_equal(found, images[[[12, 12], [1, 3], [12, 12], [0, 0], [52, 54]]])


def test_padding_is_what_lies_beyond_the_end(tmp_path):
    path = write_v30(tmp_path / "data", make_episodes((6, 5)))
    batch = streaming(path).chunks(np.array([0, 2, 3, 5, 10]))
    assert batch.action_is_pad.sum(1).tolist() == [0, 0, 1, 3, 3]
    assert (batch.actions[3] == batch.actions[3, :1]).all()


class Counting(StreamingChunks):
    """Adds to each batch how many files its process has opened."""

    def __getitems__(self, frames):
        return super().__getitems__(frames), self.reader.rows.opened, self.reader.videos.opened


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_each_worker_opens_each_file_once(tmp_path, start_method):
    path = write_v21(tmp_path / "data", make_episodes(), video=True)
    reader = LeRobotReader(path)
    dataset = Counting(reader, HORIZON, SkippedEpisodes(path, len(reader), 0.0))
    dataset.chunks(np.arange(len(dataset)))
    assert (reader.rows.opened, reader.videos.opened) == (5, 10)
    batches = BatchSampler(len(dataset), 8, 0)
    frames = [batches.indices(step).tolist() for step in range(24)]
    loader = DataLoader(
        dataset,
        batch_sampler=frames,
        num_workers=2,
        collate_fn=as_is,
        multiprocessing_context=start_method,
    )
    memory, opens = in_memory(path), []
    for wanted, (batch, files, videos) in zip(frames, loader, strict=True):
        assert_same(batch, memory.chunks(np.array(wanted)))
        opens.append((files, videos))
    # 12 batches of 8 of each worker, from 5 files with two videos each.
    assert max(opens) == (5, 10)
    assert (reader.rows.opened, reader.videos.opened) == (5, 10), "the parent's are its own"


def test_what_is_kept_is_bounded_and_used(tmp_path):
    path = write_v30(tmp_path / "data", make_episodes((40,) * 12))
    size = (path / DATA).stat().st_size
    dataset = streaming(path, cache_bytes=size // 4)
    rows, sampler = dataset.reader.rows, BatchSampler(len(dataset), 8, 0)
    kept = []
    for step in range(30):
        dataset.chunks(sampler.indices(step))
        kept.append(rows.cached_bytes)
        assert sum(table.nbytes for table in rows._groups.values()) == rows.cached_bytes
    assert size // 8 < max(kept) <= size // 4
    assert rows.opened == 1
    dataset.chunks(np.arange(8))
    before = list(rows._groups)
    dataset.chunks(np.arange(8))
    assert list(rows._groups) == before, "the same rows are read again"


def test_workers_share_what_may_be_kept(tmp_path):
    path = write_v30(tmp_path / "data", make_episodes((40,) * 12))
    reader = LeRobotReader(path)
    size = (path / DATA).stat().st_size // 2
    skipped = SkippedEpisodes(path, len(reader), 0.0)
    kept = []
    for workers in (0, 2, 10**9):
        dataset = open_chunks(reader, HORIZON, size, skipped, workers=workers)
        dataset.chunks(np.arange(0, len(dataset), 10))
        kept.append(dataset.reader.rows.cached_bytes)
    assert size >= kept[0] >= kept[1] > kept[2] == 0
    assert kept[1] <= size // 2


def test_no_more_files_stay_open_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("vlarl.data.parquet_rows.OPEN_FILES", 2)
    monkeypatch.setattr("vlarl.data.video_files.OPEN_VIDEOS", 2)
    path = write_v21(tmp_path / "data", make_episodes(), video=True)
    dataset = streaming(path)
    expected = in_memory(path)
    frames = np.arange(len(dataset))[::3]
    assert_same(dataset.chunks(frames), expected.chunks(frames))
    assert len(dataset.reader.rows._files) == len(dataset.reader.videos._files) == 2


def test_a_pickled_dataset_begins_afresh(tmp_path):
    path = write_v30(tmp_path / "data", make_episodes())
    dataset = streaming(path)
    batch = dataset.chunks(np.arange(9))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.reader.rows.opened == again.reader.rows.cached_bytes == 0
    assert_same(again.chunks(np.arange(9)), batch)


def corrupt_image(path, episode, frame):
    """Overwrite the inside of one PNG; the file stays valid parquet."""
    import pyarrow.parquet as pq

    file = path / DATA
    table, key = pq.read_table(file), "observation.images.ego"
    at = [
        row
        for row, (e, f) in enumerate(
            zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        )
        if (e, f) == (episode, frame)
    ]
    values = table[key].to_pylist()
    content = bytearray(values[at[0]]["bytes"])
    content[40:] = bytes(len(content) - 40)
    values[at[0]]["bytes"] = bytes(content)
    column = table.schema.field(key)
    index = table.schema.get_field_index(key)
    import pyarrow as pa

    pq.write_table(table.set_column(index, column, pa.array(values, column.type)), file)


def test_a_corrupt_episode_is_skipped_counted_and_named(tmp_path, capsys):
    path = write_v30(tmp_path / "data", make_episodes())
    whole = in_memory(path)
    corrupt_image(path, episode=1, frame=4)
    dataset = streaming(path, limit=0.2)
    batch = dataset.chunks(np.array([3, 12 + 4, 30]))
    # The first frame of episode 2 stands in for the frame that cannot be read.
    assert_same(batch, whole.chunks(np.array([3, 12 + 9, 30])))
    assert_same(dataset.chunks(np.array([12 + 4])), whole.chunks(np.array([12 + 9])))
    assert list(dataset.skipped.reasons) == [1]
    message = capsys.readouterr().err
    assert message.count("skipped") == 1
    assert "episode 1, image 4 of ego is damaged" in message
    loaded = in_memory(path, limit=0.2)
    assert len(loaded) == len(whole) - 9
    assert_same(loaded.chunks(np.array([12])), whole.chunks(np.array([12 + 9])))


@pytest.mark.parametrize("load", [in_memory, streaming])
def test_too_many_corrupt_episodes_stop_the_run(tmp_path, load):
    path = write_v30(tmp_path / "data", make_episodes())
    corrupt_image(path, episode=1, frame=4)
    corrupt_image(path, episode=3, frame=0)
    words = r"2 of 5 episodes are corrupt \(1, 3\), more than supervised\.data\.skip_limit=0\.3"

    def read_all():
        dataset = load(path, limit=0.3)
        dataset.chunks(np.arange(len(dataset)))

    with pytest.raises(UserError, match=words):
        read_all()


def test_numbers_of_a_lost_file_are_left_out(tmp_path):
    path = write_v21(tmp_path / "data", make_episodes())
    expected = LeRobotReader(path).actions()
    (path / "data/chunk-000/episode_000004.parquet").unlink()
    reader = LeRobotReader(path)
    skipped = SkippedEpisodes(path, len(reader), 0.2)
    assert np.array_equal(readable_actions(reader, skipped), expected[: -reader.episodes[4].length])
    assert "episode_000004.parquet is missing" in skipped.reasons[4]
    edited = json.loads((path / "meta/info.json").read_text())
    assert edited["total_episodes"] == 5, "meta still promises it"
