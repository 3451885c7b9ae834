"""What goes where: the plan by itself, and a run over several Ray nodes of this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from actors.placement_plan import Bundle, Node, lacking, plan, selects
from vlarl.config.load import load_config
from vlarl.errors import ConfigError

ROOT = Path(__file__).parents[1]


def planned(nodes, *overrides):
    return plan(load_config(None, ["cluster.address=auto", *overrides]), nodes)


def nodes(count, cpus=8.0, gpus=0.0, **labels):
    return [Node(f"{labels}{n}", f"10.0.0.{n}", cpus, gpus, labels) for n in range(count)]


def test_by_default_one_process_acts_and_learns_beside_its_servers():
    found = plan(load_config(None), nodes(1, gpus=1))
    (bundle,) = found.bundles
    assert (bundle.cpus, bundle.gpus) == (1, 1)
    assert found.workers == ()
    assert [seat.bundle for seat in found.hosts] == [found.learners[0].bundle] == [0]
    assert [(share.hosts, share.share) for share in found.shares] == [((0,), (0, 1))]
    assert not found.hosts_apart


def test_several_learners_have_a_gpu_each_and_workers_share_the_rest():
    several = ["runtime.learners=2", "env.servers=4"]
    found = planned(nodes(1, gpus=2), *several, "rollout.workers=4")
    (bundle,) = found.bundles
    assert bundle.who == "2 learners with 4 rollout workers with env servers"
    assert (bundle.cpus, bundle.gpus) == (6, 2)
    assert [seat.gpus for seat in found.learners] == [0.6, 0.6]
    # Two on each GPU, beside a learner.
    assert [seat.gpus for seat in found.workers] == [0.2] * 4
    # One worker does not act in a learner's process then.
    assert len(planned(nodes(1), "runtime.learners=2").workers) == 1
    apart = planned(nodes(3, gpus=2), *several, "cluster.strategy=disaggregated")
    assert [seat.gpus for seat in apart.learners] == [1, 1]
    with pytest.raises(ConfigError, match=r"runtime\.learners = 3.*have 2"):
        planned(nodes(1, gpus=2), "runtime.learners=3")


def test_collocated_workers_spread_and_share_with_the_learner():
    """Four workers on two nodes of two GPUs: three processes on the first, two on the other."""
    found = planned(nodes(2, gpus=2), "rollout.workers=4")
    assert [worker.bundle for worker in found.workers] == [0, 1, 0, 1]
    assert found.learners[0].gpus == 0.5
    assert [worker.gpus for worker in found.workers] == [0.5, 1, 0.5, 1]
    assert [bundle.gpus for bundle in found.bundles] == [2, 2]
    assert [bundle.cpus for bundle in found.bundles] == [3, 2]
    # Each worker of a node has its own servers there.
    own = {(share.hosts, share.share) for share in found.shares}
    assert own == {((0,), (0, 2)), ((0,), (1, 2)), ((1,), (0, 2)), ((1,), (1, 2))}


def test_disaggregated_the_learner_has_a_node_of_its_own():
    found = planned(nodes(3), "rollout.workers=2", "cluster.strategy=disaggregated")
    assert found.learners[0].bundle == 0
    assert sorted(worker.bundle for worker in found.workers) == [1, 2]
    assert [bundle.who for bundle in found.bundles] == [
        "the learner",
        *["1 rollout worker with env servers"] * 2,
    ]
    alone = planned(nodes(2), "cluster.strategy=disaggregated")
    assert len(alone.workers) == 1


def test_nodes_without_a_gpu_do_not_act_where_others_have_one():
    mixed = [*nodes(2, gpus=1, kind="gpu"), *nodes(3, kind="cpu")]
    found = planned(mixed, "rollout.workers=2", "cluster.strategy=disaggregated")
    assert [worker.gpus for worker in found.workers] == [0.5, 0.5]
    assert {worker.bundle for worker in found.workers} == {1}
    assert found.learners[0].gpus == 1
    on_cpus = planned(mixed, "rollout.workers=4", "env.servers=4", "runtime.device=cpu")
    assert {worker.bundle for worker in on_cpus.workers} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("workers", "hosts", "shares"),
    [
        (1, 2, [((0, 1), (0, 1))]),
        (2, 4, [((0, 1), (0, 1)), ((2, 3), (0, 1))]),
        (4, 2, [((0,), (0, 2)), ((1,), (0, 2)), ((0,), (1, 2)), ((1,), (1, 2))]),
    ],
)
def test_env_nodes_are_dealt_out_evenly(workers, hosts, shares):
    apart = ["cluster.envs.cpus=4", f"cluster.envs.nodes={hosts}", f"rollout.workers={workers}"]
    found = planned(nodes(8), *apart)
    assert found.hosts_apart
    assert [(share.hosts, share.share) for share in found.shares] == shares
    assert len({seat.bundle for seat in found.hosts}) == hosts
    assert not {seat.bundle for seat in found.hosts} & {seat.bundle for seat in found.workers}


def test_workers_of_all_nodes_share_the_servers_that_others_started():
    addresses = "[tcp://127.0.0.1:1, tcp://127.0.0.1:2]"
    found = planned(nodes(2), "rollout.workers=2", "env.mode=connect", f"env.addresses={addresses}")
    assert [share.share for share in found.shares] == [(0, 2), (1, 2)]


def test_fractions_of_gpus_are_packed_as_ray_gives_them():
    """A process never has parts of two GPUs: three of 0.6 need three, not 1.8."""

    def gpus(share, workers):
        found = planned(
            nodes(1, gpus=8),
            *(f"rollout.workers={workers}", f"env.servers={workers}", "cluster.rollout.nodes=1"),
            *(f"cluster.rollout.gpus={share}", "cluster.learner.gpus=0"),
        )
        return found.bundles[0].gpus

    assert gpus(0.6, 3) == 3
    assert gpus(0.5, 3) == 2
    assert gpus(0.25, 2) == 0.5
    assert gpus(2, 3) == 6
    shared = planned(nodes(1, gpus=1), "rollout.workers=2")
    assert shared.learners[0].gpus == pytest.approx(1 / 3, abs=1e-4)
    assert shared.bundles[0].gpus <= 1


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({"gpu": "h100"}, True),
        ({"gpu": "!h100"}, False),
        ({"gpu": "in(a100, h100)"}, True),
        ({"gpu": "!in(a100,h200)"}, True),
        ({"gpu": "h100", "zone": "a"}, False),
        ({"zone": "!a"}, True),
    ],
)
def test_labels_select_as_in_ray(selector, fits):
    assert selects(selector, Node("n", "10.0.0.1", 1, 0, {"gpu": "h100"})) is fits


def test_what_cannot_be_given_is_said_in_words():
    big = Bundle("the learner", 4, 1, {"role": "learner"})
    small = Bundle("2 rollout workers", 2, 0, {})
    learner = Node("a", "10.0.0.1", 8, 1, {"role": "learner"})
    assert lacking([big, small], [learner, *nodes(1)]) is None
    # The only node for the learner may not be given to whoever asks first.
    assert lacking([small, big], [learner, *nodes(1)]) is None
    alone = lacking([big, small], [learner])
    assert "2 different nodes" in alone
    assert "2 rollout workers" in alone
    nobody = lacking([big], nodes(3))
    assert "the learner asks for: 4 CPUs, 1 GPUs, labels role=learner" in nobody


def test_workers_that_do_not_divide_among_the_nodes_are_refused():
    with pytest.raises(ConfigError, match=r"rollout\.workers = 3: does not divide among the 2"):
        planned(nodes(2), "rollout.workers=3", "env.servers=3")
    with pytest.raises(ConfigError, match=r"env\.servers = 3: .* 2 rollout workers"):
        planned(nodes(2), "rollout.workers=4", "env.servers=3")


@pytest.mark.slow
def test_an_unreachable_cluster_is_a_mistake_within_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        words = ["rl", "configs/rl/tabletop.yaml", f"cluster.address={address}"]
        ended = subprocess.run(
            [sys.executable, "-m", "actors.cli", *words, f"output={tmp_path}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert ended.returncode == 2
    assert f"cluster.address = '{address}': nothing answers" in ended.stderr
    assert "ray start --head" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def _run_on_nodes(folder, *overrides):
    """Two iterations on the counting suite; see `ray_nodes.py`."""
    words = [
        *("env.servers=2", "env.envs_per_server=2", "rollout.workers=2"),
        *overrides,
    ]
    return subprocess.run(
        [sys.executable, "-m", "tests.ray_nodes", str(folder), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )


APART = (
    *("cluster.strategy=disaggregated", "cluster.rollout.nodes=1"),
    *("cluster.envs.nodes=1", "cluster.envs.cpus=2"),
    *("cluster.learner.gpus=1", "cluster.rollout.gpus=0.5"),
    *(f"cluster.{role}.labels={{role: {role}}}" for role in ("learner", "rollout", "envs")),
)


@pytest.mark.soak
@pytest.mark.slow
def test_learner_workers_and_envs_on_nodes_of_their_own(tmp_path):
    ended = _run_on_nodes(tmp_path, *APART)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert all(address.startswith("tcp://") for address in result["addresses"])
    assert not any("0.0.0.0" in address for address in result["addresses"])
    assert result["seen"] == {
        "LearnerActor": ["learner"],
        "RolloutActor": ["rollout", "rollout"],
        "EnvServerActor": ["envs"],
    }
    for row in result["rows"]:
        assert row["decisions"] == 16
        # The workers have the weights of the last update.
        assert row["batch_age"] == 0


@pytest.mark.soak
@pytest.mark.slow
def test_what_the_nodes_lack_is_said_before_anything_starts(tmp_path):
    ended = _run_on_nodes(tmp_path, *APART, "cluster.learner.cpus=2")
    assert "ConfigError: cluster.address = " in ended.stderr
    assert "no node can give what the learner asks for: 2 CPUs, 1 GPUs" in ended.stderr
    assert "1 x 1 CPUs, 1 GPUs, labels role=learner" in ended.stderr
