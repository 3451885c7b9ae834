"""Env servers for real: real processes, real sockets, real deaths."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from envservers.client import connect, spawn_server, wait_ready
from envservers.counting import TASKS, check_observation, check_transition
from envservers.inprocess import InprocessClient
from envservers.registry import make_suite
from envservers.shared_memory import SLOTS
from envservers.socket_folder import sweep_socket_folders
from envservers.spawn import ServerProcess
from vlarl.env_protocol import EnvClient
from vlarl.errors import EnvContractError, EnvServerDied, EnvServerError, UserError
from vlarl.types import EpisodeStart

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def spawned(n=4, deadline=20.0, **options):
    client = spawn_server("counting", n, options, deadline)
    try:
        yield client
    finally:
        client.close()


def starts(n, seed=59):
    """Seeds whose episodes last longer than any test that does not want them to end."""
    return [EpisodeStart(TASKS[i % 2], seed + i) for i in range(n)]


def chunk(n, h=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, h, 3)).astype(np.float32)


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid):
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def shared_files():
    return {path.name for path in Path("/dev/shm").glob("vlarl-*")}


def play(clients, actions_seed, rounds):
    """Step random subsets of several clients, answers in whatever order; check each history."""
    random = np.random.default_rng(actions_seed)
    last, asked = {}, {client: [] for client in clients}
    seed = 0
    for client in clients:
        check_observation(client.reset(np.arange(client.num_envs), starts(client.num_envs)))
    for client in clients:
        for env_id in range(client.num_envs):
            answer = client.reset(np.array([env_id]), starts(1, seed := seed + 1))
            last[client, env_id] = answer
    idle = {client: set(range(client.num_envs)) for client in clients}
    done = 0
    for _ in range(rounds):
        for client in clients:
            while idle[client] and len(asked[client]) < SLOTS and random.random() < 0.7:
                size = random.integers(1, len(idle[client]) + 1)
                ids = random.permutation(sorted(idle[client]))[:size]
                ended = [last[client, i].done[0] for i in ids]
                ids = ids[np.array(ended) == ended[0]]
                idle[client] -= set(ids.tolist())
                if ended[0]:
                    client.submit_reset(ids, starts(len(ids), seed := seed + len(ids)))
                    asked[client].append((ids, None))
                else:
                    actions = chunk(len(ids), random.integers(1, 5), seed=random.integers(2**31))
                    client.submit_step(ids, actions)
                    asked[client].append((ids, actions))
        for client in wait_ready(clients, 10.0):
            answer = client.receive()
            ids, actions = asked[client].pop(0)
            assert answer.env_ids.tolist() == ids.tolist()
            for row, env_id in enumerate(ids.tolist()):
                single = one_row(answer, row)
                if actions is None:
                    check_observation(single)
                    assert single.state[0, 1] == last[client, env_id].state[0, 1] + 1
                else:
                    check_transition(last[client, env_id], actions[row : row + 1], single)
                last[client, env_id] = single
                done += int(single.done[0])
            idle[client] |= set(ids.tolist())
    return done


def one_row(time_step, row):
    values = {}
    for name, value in vars(time_step).items():
        if isinstance(value, dict):
            values[name] = {key: array[row : row + 1] for key, array in value.items()}
        else:
            values[name] = None if value is None else value[row : row + 1]
    return type(time_step)(**values)


def test_every_client_keeps_every_history_apart():
    with spawned(5) as one, spawned(3) as two:
        inprocess = InprocessClient(make_suite("counting", 4))
        for client in (one, two, inprocess):
            assert isinstance(client, EnvClient)
        assert play([one, two, inprocess], 1, 150) > 20


def test_in_process_and_spawned_answers_are_equal():
    inprocess = InprocessClient(make_suite("counting", 3))
    with spawned(3) as client:
        assert client.spec == inprocess.spec
        for each in (inprocess, client):
            each.reset(np.arange(3), starts(3))
        blob = client.snapshot()
        for _ in range(2):
            here = inprocess.step(np.arange(3), chunk(3), record=True)
            there = client.step(np.arange(3), chunk(3), record=True)
            np.testing.assert_equal(vars(there), vars(here))
            client.restore(blob)
            inprocess.restore(blob)


def test_answers_are_not_overwritten_before_they_are_read():
    with spawned(2) as client:
        client.reset(np.arange(2), starts(2))
        for step in range(SLOTS):
            client.submit_step(np.array([step % 2]), chunk(1, 1, seed=step))
        with pytest.raises(ValueError, match="unanswered"):
            client.submit_step(np.array([0]), chunk(1, 1))
        with pytest.raises(ValueError, match="unanswered"):
            client.step(np.array([0]), chunk(1, 1))
        time.sleep(0.2)
        for step in range(SLOTS):
            answer = client.receive()
            check_observation(answer)
            assert answer.step.tolist() == [step // 2 + 1]
        with pytest.raises(ValueError, match="without"):
            client.receive()


def test_waiting_overlaps_with_simulation():
    with spawned(1, seconds_per_step=0.8) as slow, spawned(1) as fast:
        for client in (slow, fast):
            client.reset(np.array([0]), starts(1))
        slow.submit_step(np.array([0]), chunk(1, 1))
        fast.submit_step(np.array([0]), chunk(1, 1))
        assert wait_ready([slow, fast], 5.0) == [fast]
        fast.receive()
        assert wait_ready([slow, fast], 0.01) == []
        assert wait_ready([slow, fast], 5.0) == [slow]
        slow.receive()
        assert wait_ready([slow, fast], 5.0) == []


def test_killed_in_the_middle_of_a_chunk():
    with spawned(2, seconds_per_step=5.0) as client:
        client.reset(np.arange(2), starts(2))
        client.submit_step(np.arange(2), chunk(2))
        time.sleep(0.1)
        os.kill(client.pid, signal.SIGKILL)
        began = time.monotonic()
        assert wait_ready([client], 10.0) == [client]
        with pytest.raises(EnvServerDied, match=rf"pid {client.pid}\) is gone"):
            client.receive()
        assert time.monotonic() - began < 4.0
        with pytest.raises(EnvServerDied):
            client.submit_step(np.arange(2), chunk(2))


def test_a_crash_of_the_suite_itself_is_a_death():
    with spawned(1, crash_at=2) as client:
        client.reset(np.array([0]), starts(1))
        client.step(np.array([0]), chunk(1, 1))
        with pytest.raises(EnvServerDied, match="is gone"):
            client.step(np.array([0]), chunk(1, 1))


def test_a_hang_ends_with_the_deadline_and_is_killed():
    client = spawn_server("counting", 1, {"hang_at": 1}, deadline=1.0)
    pid = client.pid
    client.reset(np.array([0]), starts(1))
    client.submit_step(np.array([0]), chunk(1))
    began = time.monotonic()
    assert wait_ready([client], 10.0) == [client]
    with pytest.raises(EnvServerDied, match=r"deadline 1 s"):
        client.receive()
    assert time.monotonic() - began < 4.0
    client.close()
    assert not is_running(pid)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (
            "raise_at",
            EnvServerError,
            r"(?s)Traceback.*counting\.py.*RuntimeError: the counting suite was told",
        ),
        ("nan_at", EnvContractError, r"NaN or infinity in state of environments \[1\]"),
        (
            "wrong_shape_at",
            EnvContractError,
            r"images\['ego'\].*\[2, 8, 16, 3\].*expected uint8 \[2, 16, 16, 3\]",
        ),
    ],
)
def test_what_a_suite_does_wrong_comes_as_text(fault, kind, message):
    for client in (
        InprocessClient(make_suite("counting", 2, **{fault: 1})),
        spawn_server("counting", 2, {fault: 1}),
    ):
        client.reset(np.arange(2), starts(2))
        with pytest.raises(EnvServerError, match=message) as caught:
            client.step(np.array([1, 0]), chunk(2))
        assert type(caught.value) is kind
        assert isinstance(caught.value, UserError) == (kind is EnvContractError)
        assert ("Traceback" in str(caught.value)) == (kind is EnvServerError)
        client.reset(np.arange(2), starts(2))
        client.close()


@pytest.mark.parametrize(
    ("ids", "actions", "message"),
    [
        ([0], np.full((1, 2, 3), np.nan), "NaN"),
        ([0], np.zeros((1, 2, 4)), r"expected \[1, h, 3\]"),
        ([0, 0], np.zeros((2, 2, 3)), "twice"),
        ([7], np.zeros((1, 2, 3)), "outside"),
        ([1], np.zeros((1, 2, 3)), "never reset"),
    ],
)
def test_bad_requests_are_refused(ids, actions, message):
    client = InprocessClient(make_suite("counting", 2))
    client.reset(np.array([0]), starts(1))
    with pytest.raises(EnvServerError, match=message):
        client.step(np.array(ids), actions)


def test_tcp_serves_other_clients_and_outlives_them():
    host = ServerProcess("counting", 3, bind="tcp://127.0.0.1:*")
    try:
        first, second = connect(host.address), connect(host.address)
        before = first.reset(np.arange(3), starts(3))
        actions = chunk(3)
        check_transition(before, actions, second.step(np.arange(3), actions))
        first.close()
        assert second.stats()["episodes_started"] == 3
        os.kill(host.pid, signal.SIGKILL)
        with pytest.raises(EnvServerDied):
            second.stats()
        second.close()
    finally:
        host.close()


def test_a_peer_that_talks_nonsense_does_no_harm():
    host = ServerProcess("counting", 1, bind="tcp://127.0.0.1:*")
    try:
        stranger = zmq.Context.instance().socket(zmq.DEALER)
        stranger.connect(host.address)
        for frames in ([b"\x80\x04pickle"], [b""], [b"a", b"b"]):
            stranger.send_multipart(frames)
            assert b"WireError" in stranger.recv_multipart()[0]
        stranger.close(linger=0)
        with socket.create_connection(("127.0.0.1", int(host.address.rsplit(":")[-1]))) as web:
            web.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client = connect(host.address)
        check_observation(client.reset(np.array([0]), starts(1)))
        client.close()
    finally:
        host.close()


def test_nobody_there_and_malformed_addresses():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EnvServerDied, match=r"127\.0\.0\.1"):
            connect(address, deadline=0.3)
    with pytest.raises(UserError, match="use tcp://HOST:PORT"):
        connect("http://somewhere", deadline=0.3)


HOST = """
import sys, time
import numpy as np
from envservers.client import spawn_server
from vlarl.types import EpisodeStart
client = spawn_server("counting", 2, {"hang_at": 1})
client.reset(np.arange(2), [EpisodeStart("count_red", 1)] * 2)
if sys.argv[1] == "busy":
    client.submit_step(np.arange(2), np.zeros((2, 1, 3), np.float32))
print(client.pid, client.address, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_server_ends_with_its_host_and_leaves_nothing(state):
    before = shared_files()
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, state], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        pid, address = host.stdout.readline().split()
        assert is_running(pid)
    finally:
        host.kill()
        host.wait()
        host.stdout.close()
    wait_for(lambda: not is_running(pid))
    wait_for(lambda: not shared_files() - before)
    wait_for(lambda: not Path(address.removeprefix("ipc://")).parent.exists())


def test_who_is_killed_together_with_its_server_leaves_a_folder_to_the_next_one():
    """As Ray ends an actor: nobody is left who could clean up."""
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, "idle"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with contextlib.closing(spawn_server("counting", 1)) as living:
        try:
            pid, address = host.stdout.readline().split()
            # Stopped, it can do nothing at its host's death.
            os.kill(int(pid), signal.SIGSTOP)
        finally:
            host.kill()
            host.wait()
            host.stdout.close()
        folder = Path(address.removeprefix("ipc://")).parent
        sweep_socket_folders()
        assert folder.exists(), "its server lives"
        os.kill(int(pid), signal.SIGKILL)

        def swept_by_the_next_one():
            spawn_server("counting", 1).close()
            return not folder.exists()

        # Threads of a process that was killed may keep its files for a moment.
        wait_for(swept_by_the_next_one, 60.0)
        assert living.stats()["num_envs"] == 1


def test_a_server_ends_when_its_lease_runs_out():
    host = ServerProcess("counting", 1, lease_seconds=1.0)
    try:
        time.sleep(1.5)
        assert host.exit_code is None
        host._stop.set()
        wait_for(lambda: host.exit_code is not None)
    finally:
        host.close()


def test_a_server_outlives_the_thread_that_asked_for_it():
    made = []
    thread = threading.Thread(target=lambda: made.append(spawn_server("counting", 1)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert made[0].stats()["num_envs"] == 1
    made[0].close()


def test_closing_twice_leaves_no_process_and_no_file():
    before = shared_files()
    client = spawn_server("counting", 2)
    folder = Path(client.address.removeprefix("ipc://")).parent
    pid = client.pid
    client.close()
    client.close()
    assert not is_running(pid)
    assert not folder.exists()
    wait_for(lambda: not shared_files() - before)


def test_a_remote_client_cannot_have_the_server_write_files(tmp_path):
    host = ServerProcess("counting", 1, bind="tcp://127.0.0.1:*")
    client = connect(host.address)
    try:
        with pytest.raises(EnvServerError, match="on the server's machine"):
            client._call("attach", path=str(tmp_path / "file"))
    finally:
        client.close()
        host.close()
