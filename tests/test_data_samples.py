"""Training samples: chunks stay within their episode, batches depend on seed and step alone."""

import numpy as np

from vlarl.data.episode import Episode
from vlarl.data.samples import BatchSampler, ChunkDataset

LENGTHS = (3, 7, 1)
HORIZON = 4


def make_dataset() -> ChunkDataset:
    """Every frame is its own number: in its image, its state and its action."""
    episodes, number = [], 0
    for index, length in enumerate(LENGTHS):
        frames = np.arange(number, number + length)
        pixels = np.tile(frames[:, None, None, None], (1, 2, 2, 3)).astype(np.uint8)
        values = np.tile(frames[:, None], (1, 2)).astype(np.float32)
        episodes.append(Episode({"ego": pixels}, values, values, f"task {index % 2}"))
        number += length
    return ChunkDataset(episodes, HORIZON)


def test_chunks_follow_their_frame_and_end_with_their_episode():
    dataset = make_dataset()
    frames = np.arange(len(dataset))
    batch = dataset.chunks(frames)
    owner = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    assert np.array_equal(batch.observations.images["ego"][:, 0, 0, 0], frames)
    assert batch.actions.shape == (len(frames), HORIZON, 2)
    for frame in frames:
        for step in range(HORIZON):
            follows = frame + step < len(frames) and owner[frame + step] == owner[frame]
            if follows:
                assert (batch.actions[frame, step] == frame + step).all()
            else:
                last = frames[owner == owner[frame]][-1]
                assert (batch.actions[frame, step] == last).all()
    expected = tuple(f"task {index % 2}" for index in owner)
    assert batch.observations.instructions == expected


def test_every_sample_comes_once_in_each_pass():
    sampler = BatchSampler(size=10, batch_size=4, seed=3)
    drawn = np.concatenate([sampler.indices(step) for step in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert list(drawn[:10]) != list(drawn[10:])


def test_batches_are_a_function_of_seed_and_step():
    sampler = BatchSampler(10, 4, 3)
    forward = [sampler.indices(step).tolist() for step in range(9)]
    fresh = [BatchSampler(10, 4, 3).indices(step).tolist() for step in reversed(range(9))]
    assert forward == fresh[::-1]
    assert forward != [BatchSampler(10, 4, 4).indices(step).tolist() for step in range(9)]


def test_a_batch_may_be_larger_than_the_data():
    drawn = BatchSampler(3, 8, 0).indices(0)
    assert sorted(drawn[:6]) == [0, 0, 1, 1, 2, 2]
