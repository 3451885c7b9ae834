"""Ten thousand damaged messages: no crash, no hang, no growth of memory, one type of error."""

import contextlib
import io
import random
import socket
import struct
import time
import tracemalloc
from pathlib import Path
from threading import Thread

import msgpack
import numpy as np
import pytest
import zmq

from envservers.client import connect
from envservers.counting import TASKS, CountingSuite, check_observation
from envservers.snapshots import packed, unpack
from envservers.spawn import ServerProcess
from vlarl import wire
from vlarl.errors import EnvServerDied
from vlarl.types import EpisodeStart
from vlarl.wire_limits import (
    MAX_DEPTH,
    MAX_DIMENSIONS,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    WireError,
    check_header,
    check_sizes,
)

MUTATIONS = 10_000
FOR_A_SERVER = 200
PEAK_BYTES = 48 * 2**20
"""What reading one message may take for a while: a header of 1 MiB that is a list of small lists
takes this much in Python."""


def real_messages():
    """Frames of every request and of the answers to them."""
    suite = CountingSuite(3)
    starts = [EpisodeStart(TASKS[i % 2], 59 + i) for i in range(3)]
    ids, actions = np.arange(3), np.zeros((3, 4, 3), np.float32)
    seen = suite.reset(ids, starts)
    film = suite.step(ids, actions, record=True)
    bodies = [
        {"id": 1, "call": "hello"},
        {"id": 2, "call": "reset", "env_ids": ids, "starts": wire.starts_to_body(starts)},
        {"id": 3, "call": "step", "env_ids": ids, "actions": actions, "record": True},
        {"id": 4, "call": "stats"},
        {"id": 5, "call": "snapshot"},
        {"id": 6, "call": "attach", "path": "/dev/shm/nothing"},
        {"id": 7, "result": {"time_step": wire.time_step_to_body(seen)}},
        {"id": 8, "result": {"time_step": wire.time_step_to_body(film)}},
        {"id": 9, "result": {"spec": wire.spec_to_body(suite.spec), "num_envs": 3, "pid": 1}},
        {"id": 10, "error": "Traceback"},
    ]
    return [[bytes(frame) for frame in wire.encode(body)] for body in bodies]


def flipped(frame, draw):
    data = bytearray(frame)
    for _ in range(draw.choice((1, 1, 1, 8))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def cut(frame, draw):
    return frame[: draw.randrange(len(frame) + 1)]


def with_huge_size(frame, draw):
    """Somewhere, a value of a declared size that is not there."""
    place = draw.randrange(len(frame) + 1)
    kind = draw.choice((0xC6, 0xC9, 0xDB, 0xDD, 0xDF, 0xDC, 0xDE))
    size = draw.choice((2**32 - 1, 2**31, 2**24, 2**16))
    declared = struct.pack(">I", size)[-2 if kind in (0xDC, 0xDE) else -4 :]
    return frame[:place] + bytes([kind]) + declared + frame[place:]


def nested(_frame, draw):
    deep = draw.choice((MAX_DEPTH, 100, 1000, 100_000))
    return draw.choice((b"\x91", b"\x81\xa1a", b"\xdc\x00\x01")) * deep + b"\xc0"


def bomb(_frame, draw):
    """Lists within lists, each of which says that it holds what is left of the header."""
    size = draw.choice((2**10, 2**16, MAX_HEADER_BYTES))
    head = b"".join(b"\xdd" + struct.pack(">I", size // 2) for _ in range(draw.choice((2, 100))))
    return head.ljust(size, b"\xc0")


def with_reference(_frame, draw):
    """A header with an array reference of any kind."""
    index = draw.choice((0, 0, 0, -1, 2**40, "0", None, True))
    dtype = draw.choice(
        ("<f4", "|O", "<f16", "f4,f4", "(1000000,)f4", [["a", "<f4"]], {}, 7, ">i4")
    )
    shape = draw.choice(([2**40, 2**40], [0, 2**62], [-1], [1] * 70, [1.5], "12", [[1]], [], [3]))
    item = msgpack.ExtType(draw.choice((1, 1, 2)), msgpack.packb([index, dtype, shape]))
    return msgpack.packb({"version": wire.VERSION, "message": {"id": 1, "call": item}})


def of_wrong_types(_frame, draw):
    junk = draw.choice((None, 7, "x", [], {}, b"\x00", 1.5, [[]], {"a": {"b": []}}))
    keys = draw.sample(("id", "call", "env_ids", "actions", "starts", "record", "path"), 4)
    body = dict.fromkeys(keys, junk) | {"call": draw.choice(("step", "reset", "attach", junk))}
    return msgpack.packb(
        {"version": wire.VERSION, "message": body | {"id": draw.choice((1, junk))}}
    )


OF_A_FRAME = (flipped, flipped, cut, with_huge_size, nested, bomb, with_reference, of_wrong_types)


def mutated(frames, draw):
    frames = list(frames)
    for _ in range(draw.choice((1, 1, 2))):
        kind = draw.randrange(10)
        place = draw.randrange(len(frames)) if frames else 0
        if kind == 0:
            frames[place:place] = frames[place : place + 1]
        elif kind == 1:
            del frames[place : place + 1]
        elif kind == 2:
            draw.shuffle(frames)
        elif frames:
            place = draw.choice((0, 0, place))
            frames[place] = draw.choice(OF_A_FRAME)(frames[place], draw)
    return frames


def read(frames):
    """As a server and a client would; whether it was a message."""
    try:
        message = wire.decode(frames)
    except WireError:
        return False
    body = message.get("result", {})
    records = (
        (wire.spec_from_body, message),
        (wire.starts_from_body, [message.get("starts")]),
        (wire.time_step_from_body, body.get("time_step") if isinstance(body, dict) else body),
    )
    for convert, part in records:
        try:
            convert(part)
        except WireError:
            continue
    return True


def test_ten_thousand_damaged_messages_are_one_type_of_error_and_take_no_memory():
    draw, messages = random.Random(0), real_messages()
    assert all(map(read, messages))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        accepted = sum(read(mutated(draw.choice(messages), draw)) for _ in range(MUTATIONS))
        refused_bombs = sum(not read([bomb(b"", draw)]) for _ in range(50))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Most flipped bits lie in an image: the message is as good as before.
    assert 100 < accepted < MUTATIONS - 1000
    assert refused_bombs == 50
    assert peak - before < PEAK_BYTES
    assert after - before < 2**20


def value(draw, depth=0):
    """Something that msgpack can pack, with lengths on both sides of its formats' borders."""
    kind = draw.randrange(9 if depth < 4 else 7)
    size = draw.choice((0, 1, 15, 16, 31, 32, 255, 256))
    return (
        lambda: None,
        lambda: draw.random() < 0.5,
        lambda: draw.choice((1, -1)) * draw.randrange(2 ** draw.choice((4, 7, 8, 16, 32, 63))),
        draw.random,
        lambda: "x" * size,
        lambda: b"x" * draw.choice((size, 70_000)),
        lambda: msgpack.ExtType(5, b"x" * draw.choice((1, 2, 4, 8, 16, size, 70_000))),
        lambda: [value(draw, depth + 2) for _ in range(size % 33)],
        lambda: {str(i): value(draw, depth + 2) for i in range(size % 33)},
    )[kind]()


def test_whatever_msgpack_packs_passes_and_nothing_shorter_or_longer():
    draw = random.Random(1)
    many = [msgpack.packb(value(draw)) for _ in range(300)]
    many += [msgpack.packb([0] * 70_000), msgpack.packb(dict.fromkeys(range(70_000), 0))]
    for header in many:
        check_header(header)
        with pytest.raises(WireError, match="too many"):
            check_header(header + b"\xc0")
        with pytest.raises(WireError, match="cut short"):
            check_header(header[: draw.randrange(len(header))])


def test_the_limits_are_where_they_say():
    check_header(b"\x91" * MAX_DEPTH + b"\xc0")
    with pytest.raises(WireError, match="nests deeper than 16"):
        check_header(b"\x91" * (MAX_DEPTH + 1) + b"\xc0")
    check_sizes([b""] * MAX_FRAMES)
    with pytest.raises(WireError, match="frames"):
        check_sizes([b""] * (MAX_FRAMES + 1))
    check_sizes([bytes(MAX_HEADER_BYTES)])
    with pytest.raises(WireError, match="header of 1048577 bytes"):
        check_sizes([bytes(MAX_HEADER_BYTES + 1)])
    with pytest.raises(WireError, match="what is big must be an array"):
        wire.encode({"text": "x" * MAX_HEADER_BYTES})
    # Pages of zeros that nobody reads take no memory.
    frame = np.zeros(MAX_FRAME_BYTES + 1, np.uint8)
    assert len(wire.encode({"a": frame[1:]})) == 2
    with pytest.raises(WireError, match="a frame of 268435457 bytes"):
        wire.encode({"a": frame})
    with pytest.raises(WireError, match="a message of"):
        wire.encode({"a": [frame[1:]] * 4})
    wire.decode(wire.encode({"a": np.zeros((1,) * MAX_DIMENSIONS)}))
    with pytest.raises(WireError, match="damaged"):
        wire.decode(wire.encode({"a": np.zeros((1,) * (MAX_DIMENSIONS + 1))}))


def memory_kib(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(field)


@pytest.fixture
def server():
    host = ServerProcess("counting", 3, bind="tcp://127.0.0.1:*")
    yield host
    host.close()


def plays(address):
    client = connect(address, 20.0)
    starts = [EpisodeStart(TASKS[0], 59)] * 3
    check_observation(client.reset(np.arange(3), starts))
    client.close()


def test_a_server_answers_damaged_messages_and_goes_on(server):
    draw, messages = random.Random(2), real_messages()
    plays(server.address)
    resident = memory_kib(server.pid, "VmRSS")
    stranger = zmq.Context.instance().socket(zmq.DEALER)
    stranger.linger, stranger.rcvtimeo = 0, 20_000
    stranger.connect(server.address)
    try:
        long_word = {"id": 1, "call": "x" * (MAX_HEADER_BYTES - 100)}
        many = {"id": 1, "call": "reset", "env_ids": np.zeros(10**6, np.int64), "starts": []}
        for body in (long_word, many):
            stranger.send_multipart(wire.encode(body))
            assert "error" in wire.decode(stranger.recv_multipart())
        for _ in range(FOR_A_SERVER):
            frames = mutated(draw.choice(messages), draw) or [b""]
            # A single bit makes no `close` of another call: the server owes an answer to each.
            stranger.send_multipart(frames)
            assert wire.decode(stranger.recv_multipart()).keys() & {"result", "error"}
    finally:
        stranger.close()
    plays(server.address)
    assert server.exit_code is None
    assert memory_kib(server.pid, "VmRSS") - resident < 48 * 1024


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"


@pytest.mark.parametrize("size", [MAX_FRAME_BYTES + 1, 2**40, 2**63 - 1])
def test_a_frame_that_says_it_is_huge_ends_its_connection_alone(server, size):
    port = int(server.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(GREETING + bytes([4, len(READY)]) + READY)
        peer.sendall(b"\x02" + struct.pack(">Q", size) + b"x")
        with contextlib.suppress(ConnectionResetError):
            while peer.recv(4096):
                pass
    plays(server.address)
    assert memory_kib(server.pid, "VmHWM") < 150 * 1024


def test_a_server_that_answers_nonsense_is_dead_to_its_client():
    socket_ = zmq.Context.instance().socket(zmq.ROUTER)
    socket_.linger = 0
    port = socket_.bind_to_random_port("tcp://127.0.0.1")
    answers = ([b"\x80\x04pickle"], [bomb(b"", random.Random(3))], wire.encode({"id": "0"}))
    try:
        for frames in answers:

            def answer(frames=frames):
                client = socket_.recv_multipart()[0]
                socket_.send_multipart([client, *frames])

            thread = Thread(target=answer)
            thread.start()
            began = time.monotonic()
            with pytest.raises(EnvServerDied, match="sent what is no answer"):
                connect(f"tcp://127.0.0.1:{port}", 20.0)
            assert time.monotonic() - began < 10.0
            thread.join()
    finally:
        socket_.close()


def test_a_compressed_snapshot_is_refused_before_it_is_unpacked():
    arrays = {"a": np.zeros(1000)}
    assert unpack(packed(arrays, ["say"]), arrays) == ["say"]
    stream = io.BytesIO()
    np.savez_compressed(stream, instruction=np.frombuffer(b"[]", np.uint8), **arrays)
    with pytest.raises(ValueError, match="compressed"):
        unpack(stream.getvalue(), arrays)
