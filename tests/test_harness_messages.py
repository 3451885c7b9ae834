"""What crosses the websockets of others' protocols, and what is refused before it is believed."""

import io

import msgpack
import numpy as np
import pytest
from PIL import Image

from actors.harness.action_units import ActionUnits
from actors.harness.messages import MAX_MESSAGE_BYTES, pack, unpack
from actors.harness.observation_keys import ObservationKeys
from vlarl.errors import UserError
from vlarl.observations import Observations
from vlarl.types import CameraSpec, Channel
from vlarl.wire_limits import WireError

EGO = CameraSpec("ego", 8, 8)
KINDS = ("?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")


@pytest.mark.parametrize("text_keys", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4)])
def test_arrays_come_back_as_they_went(text_keys, shape):
    random = np.random.default_rng(3)
    sent = {kind: random.integers(0, 2, shape).astype(kind) for kind in KINDS}
    message = {"deep": {"down": [sent, 1, "two", None]}, "scalar": np.float64(0.5)}
    came = unpack(pack(message, text_keys))
    assert came["deep"]["down"][1:] == [1, "two", None]
    assert came["scalar"] == 0.5
    for kind, array in came["deep"]["down"][0].items():
        assert array.dtype == sent[kind].dtype
        assert array.flags.writeable
        np.testing.assert_array_equal(array, sent[kind])


def test_an_array_is_marked_as_each_protocol_marks_it():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = {"data": array.tobytes(), "dtype": "<f4", "shape": [2, 3], "__ndarray__": True}
    assert msgpack.unpackb(pack({"a": array}, text_keys=True))["a"] == plain
    openpi = {key.encode(): value for key, value in plain.items()}
    assert msgpack.unpackb(pack({"a": array}))["a"] == openpi
    with_tuple = msgpack.packb({"a": openpi | {b"shape": (2, 3)}})
    np.testing.assert_array_equal(unpack(with_tuple)["a"], array)
    scalar = {b"__npgeneric__": True, b"data": 7, b"dtype": "<i8"}
    assert unpack(msgpack.packb({"a": scalar})) == {"a": 7}


@pytest.mark.parametrize(
    "value",
    [np.array([{}]), np.array(["text"]), np.zeros(2, "f4,i4"), np.zeros(1, complex), {1, 2}],
)
def test_only_numbers_are_sent(value):
    with pytest.raises(WireError, match="cannot be sent"):
        pack({"value": value})


def array_of(**changes):
    fields = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]} | changes
    return msgpack.packb({"a": fields})


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (array_of(dtype="|O"), "dtype '|O' is refused"),
        (array_of(dtype=b"|V8"), "refused"),
        (array_of(dtype="<U2"), "refused"),
        (array_of(dtype=["f4", "i4"]), "refused"),
        (array_of(shape=[3]), "8 bytes; its shape .3. says 12"),
        (array_of(shape=[2**40]), "shape .* is refused"),
        (array_of(shape=[2**25, 2**25]), "says"),
        (array_of(shape=[-2]), "shape .* is refused"),
        (array_of(shape=[1] * 9), "shape .* is refused"),
        (array_of(shape=None), "shape None is refused"),
        (array_of(data="text"), "0 bytes"),
        (msgpack.packb({"a": {"__npgeneric__": True, "data": [1]}}), "neither a number nor text"),
        (msgpack.packb([1, 2]), "a list, not a map"),
        (msgpack.packb({1: 2}), "not msgpack"),
        (b"\xdf\xff\xff\xff\xff", "declares more than it holds"),
        (b"\x91" * 40 + b"\x01", "nests deeper"),
        (b"", "cut short"),
        (b"\xc1", "not msgpack"),
    ],
)
def test_what_is_no_message_is_refused(data, match):
    with pytest.raises(WireError, match=match):
        unpack(data)


def picture(form, size=(8, 8), mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size, 7).save(stream, form)
    return {"__image__": True, "format": form.lower(), "data": stream.getvalue(), "shape": []}


def test_pictures_are_read_and_pixels_are_counted():
    colors = np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colors).save(stream, "PNG")
    png = picture("PNG") | {"data": stream.getvalue()}
    np.testing.assert_array_equal(unpack(msgpack.packb({"a": png}))["a"], colors)
    for wrong, match in (
        (picture("PNG", (5000, 5000)), "pixels; the limit"),
        (picture("PNG", mode="L"), "mode L"),
        (picture("BMP"), "damaged picture"),
        (picture("PNG") | {"data": b"none"}, "damaged picture"),
        (picture("PNG") | {"data": stream.getvalue()[:-40]}, "damaged picture"),
        (picture("PNG") | {"data": 3}, "without bytes"),
    ):
        with pytest.raises(WireError, match=match):
            unpack(msgpack.packb({"a": wrong}))
    # Each within the limit, both together not.
    many = {"a": picture("PNG", (3000, 3000)), "b": picture("PNG", (3000, 3000))}
    with pytest.raises(WireError, match="pixels; the limit"):
        unpack(msgpack.packb(many))


def test_a_message_beyond_the_limit_is_not_sent():
    with pytest.raises(WireError, match="the limit is"):
        pack({"a": np.zeros(MAX_MESSAGE_BYTES, np.uint8)})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("openpie", "neither a preset"),
        ("{a: [}", "neither a preset"),
        ("{a: egos}", "nothing that a policy is shown"),
        ("{a: ego, b: ego, p: instruction}", "names one thing twice"),
        ("{a: ego}", "no key for the instruction"),
    ],
)
def test_mappings_that_are_none_are_refused(text, match):
    with pytest.raises(UserError, match=match):
        ObservationKeys.parse(text)


def test_a_camera_that_is_not_there_is_left_out_by_a_preset_and_refused_by_name():
    kept = ObservationKeys.parse("openpi").of_cameras(["ego"])
    assert "observation/wrist_image" not in kept.sources
    own = ObservationKeys.parse("{a: ego, b: cam_right_wrist, p: instruction}")
    with pytest.raises(UserError, match="no camera 'cam_right_wrist'"):
        own.of_cameras(["ego"])


def test_an_observation_is_read_as_it_was_sent_nested_or_flat():
    random = np.random.default_rng(2)
    ego = random.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    shown = Observations({"ego": ego}, ["do it"], state=np.ones((1, 2), np.float32))
    keys = ObservationKeys.parse("{images/front: ego, s: state, p: instruction}")
    flat = keys.message(shown, 0)
    nested = {"images": {"front": ego[0]}, "s": flat["s"], "p": "do it", "more": 1}
    for message in (flat, nested):
        came = keys.read(message, [EGO], 2)
        np.testing.assert_array_equal(came.images["ego"], ego)
        np.testing.assert_array_equal(came.state, shown.state)
        assert list(came.instructions) == ["do it"]


def test_larger_pictures_are_averaged_and_others_refused():
    keys = ObservationKeys.parse("{e: ego, p: instruction}")
    flat = np.full((16, 16, 3), 90, np.uint8)
    seen = keys.read({"e": flat, "p": ""}, [EGO], 0).images["ego"]
    np.testing.assert_array_equal(seen, flat[None, ::2, ::2])
    for wrong in (flat[:8], flat[..., :1], flat.astype(np.float32), "text"):
        with pytest.raises(WireError, match="'e' is"):
            keys.read({"e": wrong, "p": ""}, [EGO], 0)
    with pytest.raises(WireError, match="lacks 'e'; it has p"):
        keys.read({"p": ""}, [EGO], 0)
    with pytest.raises(WireError, match="not text"):
        keys.read({"e": flat, "p": 3}, [EGO], 0)


@pytest.mark.parametrize("state", [np.zeros(3), np.array([0, np.nan]), np.zeros(2, int), 1.0])
def test_states_of_another_kind_are_refused(state):
    keys = ObservationKeys.parse("{s: state, p: instruction}")
    with pytest.raises(WireError, match="'s'"):
        keys.read({"s": state, "p": ""}, [], 2)


def test_normalized_actions_are_one_at_the_bounds_and_come_back():
    channels = [Channel("x", "m", "delta_position", -0.05, 0.05)]
    channels += [Channel("grip", "1", "gripper", 0.0, 1.0)]
    units = ActionUnits("normalized", channels)
    bounds = np.array([[-0.05, 0.0], [0.05, 1.0]], np.float32)
    np.testing.assert_allclose(units.sent(bounds), [[-1, -1], [1, 1]], atol=1e-6)
    inside = np.array([[0.01, 0.3]], np.float32)
    np.testing.assert_allclose(units.received(units.sent(inside)), inside, atol=1e-6)
    assert ActionUnits("simulator", channels).sent(inside) is inside
    endless = [Channel("x", "m", "delta_position", 0.0, float("inf"))]
    with pytest.raises(UserError, match="channel x has none"):
        ActionUnits("normalized", endless)
