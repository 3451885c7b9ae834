"""A user's mistakes about env servers: one line, exit code 2, before work starts."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from envservers.client import spawn_server
from envservers.spawn import ServerProcess
from vlarl.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def run_server(*arguments):
    command = [sys.executable, "-m", "envservers.server", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coutning", "--num-envs", "1"], "Did you mean 'counting'"),
        (["counting", "--num-envs", "1", "--options-json", '{"tasks": ["x"]}'], "unknown task"),
        (["counting", "--num-envs", "1", "--options-json", "{"], "--options-json '{': not JSON"),
        (["counting", "--num-envs", "1", "--options-json", "3"], "not a mapping"),
        (
            ["counting", "--num-envs", "1", "--options-json", '{"image_size": "big"}'],
            "option image_size = 'big': must be a whole number",
        ),
        (["counting", "--num-envs", "1", "--bind", "udp:/x"], "cannot bind"),
        (["counting", "--num-envs", "1000000000"], "MiB are free"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, message):
    ended = run_server(*arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        ended = run_server("counting", "--num-envs", "1", "--bind", address)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert f"{address} is in use" in ended.stderr
        assert "bind=tcp://HOST:PORT for `vlarl envserver`" in ended.stderr
        assert "--bind tcp://HOST:PORT for `python -m envservers.server`" in ended.stderr
        with pytest.raises(UserError, match="is in use"):
            ServerProcess("counting", 1, bind=address)


def test_mistakes_reach_the_one_who_spawns():
    with pytest.raises(UserError, match="unknown task 'x'"):
        spawn_server("counting", 1, {"tasks": ["x"]})
    with pytest.raises(UserError, match="Did you mean"):
        spawn_server("coutning", 1)
    with pytest.raises(UserError, match="cannot start"):
        spawn_server("counting", 1, python="/no/such/python")
