"""Keys of env servers: nobody gets in without, and everybody is told why."""

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from actors import cli
from actors.env_host import EnvAccess, EnvHost
from envservers.client import connect
from envservers.counting import TASKS, check_observation
from envservers.keys import key_in_memory, read_key, write_new_key
from envservers.keys import new_key as key_of_a_run
from envservers.spawn import ServerProcess
from vlarl.addresses import stays_on_machine
from vlarl.config.process_schema import EnvConfig
from vlarl.errors import EnvKeyRefused, EnvServerDied, UserError
from vlarl.types import EpisodeStart

ROOT = Path(__file__).resolve().parents[1]


def new_key(folder, name="one.key"):
    path = folder / name
    write_new_key(path)
    return str(path)


def plays(client):
    check_observation(client.reset(np.array([0]), [EpisodeStart(TASKS[0], 59)]))
    client.close()


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a key, and the file."""
    path = new_key(tmp_path_factory.mktemp("key"))
    host = ServerProcess("counting", 1, bind="tcp://127.0.0.1:*", key_file=path)
    yield host, path
    host.close()


def test_the_command_makes_a_key_for_its_owner_alone(tmp_path, capsys):
    path = tmp_path / "one.key"
    assert cli.run(["key", str(path), "--json"]) == 0
    assert capsys.readouterr().out == f'{{"key": "{path}"}}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = read_key(path)
    assert zmq.curve_public(key.secret) == key.public
    assert key.secret.decode() not in repr(key)
    assert cli.run(["key", str(path)]) == 2
    assert "exists" in capsys.readouterr().err
    assert read_key(path) == key
    assert read_key(new_key(tmp_path, "another.key")) != key


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (None, 0o600, "cannot read the key file"),
        ("", 0o600, "holds no key"),
        ("short\n", 0o600, "holds no key"),
        ("é" * 40, 0o600, "holds no key"),
        ("~" * 40, 0o600, "holds no key"),
        ("a" * 40 + "\n" + "b" * 40, 0o600, "holds no key"),
        ("a" * 40, 0o640, "chmod 600"),
        ("a" * 40, 0o604, "chmod 600"),
    ],
)
def test_a_file_that_holds_no_key_or_shows_it_is_refused(tmp_path, text, mode, message):
    path = tmp_path / "key"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(UserError, match=message):
        read_key(path)


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        ("ipc:///tmp/x/socket", True),
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.3.2.1:*", True),
        ("tcp://localhost:5555", True),
        ("tcp://[::1]:5555", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://10.0.0.5:5555", False),
        ("tcp://lo:5555", False),
        ("tcp://127.0.0.1.evil.org:5555", False),
        ("tcp://[::]:5555", False),
        ("udp://127.0.0.1:5555;10.0.0.5:1", False),
    ],
)
def test_which_addresses_other_machines_can_reach(address, stays):
    assert stays_on_machine(address) is stays


@pytest.mark.parametrize("address", ["tcp://*:0", "tcp://0.0.0.0:*", "tcp://lo:*"])
def test_no_server_listens_beyond_the_machine_without_a_key(address):
    words = ["envserver", "counting", "num_envs=1", f"bind={address}"]
    command = [sys.executable, "-m", "actors.cli", *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert "`vlarl key FILE` makes a key" in ended.stderr


def test_a_host_for_other_nodes_lets_nobody_in_without_the_key_of_the_run():
    config = EnvConfig(suite="counting", servers=1, envs_per_server=1)
    key = key_of_a_run()
    host = EnvHost(config, "127.0.0.1", key)
    try:
        (address,) = host.addresses()
        assert address.startswith("tcp://127.0.0.1:")
        plays(EnvAccess(config, host, key=key).clients[0])
        for other in (None, key_of_a_run()):
            with pytest.raises(EnvKeyRefused):
                EnvAccess(config, host, key=other)
        # A server that replaces another has the same key.
        restarted = host.restart(0)
        plays(connect(restarted, 20.0, key))
    finally:
        host.close()


def test_a_key_in_memory_reads_like_one_on_disk_and_leaves_no_file():
    key = key_of_a_run()
    with key_in_memory(key) as path:
        assert read_key(path) == key
    assert not os.path.exists(path)
    assert key.secret.decode() not in repr(key)


def test_who_has_the_key_plays(guarded):
    host, path = guarded
    plays(connect(host.address, 20.0, read_key(path)))


def test_who_has_another_key_or_none_is_told_at_once_and_logged(guarded, tmp_path):
    host, path = guarded
    inside = connect(host.address, 20.0, read_key(path))
    another = read_key(new_key(tmp_path))
    for key, message in ((another, "another one"), (None, "demands a key")):
        began = time.monotonic()
        with pytest.raises(EnvKeyRefused, match=message) as caught:
            connect(host.address, 20.0, key)
        assert time.monotonic() - began < 10.0
        assert "`vlarl key FILE` makes one" in str(caught.value)
        assert isinstance(caught.value, EnvServerDied)
    wait_for(lambda: "refused" in host.log_tail())
    assert "no key, or another one" in host.log_tail()
    plays(inside)


def test_the_log_names_the_peer_and_one_that_keeps_trying_does_not_fill_it(tmp_path):
    path = new_key(tmp_path)
    host = ServerProcess("counting", 1, bind="tcp://127.0.0.1:*", key_file=path)
    stranger = zmq.Context.instance().socket(zmq.DEALER)
    stranger.linger, stranger.reconnect_ivl = 0, 5
    read_key(new_key(tmp_path, "another.key")).protect_client(stranger)
    try:
        stranger.connect(host.address)
        wait_for(lambda: "more before it" in host.log_tail())
        lines = host.log_tail().splitlines()
        assert 2 <= len(lines) <= 20
        assert any(line.startswith("refused 127.0.0.1:") for line in lines)
    finally:
        stranger.close()
        host.close()


def test_whoever_is_refused_during_a_flood_is_named_too(tmp_path):
    path = new_key(tmp_path)
    host = ServerProcess("counting", 1, bind="tcp://127.0.0.1:*", key_file=path)
    another = read_key(new_key(tmp_path, "another.key"))
    strangers = []
    try:
        for source, interval in (("127.0.0.7", 5), ("127.0.0.9", 100)):
            stranger = zmq.Context.instance().socket(zmq.DEALER)
            strangers.append(stranger)
            stranger.linger, stranger.reconnect_ivl = 0, interval
            another.protect_client(stranger)
            stranger.connect(host.address.replace("tcp://", f"tcp://{source}:0;"))
            wait_for(lambda source=source: source in host.log_tail())
        assert "127.0.0.1" not in host.log_tail()
    finally:
        for stranger in strangers:
            stranger.close()
        host.close()


def test_a_key_for_a_server_without_one_is_told(tmp_path):
    host = ServerProcess("counting", 1, bind="tcp://127.0.0.1:*")
    try:
        with pytest.raises(EnvKeyRefused, match=r"has no key|no key or another"):
            connect(host.address, 20.0, read_key(new_key(tmp_path)))
        plays(connect(host.address))
    finally:
        host.close()


def test_the_half_that_a_server_shows_does_not_let_in(guarded, tmp_path):
    host, path = guarded
    stranger = zmq.Context.instance().socket(zmq.DEALER)
    stranger.linger = 0
    stranger.curve_serverkey = read_key(path).public
    stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
    monitor = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    stranger.connect(host.address)
    assert monitor.poll(10_000)
    stranger.disable_monitor()
    monitor.close()
    stranger.close()


def test_a_silent_stranger_holds_nobody_up(guarded):
    host, path = guarded
    port = int(host.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        plays(connect(host.address, 20.0, read_key(path)))


def test_a_run_gives_the_key_to_its_servers_and_says_when_it_is_refused(guarded, tmp_path):
    host, path = guarded
    config = EnvConfig(
        suite="counting",
        mode="connect",
        addresses=(host.address,),
        envs_per_server=1,
        key_file=path,
    )
    plays(EnvAccess(config, EnvHost(config)).clients[0])
    keyless = EnvConfig(suite="counting", mode="connect", addresses=(host.address,))
    with pytest.raises(EnvKeyRefused, match="demands a key"):
        EnvAccess(keyless, EnvHost(keyless))
    lost = EnvConfig(mode="connect", addresses=(host.address,), key_file=str(tmp_path / "lost"))
    with pytest.raises(UserError, match="cannot read the key file"):
        EnvHost(lost)
