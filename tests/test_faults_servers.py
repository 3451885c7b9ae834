"""Env servers that hang, lie, vanish: what of it reaches a batch is nothing, and it is counted.

Deaths of a server are in `test_rollout.py`, what a client makes of it in `test_env_server.py`.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_policy import FakePolicy

from actors.env_host import EnvAccess, EnvHost
from actors.episodes import EpisodeSource
from actors.rollout import RolloutCollector
from envservers.counting import TASKS, check_transition
from vlarl.addresses import present_address
from vlarl.config.load import load_config
from vlarl.config.process_schema import EnvConfig
from vlarl.errors import EnvServerDied, UserError

ROOT = Path(__file__).resolve().parents[1]
T, ENVS, LENGTH = 6, 3, 10


class Reward:
    """Holds every transition to be a true one, and does something once, in mid-episode."""

    def __init__(self, deed=lambda: None):
        self._deed = deed
        self.done = False

    def __call__(self, seen):
        check_transition(seen.before, seen.actions, seen.after)
        if seen.before.step.sum() and not self.done:
            self.done = True
            self._deed()
        return seen.after.executed.astype(np.float32)


def collector(access, reward, **options):
    source = EpisodeSource(TASKS, (0,), sum(client.num_envs for client in access.clients))
    return RolloutCollector(
        access.clients, FakePolicy(), reward, source, T, restart=access.restart, **options
    )


def shown(batch):
    """[N, T, 8] what every decision was shown."""
    return batch["context", "shown"].reshape(-1, T, 8)


@contextlib.contextmanager
def opened(config):
    host = EnvHost(config)
    access = EnvAccess(config, host)
    try:
        yield host, access
    finally:
        access.close()
        host.close()


def test_a_server_that_hangs_is_ended_and_replaced():
    config = EnvConfig(
        "counting", envs_per_server=ENVS, options={"episode_length": LENGTH}, deadline_seconds=2.0
    )
    with opened(config) as (host, access):
        hung = host.pids()[0]
        reward = Reward(lambda: os.kill(hung, signal.SIGSTOP))
        batch, stats = collector(access, reward).collect()
        assert reward.done
        assert hung not in host.pids()
    assert stats.restarts == 1
    assert stats.dropped_episodes == ENVS
    assert shown(batch).shape == (2 * ENVS, T, 8)


@pytest.mark.parametrize("moment", ["save", "evaluation"])
def test_a_server_that_dies_between_windows_is_replaced_and_counted_in_the_next(moment):
    config = EnvConfig("counting", envs_per_server=ENVS, options={"episode_length": LENGTH})
    with opened(config) as (host, access):
        rollout = collector(access, Reward())
        rollout.collect()
        kill = functools.partial(os.kill, host.pids()[0], signal.SIGKILL)
        if moment == "save":
            kill()
            state = rollout.state_dict()
            assert all(len(lane["environments"]) for lane in state["lanes"])
        else:
            rollout.lend(lambda clients: kill())
        batch, stats = rollout.collect()
        _, later = rollout.collect()
    assert (stats.restarts, later.restarts) == (1, 0)
    assert stats.dropped_episodes == ENVS
    # The other server's episodes went on.
    assert shown(batch)[ENVS:, 0, 2].any()


LIAR = """
import sys
import numpy as np
from envservers.counting import CountingSuite
from envservers.server import EnvServer, bind
from envservers.service import SuiteService
from vlarl import wire

class Trusting(SuiteService):
    "Checks nothing of what the suite says, as another release might."
    def step(self, env_ids, actions, record=False):
        return self.suite.step(env_ids, actions, record)

class Liar(EnvServer):
    "Spoils its third answer to a step."
    steps = 0
    def _answer(self, client, frames):
        answer = super()._answer(client, frames)
        if wire.decode(frames)["call"] != "step":
            return answer
        self.steps += 1
        if self.steps != 3:
            return answer
        if sys.argv[1] == "cut_frame":
            return [*answer[:-1], bytes(answer[-1])[:-5]]
        if sys.argv[1] == "missing_frame":
            return answer[:-1]
        message = wire.decode([bytes(frame) for frame in answer])
        step = message["result"]["time_step"]
        if sys.argv[1] == "nan":
            step["state"][0, 0] = np.nan
        elif sys.argv[1] == "nan_reward":
            step["reward"][0] = np.nan
        elif sys.argv[1] == "shape":
            step["state"] = step["state"][:, :-1]
        elif sys.argv[1] == "type":
            step["step"] = step["step"].astype(np.float32)
        elif sys.argv[1] == "image":
            step["images"] = {name: image[:, 1:] for name, image in step["images"].items()}
        elif sys.argv[1] == "rows":
            step["env_ids"] = step["env_ids"][::-1]
        elif sys.argv[1] == "no_field":
            del step["truncated"]
        elif sys.argv[1] == "no_array":
            step["truncated"] = None
        elif sys.argv[1] == "no_step":
            message["result"] = {}
        return wire.encode(message)

socket, address = bind(sys.argv[2])
suite = CountingSuite(3, 10)
print(address, flush=True)
Liar(Trusting(suite), socket, local=address.startswith("ipc")).serve()
"""
LOCAL_LIES = ["cut_frame", "missing_frame", "nan", "nan_reward", "shape", "rows", "no_field"]


@contextlib.contextmanager
def liar(lie, bind):
    process = subprocess.Popen(
        [sys.executable, "-c", LIAR, lie, bind], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("lie", "where"),
    [
        *[(lie, "tcp") for lie in [*LOCAL_LIES, "type", "image", "no_array", "no_step"]],
        *[(lie, "ipc") for lie in LOCAL_LIES],
    ],
)
def test_no_wrong_answer_reaches_a_batch(lie, where, tmp_path):
    bind = "tcp://127.0.0.1:*" if where == "tcp" else f"ipc://{tmp_path}/socket"
    with liar(lie, bind) as address:
        config = EnvConfig("counting", envs_per_server=ENVS, mode="connect", addresses=(address,))
        with opened(config) as (_, access):
            rollout = collector(access, Reward())
            batch, stats = rollout.collect()
            again, later = rollout.collect()
    assert stats.restarts == 1
    assert stats.dropped_episodes == ENVS
    # The two answers before it are thrown away with it.
    assert stats.dropped_decisions == 2 * ENVS
    assert later.restarts == 0
    for each in (batch, again):
        assert shown(each).shape == (ENVS, T, 8)
        assert np.isfinite(shown(each).numpy()).all()


@contextlib.contextmanager
def envserver(file):
    """`vlarl envserver`, wherever there is a free port, which it writes into the file."""
    words = ["envserver", "counting", f"num_envs={ENVS}", "bind=tcp://127.0.0.1:*"]
    words += [f"address_file={file}", f"options={{episode_length: {LENGTH}}}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "actors.cli", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_remote_server_may_come_back_on_another_port(tmp_path):
    file = tmp_path / "server.address"
    with contextlib.ExitStack() as servers:
        first = servers.enter_context(envserver(file))
        ready = first.stdout.readline().split()
        assert ready == ["ready", present_address(f"@{file}")]

        def move():
            first.kill()
            first.wait()
            servers.enter_context(envserver(file))

        config = EnvConfig(
            "counting",
            envs_per_server=ENVS,
            mode="connect",
            addresses=(f"@{file}",),
            deadline_seconds=60.0,
        )
        with opened(config) as (_, access):
            rollout = collector(access, Reward(move))
            batch, stats = rollout.collect()
        assert present_address(f"@{file}") != ready[1]
    assert stats.restarts == 1
    assert stats.dropped_episodes == ENVS
    # All rows are of the second server, from its first episodes on.
    assert (shown(batch)[:, 0, 1:3] == np.array([1, 0])).all()


def test_a_server_that_stays_away_ends_the_run_by_name_after_its_restarts(tmp_path):
    file = tmp_path / "server.address"
    with envserver(file) as process:
        process.stdout.readline()
        config = EnvConfig(
            "counting",
            envs_per_server=ENVS,
            mode="connect",
            addresses=(f"@{file}",),
            deadline_seconds=5.0,
        )
        with opened(config) as (_, access):
            access._config = dataclasses.replace(config, deadline_seconds=0.2)
            rollout = collector(access, Reward(process.kill), max_restarts=2)
            with pytest.raises(EnvServerDied, match=r"env server 0 failed .*env\.restarts=2"):
                rollout.collect()


def test_an_address_file_is_read_when_it_is_needed(tmp_path):
    file = tmp_path / "address"
    with pytest.raises(EnvServerDied, match="cannot read"):
        present_address(f"@{file}")
    file.write_text("5555\n")
    with pytest.raises(EnvServerDied, match="'5555', which is no address"):
        present_address(f"@{file}")
    assert present_address("tcp://127.0.0.1:1") == "tcp://127.0.0.1:1"
    config = load_config(None, ["env.mode=connect", f"env.addresses=['@{file}']"])
    with pytest.raises(UserError, match=rf"no env server answers at @{file} .*address_file={file}"):
        EnvAccess(dataclasses.replace(config.env, deadline_seconds=0.1), EnvHost(config.env))


def test_an_address_that_leads_nowhere_is_not_written(tmp_path):
    key = tmp_path / "key"
    subprocess.run([sys.executable, "-m", "actors.cli", "key", str(key)], cwd=ROOT, check=True)
    words = ["counting", "--num-envs", "1", "--bind", "tcp://0.0.0.0:*", "--key-file", str(key)]
    found = subprocess.run(
        [sys.executable, "-m", "envservers.server", *words, "--address-file", str(tmp_path / "a")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 2
    assert "every interface" in found.stderr
    assert not (tmp_path / "a").exists()
