"""The wire format: round trips, and refusal of everything that is not a message."""

import dataclasses

import msgpack
import numpy as np
import pytest

from envservers.counting import CountingSuite
from vlarl import wire
from vlarl.types import EpisodeStart, TimeStep


def through(message):
    """What the other side sees, given frames as bytes."""
    return wire.decode([bytes(frame) for frame in wire.encode(message)])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2].transpose(2, 0, 1),
        np.array([[True, False]]),
        np.zeros((0, 5), np.int64),
        np.array(3, np.int32),
        np.arange(4, dtype=">i4"),
        np.full((2, 2), np.nan, np.float64),
    ],
)
def test_arrays_survive_whatever_their_layout(array):
    back = through({"array": array})["array"]
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(back, array, equal_nan=array.dtype.kind == "f")
    assert back.flags.writeable
    assert back.flags.c_contiguous


def test_plain_values_survive():
    message = {"a": None, "b": [1, 2.5, "three", b"four", True], "c": {"d": np.int64(7)}}
    assert through(message) == {"a": None, "b": [1, 2.5, "three", b"four", True], "c": {"d": 7}}


def test_records_survive():
    suite = CountingSuite(3)
    assert wire.spec_from_body(through(wire.spec_to_body(suite.spec))) == suite.spec
    starts = [
        EpisodeStart("count_red", 2**40),
        EpisodeStart("count_blue", 1, "say"),
        *[EpisodeStart("count_red", 0)],
    ]
    assert wire.starts_from_body(through({"s": wire.starts_to_body(starts)})["s"]) == starts
    suite.reset(np.arange(3), starts)
    sent = suite.step(np.arange(3), np.ones((3, 4, 3), np.float32), record=True)
    got = wire.time_step_from_body(through(wire.time_step_to_body(sent)))
    for field in dataclasses.fields(TimeStep):
        np.testing.assert_equal(getattr(got, field.name), getattr(sent, field.name))
        assert type(getattr(got, field.name)) is type(getattr(sent, field.name))


@pytest.mark.parametrize(
    "value",
    [np.array([{}], object), np.array(["text"]), np.zeros(2, "i4,f4"), {1, 2}, object(), 2**70],
)
def test_what_is_not_data_is_refused(value):
    with pytest.raises(wire.WireError):
        wire.encode({"value": value})


def frames():
    return [bytes(f) for f in wire.encode({"x": np.arange(6), "y": np.ones(2, np.float32)})]


def reference(index, dtype, shape):
    """A header whose message is one array reference."""
    item = msgpack.ExtType(1, msgpack.packb([index, dtype, shape]))
    return msgpack.packb({"version": wire.VERSION, "message": {"x": item}})


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (lambda f: [], "empty"),
        (lambda f: [f[0][:-3], *f[1:]], "cut short"),
        (lambda f: [b"\xc1", *f[1:]], "not msgpack"),
        (lambda f: [b"GET / HTTP/1.1", *f[1:]], "not msgpack"),
        (lambda f: [msgpack.packb(7)], "not a message"),
        (lambda f: [f[0], f[1]], "refers to buffer 1"),
        (lambda f: [*f, b"more"], "3 buffers came"),
        (lambda f: [f[0], f[1][:-1], f[2]], "47 bytes"),
        (lambda f: [msgpack.packb({"version": 99, "message": {}})], "wire version 99"),
        (lambda f: [reference(0, "|O", [1]), b"12345678"], "refused"),
        (lambda f: [reference(0, "nonsense", [1]), b"1"], "refused"),
        (lambda f: [reference(0, "<f4", [-1]), b""], "damaged"),
        (lambda f: [reference(5, "<f4", [1]), b"1234"], "refers to buffer 5"),
    ],
)
def test_damaged_frames_are_one_clear_error(damaged, message):
    with pytest.raises(wire.WireError, match=message):
        wire.decode(damaged(frames()))


def test_a_record_with_a_wrong_field_is_named():
    with pytest.raises(wire.WireError, match="EpisodeStart"):
        wire.starts_from_body([{"task": "a", "seed": 1, "colour": 2}])
