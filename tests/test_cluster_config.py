"""Placements that no cluster could give are refused with the config, before anything starts."""

import pytest

from vlarl.config.load import config_yaml, load_config
from vlarl.errors import ConfigError

CLUSTER = ["cluster.address=10.0.0.1:6379"]
WORKERS = [*CLUSTER, "rollout.workers=4", "env.servers=4"]

IMPOSSIBLE = [
    # Overrides, the key that the message names, a word of the remedy or reason.
    (["cluster.address=head"], "cluster.address", "HOST:PORT"),
    (["cluster.address=ray://head:10001"], "cluster.address", "Ray Client"),
    (["cluster.address=head:port"], "cluster.address", "10.0.0.1:6379"),
    (["runtime.address=auto"], "runtime.address", "Did you mean cluster.address?"),
    (["cluster.strategy=colocated"], "cluster.strategy", "Did you mean collocated?"),
    (["cluster.learner.cpus=-1"], "cluster.learner.cpus", "at least 0"),
    (["cluster.learner.gpus=-1"], "cluster.learner.gpus", "at least 0"),
    (["cluster.learner.gpus=1.5"], "cluster.learner.gpus", "gpus=1"),
    (
        ["cluster.learner.gpus=1", "runtime.device=cpu"],
        "cluster.learner.gpus",
        "no effect with runtime.device=cpu",
    ),
    (["cluster.learner.gpus=0", "runtime.device=cuda"], "cluster.learner.gpus", "null"),
    (["cluster.wait_seconds=-1"], "cluster.wait_seconds", "at least 0"),
    (["cluster.connect_seconds=0"], "cluster.connect_seconds", "above zero"),
    (["cluster.wait_seconds=60"], "cluster.wait_seconds", "no effect with cluster.address=local"),
    (["stage=sft", *CLUSTER], "cluster.address", "no effect with stage=sft"),
    (["runtime.kind=inprocess", *CLUSTER], "cluster.address", "no effect"),
    ([*CLUSTER, "runtime.object_store_mb=200"], "runtime.object_store_mb", "cluster.address"),
    # A machine is one node.
    (["cluster.strategy=disaggregated"], "cluster.strategy", "cluster.address=HOST:PORT"),
    (["rollout.workers=2", "cluster.rollout.nodes=2"], "cluster.rollout.nodes", "second node"),
    (["cluster.envs.nodes=1"], "cluster.envs.nodes", "second node"),
    (["cluster.learner.labels={gpu: h100}"], "cluster.learner.labels", "without any"),
    # What shares a process or a node.
    ([*CLUSTER, "cluster.rollout.cpus=2"], "cluster.rollout.cpus", "the learner acts"),
    (
        [*WORKERS, "cluster.learner.labels={role: l}", "cluster.rollout.labels={role: r}"],
        "cluster.rollout.labels.role",
        "disaggregated",
    ),
    (
        [*WORKERS, "cluster.rollout.labels={role: r}", "cluster.envs.labels={role: e}"],
        "cluster.envs.labels.role",
        "cluster.envs.nodes",
    ),
    # What does not divide.
    ([*WORKERS, "cluster.rollout.nodes=3"], "cluster.rollout.nodes", "Use 1, 2 nodes"),
    (["rollout.workers=3"], "env.servers", "Use 3 of them"),
    (["rollout.workers=2", "env.servers=3"], "env.servers", "Use 2 of them"),
    (
        [*CLUSTER, "rollout.workers=4", "cluster.rollout.nodes=2", "env.servers=3"],
        "env.servers",
        "among 2 rollout workers",
    ),
    (
        ["env.mode=connect", "env.addresses=['tcp://127.0.0.1:1']", "rollout.workers=2"],
        "env.addresses",
        "1 env servers do not divide",
    ),
    ([*WORKERS, "cluster.envs.nodes=1"], "cluster.envs.cpus", "cluster.envs.cpus=4"),
    # Nodes that are not there yet cannot be counted, nor their GPUs.
    ([*WORKERS, "cluster.wait_seconds=9"], "cluster.rollout.nodes", "cluster.rollout.nodes=4"),
    ([*CLUSTER, "cluster.wait_seconds=9"], "cluster.learner.gpus", "runtime.device=cpu"),
    (
        [
            *WORKERS,
            *("cluster.wait_seconds=9", "cluster.rollout.nodes=2", "cluster.learner.gpus=1"),
        ],
        "cluster.rollout.gpus",
        "not be there yet",
    ),
    (
        [*WORKERS, "cluster.envs.nodes=3", "cluster.envs.cpus=4"],
        "cluster.envs.nodes",
        "nor is a multiple",
    ),
    (
        [*CLUSTER, *("rollout.workers=4", "cluster.envs.nodes=1", "cluster.envs.cpus=2")],
        "env.servers",
        "among 4 rollout workers",
    ),
    (
        [
            *("env.mode=connect", "env.addresses=['tcp://127.0.0.1:1']"),
            *(*CLUSTER, "cluster.envs.cpus=2"),
        ],
        "cluster.envs.cpus",
        "started by hand",
    ),
]


@pytest.mark.parametrize(("overrides", "key", "remedy"), IMPOSSIBLE)
def test_an_impossible_placement_names_key_value_and_remedy(overrides, key, remedy):
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert f"{key} = " in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["rollout.workers=2"],
        ["cluster.address=auto", "cluster.strategy=disaggregated", "cluster.rollout.gpus=0.25"],
        [*WORKERS, "cluster.rollout.nodes=2", "cluster.learner.labels={zone: 'in(a,b)'}"],
        # One worker on two nodes of env servers, and four on one.
        ["cluster.address=auto", *("cluster.envs.nodes=2", "cluster.envs.cpus=2")],
        [*WORKERS, "cluster.envs.nodes=1", "cluster.envs.cpus=4"],
    ],
)
def test_what_a_cluster_can_give_survives_the_run_folder(overrides, tmp_path):
    config = load_config(None, overrides)
    file = tmp_path / "config.yaml"
    file.write_text(config_yaml(config))
    assert load_config(file) == config
