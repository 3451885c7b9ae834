"""A Ray cluster of several nodes on this machine, with token authentication, for a run in it.

`python -m tests.ray_nodes OUTPUT key=value ...` trains by `configs/rl/debug.yaml` with those
overrides, and prints one line of JSON: the run's metrics, and which process was on which node.

The nodes pretend to have GPUs. A process of its own, because Ray keeps its authentication mode for
the life of one.
"""

import json
import os
import secrets
import sys
from pathlib import Path

NODES = (
    {"num_cpus": 1, "num_gpus": 1, "labels": {"role": "learner"}},
    {"num_cpus": 2, "num_gpus": 1, "labels": {"role": "rollout"}},
    {"num_cpus": 2, "num_gpus": 0, "labels": {"role": "envs"}},
)


def main() -> None:
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex())
    import ray
    from ray._private.state import actors
    from ray.cluster_utils import Cluster

    from actors import ray_runtime
    from actors.controller import train
    from vlarl.config.load import load_config
    from vlarl.runs import RunFolder

    head, *others = NODES
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**head, "object_store_memory": 10**8},
    )
    for node in others:
        cluster.add_node(**node, object_store_memory=10**8)
    cluster.wait_for_nodes()
    output, *overrides = sys.argv[1:]
    config = load_config(
        Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml",
        [f"output={output}", f"cluster.address={cluster.address}", *overrides],
    )
    seen = {}
    start = ray_runtime.RayRuntime._start_apart

    def noted(self, *arguments):
        start(self, *arguments)
        names = {node["NodeID"]: node["Labels"]["role"] for node in ray.nodes()}
        for actor in actors().values():
            role = names[actor["Address"]["NodeID"]]
            seen.setdefault(actor["ActorClassName"], []).append(role)
        seen["addresses"] = ray.get(self._hosts[0].addresses.remote())

    ray_runtime.RayRuntime._start_apart = noted
    try:
        result = train(config)
        rows = RunFolder(Path(output) / config.name).metrics()
        print(json.dumps({"steps": result["steps"], "rows": rows, "seen": seen}))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
