"""What env servers say of themselves while rollout goes on: asked without waiting, told once."""

import contextlib
import os
import signal

import numpy as np
import pytest
from test_env_server import chunk, is_running, spawned, starts, wait_for
from test_rollout import ENVS, LENGTH, inprocess_clients, make_collector
from test_stream import check_history

from actors.env_host import EnvAccess, EnvHost
from actors.process_stats import ServerCounters
from actors.stream import RolloutStream
from envservers.counting import CountingSuite
from envservers.inprocess import InprocessClient
from envservers.registry import make_suite
from vlarl.config.process_schema import EnvConfig
from vlarl.errors import EnvServerDied


@pytest.mark.parametrize("inprocess", [False, True])
def test_a_client_is_asked_without_waiting_and_tells_with_a_later_answer(inprocess):
    suite = make_suite("counting", 2) if inprocess else None
    with contextlib.closing(InprocessClient(suite)) if inprocess else spawned(2) as client:
        slots = np.arange(2)
        client.reset(slots, starts(2))
        client.step(slots, chunk(2))
        assert client.told_stats() is None
        client.submit_stats()
        client.submit_stats()
        client.step(slots, chunk(2))
        told = client.told_stats()
        assert told["pid"] == client.stats()["pid"]
        assert told["env_steps"] == 4
        assert client.told_stats() is None
        client.submit_stats()
        assert client.stats()["env_steps"] == client.told_stats()["env_steps"] == 8


def test_counters_of_a_server_that_died_are_never_told():
    with spawned(2) as client:
        os.kill(client.pid, signal.SIGKILL)
        wait_for(lambda: not is_running(client.pid))
        client.submit_stats()
        client.submit_reset(np.arange(2), starts(2))
        with pytest.raises(EnvServerDied):
            client.receive()
        assert client.told_stats() is None


@contextlib.contextmanager
def clients_of(kind):
    """Two servers in this process, or in their own."""
    if kind == "inprocess":
        yield inprocess_clients()
        return
    options = {"episode_length": LENGTH, "seconds_per_step": 0.001}
    config = EnvConfig("counting", envs_per_server=ENVS, options=options)
    host = EnvHost(config)
    access = EnvAccess(config, host)
    yield access.clients
    access.close()
    host.close()


@pytest.mark.parametrize("kind", ["inprocess", "spawn"])
def test_every_second_of_a_server_is_told_once(kind):
    counters, told = ServerCounters(), []
    with clients_of(kind) as clients:
        collector = make_collector(clients)
        stream = RolloutStream(collector, lambda: 0, 0, threads=1, counters=counters)
        with contextlib.closing(stream):
            for _ in range(4):
                stream.take()
                told.append(counters.told()["server_simulation_seconds"])
            stream.pause()
            # Not all of it is told only because somebody waits for it.
            assert sum(told) > 0
            counters.ask(enumerate(clients))
            told.append(counters.told()["server_simulation_seconds"])
            busy = sum(client.stats()["busy_seconds"] for client in clients)
            assert min(told) >= 0
            assert sum(told) == pytest.approx(busy)
            # As if an evaluation had used them.
            for client in clients:
                client.reset(np.arange(ENVS), starts(ENVS))
            counters.skip(enumerate(clients))
            assert counters.told()["server_simulation_seconds"] == 0


def test_nobody_waits_for_what_a_server_says():
    class Silent(InprocessClient):
        asked = 0

        def submit_stats(self):
            self.asked += 1

        def told_stats(self):
            return None

        def stats(self):
            raise AssertionError("this waits")

    clients, counters = [Silent(CountingSuite(ENVS, LENGTH)) for _ in range(2)], ServerCounters()
    stream = RolloutStream(make_collector(clients), lambda: 0, 0, threads=1, counters=counters)
    with contextlib.closing(stream):
        for _ in range(3):
            check_history(stream.take()[0])
    assert all(client.asked >= 3 for client in clients)
    assert counters.told()["server_simulation_seconds"] == 0
