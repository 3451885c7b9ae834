"""Processes of a Ray run killed for real: the run goes on, and says what it lost."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from counting_run import CONFIG, counting_overrides, processes, until

from actors.controller import train
from actors.ray_hosts import Hosts
from actors.runtime import open_runtime
from vlarl.config.load import load_config
from vlarl.runs import RunFolder

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.timeout(900)
ITERATIONS = 2
SERVER = b"envservers.server"


@pytest.fixture(autouse=True)
def _marked(monkeypatch):
    """Ray's processes find the reward, and this test finds its own processes."""
    tests = str(Path(__file__).parent)
    paths = [tests, str(CONFIG.parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("VLARL_TEST_FAULTS", str(os.getpid()))


def run_of(tmp_path, plan, *overrides, decisions=16):
    """Rows of the metrics of a run that met with `plan`."""
    words = counting_overrides(tmp_path, "runtime.kind=ray", *overrides, plan=plan)
    config = load_config(CONFIG, [*words, f"ppo.iterations={ITERATIONS}"])
    result = train(config)
    run = RunFolder(tmp_path / config.name)
    assert result["steps"] == ITERATIONS
    assert run.steps()[-1] == ITERATIONS
    assert run.checkpoint_path() is not None
    rows = run.metrics()
    assert [row["step"] for row in rows] == list(range(1, ITERATIONS + 1))
    assert all(row["decisions"] == decisions for row in rows)
    return rows


def total(rows, name):
    return sum(row[name] for row in rows)


@pytest.mark.slow
def test_a_killed_host_of_servers_is_replaced_with_its_servers(tmp_path):
    rows = run_of(tmp_path, "host:2")
    assert total(rows, "host_restarts") == 1
    # Both servers died with their host, each with an episode in each of its environments.
    assert total(rows, "restarts") == 2
    assert total(rows, "dropped_episodes") == 4
    assert total(rows, "learner_restarts") == 0
    assert not processes(SERVER)


@pytest.mark.soak
@pytest.mark.slow
def test_a_killed_learner_goes_on_from_the_last_checkpoint(tmp_path):
    rows = run_of(tmp_path, "self:12")
    assert [row["learner_restarts"] for row in rows] == [0, 1]
    assert total(rows, "restarts") == 0
    assert not processes(SERVER)


@pytest.mark.soak
def test_a_killed_rollout_worker_is_replaced_and_its_window_collected_again(tmp_path):
    # Some seconds of rollout, of which the last twentieth of one is not told.
    longer = ["ppo.decisions_per_stream=40", "env.max_steps=400"]
    rows = run_of(tmp_path, "self:70", "rollout.workers=2", *longer, decisions=160)
    assert total(rows, "worker_restarts") == 1
    assert total(rows, "dropped_episodes") == 2
    # The 30th step of two environments in the second window.
    assert [row["dropped_decisions"] > 0 for row in rows] == [False, True]
    assert total(rows, "dropped_decisions") <= 2 * 29
    assert total(rows, "learner_restarts") == 0
    assert all(row["batch_age"] == 0 for row in rows)
    assert not processes(SERVER)


@pytest.mark.soak
@pytest.mark.slow
def test_a_killed_worker_of_an_asynchronous_run_begins_its_stream_anew(tmp_path):
    rows = run_of(tmp_path, "self:6", "rollout.workers=2", "rollout.mode=async")
    assert total(rows, "worker_restarts") == 1
    assert total(rows, "learner_restarts") == 0
    assert not processes(SERVER)


@pytest.mark.soak
@pytest.mark.slow
def test_a_successor_takes_the_reserved_seat(tmp_path):
    words = counting_overrides(tmp_path, "runtime.kind=ray", "rollout.workers=2")
    with open_runtime(load_config(CONFIG, words)) as runtime:
        runtime.iterate()
        free = ray.available_resources().get("CPU", 0.0)
        ray.kill(runtime._workers._posts[1].actor)
        metrics = runtime.iterate()
        assert (metrics["worker_restarts"], metrics["decisions"]) == (1, 16)
        # What is reserved counts as taken, whoever uses it.
        assert ray.available_resources().get("CPU", 0.0) == free
    assert not processes(SERVER)


@pytest.mark.soak
@pytest.mark.slow
def test_a_host_that_ray_kills_leaves_nothing_in_the_temporary_folder(tmp_path):
    """Ray ends the servers together with it, by SIGKILL."""
    words = counting_overrides(tmp_path, "runtime.kind=ray")
    with open_runtime(load_config(CONFIG, words)) as runtime:
        host = runtime._hosts.links[0].hosts[0]
        addresses = ray.get(host.addresses.remote())
        folders = [Path(address.removeprefix("ipc://")).parent for address in addresses]
        assert all(folder.is_dir() for folder in folders)
        ray.kill(host)
        until(lambda: not processes(SERVER), "servers outlive their host")
    assert not any(folder.exists() for folder in folders)


@pytest.mark.soak
@pytest.mark.slow
def test_what_is_lost_too_often_is_named_with_its_limit(tmp_path):
    with pytest.raises(RuntimeError, match=r"rollout worker \d died once more than runtime\.rest"):
        run_of(tmp_path, "self:6", "rollout.workers=2", "runtime.restarts=0")
    assert not processes(SERVER)


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    # Deaths are noticed as they are, only sooner.
    sooner = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 4, "object_store_memory": 10**8, "_system_config": sooner}
    made = Cluster(True, head_node_args=head)
    yield made
    made.shutdown()
    # A lost node's machine is gone as a whole; here, what ran beside its raylet is still there.
    for process in set(processes(b"")) - set(processes(SERVER)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    until(lambda: not processes(SERVER), "env servers outlive their host")


@pytest.mark.soak
@pytest.mark.slow
def test_a_lost_node_is_replaced_by_those_that_are_left(tmp_path, cluster):
    (tmp_path / "marks").mkdir()
    (tmp_path / "marks" / "head").write_text(cluster.head_node.node_id)
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    spread = ["rollout.workers=2", f"cluster.address={cluster.address}", "env.servers=1"]
    rows = run_of(tmp_path, "node:6", *spread)
    # The learner may have lived there too: then the run went back to its last checkpoint.
    assert total(rows, "worker_restarts") + max(row["learner_restarts"] for row in rows) == 1


APART = ["cluster.envs.nodes=1", "cluster.envs.cpus=1"]
"""Two env servers on a node without anything else, which they leave when it dies."""


def check_moved(rows):
    assert total(rows, "host_restarts") == 1
    assert total(rows, "restarts") == 2
    assert total(rows, "dropped_episodes") == 4
    assert total(rows, "learner_restarts") == 0


@pytest.mark.soak
def test_env_servers_of_a_lost_node_of_their_own_go_on_beside_others(tmp_path, cluster):
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    # The learner acts on the head, where room is left.
    spread = [f"cluster.address={cluster.address}", "cluster.learner.cpus=2", *APART]
    check_moved(run_of(tmp_path, "envnode:6", *spread))


@pytest.mark.soak
@pytest.mark.slow
def test_env_servers_of_a_lost_node_go_on_in_their_seat_on_a_spare_one(
    tmp_path, cluster, monkeypatch
):
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    # Nobody but Ray finds the place.
    monkeypatch.setattr(Hosts, "_inherited", None)
    spread = [f"cluster.address={cluster.address}", "cluster.learner.cpus=2", *APART]
    check_moved(run_of(tmp_path, "envnode:6", *spread))


@pytest.mark.soak
@pytest.mark.slow
def test_workers_that_share_lost_env_servers_find_them_again(tmp_path, cluster):
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    spread = [f"cluster.address={cluster.address}", "cluster.learner.cpus=0.5", *APART]
    spread += ["rollout.workers=2", "cluster.rollout.nodes=1", "cluster.rollout.cpus=1"]
    rows = run_of(tmp_path, "envnode:6", *spread)
    check_moved(rows)
    assert total(rows, "worker_restarts") == 0


@pytest.mark.soak
@pytest.mark.slow
def test_a_lost_node_of_env_servers_that_nobody_has_room_for_ends_the_run_by_name(
    tmp_path, cluster, monkeypatch
):
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    monkeypatch.setattr("actors.ray_hosts.PLACE_SECONDS", 5.0)
    full = [f"cluster.address={cluster.address}", "cluster.learner.cpus=4", *APART]
    said = r"env host 0 was lost with its node, and no node .* it needs 1 CPUs\. .*resume=auto"
    with pytest.raises(RuntimeError, match=said):
        run_of(tmp_path, "envnode:6", *full)
