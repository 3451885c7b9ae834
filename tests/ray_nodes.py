"""A Ray cluster of several nodes on this machine, with token authentication, for a run in it.

`python -m tests.ray_nodes FOLDER key=value ...` opens the runtime of `configs/rl/debug.yaml` on the
counting suite, with those overrides, has it iterate twice, and prints one line of JSON: metrics,
and which process was where.

The nodes pretend to have GPUs. A process of its own, because Ray keeps its authentication mode for
the life of one.
"""

import json
import os
import secrets
import sys
from dataclasses import replace
from pathlib import Path

NODES = (
    {"num_cpus": 1, "num_gpus": 1, "labels": {"role": "learner"}},
    {"num_cpus": 2, "num_gpus": 1, "labels": {"role": "rollout"}},
    {"num_cpus": 2, "num_gpus": 0, "labels": {"role": "envs"}},
)


def checkpoint(folder: Path) -> Path:
    """Random weights, with room in the prompt for the suite's long instructions."""
    from envservers.registry import make_suite
    from vlarl.config.embodiments import load_embodiment
    from vlarl.model.presets import build, channel_bounds_codec, new_contract

    spec = make_suite("counting", 1, image_size=64).spec
    contract = new_contract(spec.cameras, load_embodiment(spec.embodiment))
    contract = replace(contract, prompt_tokens=96)
    build("tiny", contract, channel_bounds_codec(contract)).save_pretrained(folder)
    return folder


def main() -> None:
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex())
    import ray
    from ray._private.state import actors
    from ray.cluster_utils import Cluster

    from actors.runtime import open_runtime
    from vlarl.config.load import load_config

    folder, *overrides = sys.argv[1:]
    head, *others = NODES
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**head, "object_store_memory": 10**8},
    )
    for node in others:
        cluster.add_node(**node, object_store_memory=10**8)
    cluster.wait_for_nodes()
    config = load_config(
        Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml",
        [
            *("runtime.kind=ray", "env.suite=counting", "env.mode=spawn"),
            f"cluster.address={cluster.address}",
            f"model.checkpoint={checkpoint(Path(folder) / 'model')}",
            *overrides,
        ],
    )
    seen = {}
    try:
        with open_runtime(config) as runtime:
            rows = [runtime.iterate(), runtime.iterate()]
            names = {node["NodeID"]: node["Labels"]["role"] for node in ray.nodes()}
            for actor in actors().values():
                role = names[actor["Address"]["NodeID"]]
                seen.setdefault(actor["ActorClassName"], []).append(role)
            addresses = ray.get(runtime._hosts.links[0].hosts[0].addresses.remote())
        print(json.dumps({"rows": rows, "seen": seen, "addresses": addresses}))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
