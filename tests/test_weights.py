"""Weights from learner to rollout: every bit arrives, in shards, and never half of them."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from actors.weights import apply_weights, extract_weights

SHARD = 1000
"""Bytes: no multiple of any parameter's."""


class Mixed(nn.Module):
    """Parameters of several formats and layouts; one is frozen."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def random(*shape):
            return torch.randn(shape, generator=generator)

        self.large = nn.Parameter(random(40, 33).bfloat16())
        self.scalar = nn.Parameter(random())
        self.turned = nn.Parameter(random(9, 14).t())
        self.none = nn.Parameter(random(0, 3))
        self.small = nn.Parameter(random(3).double())
        self.frozen = nn.Parameter(random(50), requires_grad=False)


def same(first, second):
    names = [name for name, each in first.named_parameters() if each.requires_grad]
    return [
        name for name in names if torch.equal(*(m.get_parameter(name) for m in (first, second)))
    ]


@pytest.mark.parametrize("shard", [1, 7, SHARD, 2**20])
def test_every_bit_arrives_whatever_the_shards(shard):
    learner, worker = Mixed(0), Mixed(1)
    places = [parameter.data_ptr() for parameter in worker.parameters()]
    update = extract_weights(learner, 5, shard_bytes=shard)
    assert update.version == 5
    assert update.bytes == 40 * 33 * 2 + 4 + 9 * 14 * 4 + 3 * 8
    assert [len(each) for each in update.shards[:-1]] == [shard] * (len(update.shards) - 1)
    assert 0 < len(update.shards[-1]) <= shard
    frozen = worker.frozen.clone()
    apply_weights(worker, update)
    assert same(learner, worker) == ["large", "scalar", "turned", "none", "small"]
    assert torch.equal(worker.frozen, frozen)
    # In place: CUDA graphs read weights where they lie.
    assert [parameter.data_ptr() for parameter in worker.parameters()] == places
    assert not worker.turned.is_contiguous()


def test_memory_that_is_not_ours_to_write_is_read_in_silence(recwarn):
    learner, worker = Mixed(0), Mixed(1)
    update = extract_weights(learner, 1, shard_bytes=SHARD)
    for shard in update.shards:
        shard.flags.writeable = False
    apply_weights(worker, update)
    assert len(same(learner, worker)) == 5
    assert not recwarn


def test_what_is_published_does_not_move_with_the_learner():
    learner, worker = Mixed(0), Mixed(1)
    update = extract_weights(learner, 1, shard_bytes=SHARD)
    before = learner.large.detach().clone()
    with torch.no_grad():
        learner.large.mul_(2)
    apply_weights(worker, update)
    assert torch.equal(worker.large, before)


@pytest.mark.parametrize("broken", ["lost", "short"])
def test_a_reader_that_lacks_a_shard_keeps_the_weights_it_had(broken):
    worker, before = Mixed(1), Mixed(1)
    update = extract_weights(Mixed(0), 2, shard_bytes=SHARD)

    def get(shards):
        if broken == "lost":
            raise TimeoutError("the last shard is gone")
        return [*shards[:-1], shards[-1][:-1]]

    with pytest.raises(TimeoutError if broken == "lost" else ValueError, match=r"gone|version 2"):
        apply_weights(worker, update, get)
    assert len(same(worker, before)) == 5


def test_weights_of_another_model_are_refused():
    update = extract_weights(Mixed(0), 1)
    other = Mixed(1)
    del other.small
    with pytest.raises(ValueError, match=r"lacks.*small"):
        apply_weights(other, update)
    other = Mixed(1).float()
    with pytest.raises(ValueError, match=r"large: torch\.bfloat16 \[40, 33\].*torch\.float32"):
        apply_weights(other, update)


def test_a_reader_in_the_middle_of_a_publication_gets_the_last_whole_version():
    """The writer stops after its first shard; whoever reads then has all of the version before."""
    store, latest = {}, {}
    half, go_on = threading.Event(), threading.Event()

    def put(shard):
        store[len(store)] = np.copy(shard)
        return len(store) - 1

    def put_slowly(shard):
        place = put(shard)
        half.set()
        assert go_on.wait(30)
        return place

    def get(places):
        return [store[place] for place in places]

    latest["update"] = extract_weights(Mixed(1), 1, put, SHARD)

    def publish():
        latest["update"] = extract_weights(Mixed(2), 2, put_slowly, SHARD)

    writer = threading.Thread(target=publish)
    writer.start()
    worker = Mixed(3)
    try:
        assert half.wait(30)
        apply_weights(worker, latest["update"], get)
        assert (latest["update"].version, len(same(worker, Mixed(1)))) == (1, 5)
    finally:
        go_on.set()
        writer.join()
    apply_weights(worker, latest["update"], get)
    assert (latest["update"].version, len(same(worker, Mixed(2)))) == (2, 5)
