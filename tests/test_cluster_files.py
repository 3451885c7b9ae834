"""The files of `configs/cluster`: each is what its reader accepts, and starts a run that loads."""

import re
import shlex
import stat
import subprocess

import jsonschema
import pytest
import yaml

from actors.cli import parse
from tests.kuberay_schema import SCHEMAS
from vlarl.config.load import load_config
from vlarl.config.paths import configs_folder

FOLDER = configs_folder() / "cluster"


def run_config(words):
    """The config of `vlarl rl CONFIG key=value ...`, as the command line reads it."""
    assert words[:2] == ["vlarl", "rl"]
    invocation = parse(words[2:])
    (file,) = invocation.arguments
    return load_config(file, invocation.overrides)


def check_run(config, servers_per_node=8):
    """Every file runs the same: a learner's node, and two with a worker and servers each."""
    assert config.cluster.address == "auto"
    assert config.cluster.strategy == "disaggregated"
    assert (config.rollout.workers, config.cluster.rollout.nodes) == (2, 2)
    # The paper's 128 environments.
    assert config.cluster.rollout.nodes * config.env.environments == 128
    assert config.env.servers == config.cluster.envs.cpus == servers_per_node


def command_in_comments(text):
    """The command that a file's first comment shows."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    joined = " ".join(lines).replace("\\ ", "")
    return re.search(r"(vlarl rl .*?cluster\.envs\.cpus=\d+)", joined)[1]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_kuberay_manifests_have_the_fields_of_its_reference(name):
    manifest = yaml.safe_load((FOLDER / name).read_text())
    jsonschema.validate(manifest, SCHEMAS[name])
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert spec["authOptions"]["mode"] == "token"
    # What is mounted is a volume of the pod.
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]} <= (
            volumes
        )


@pytest.mark.parametrize(
    "breakage",
    [
        {"authOption": {"mode": "token"}},
        {"authOptions": {"mode": "tokens"}},
        {"workerGroupSpecs": [{"groupName": "a"}]},
    ],
)
def test_the_schema_of_manifests_finds_mistakes(breakage):
    manifest = yaml.safe_load((FOLDER / "raycluster.yaml").read_text())
    manifest["spec"] |= breakage
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMAS["raycluster.yaml"])


def test_the_job_brings_the_same_cluster_and_its_command_runs_there():
    cluster = yaml.safe_load((FOLDER / "raycluster.yaml").read_text())["spec"]
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())["spec"]
    assert job["rayClusterSpec"] == cluster
    shown = shlex.split(command_in_comments((FOLDER / "raycluster.yaml").read_text()))
    words = shlex.split(job["entrypoint"])
    assert words == shown
    config = run_config(words)
    check_run(config)
    groups = {tuple(g["labels"].items()): g for g in cluster["workerGroupSpecs"]}
    learner = groups[tuple(config.cluster.learner.labels.items())]
    rollout = groups[tuple(config.cluster.rollout.labels.items())]
    assert learner["replicas"] == 1
    assert rollout["replicas"] == config.cluster.rollout.nodes
    limits = rollout["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(limits["cpu"]) >= config.cluster.rollout.cpus + config.cluster.envs.cpus
    assert float(limits["nvidia.com/gpu"]) >= config.cluster.rollout.gpus


def test_ray_up_reads_its_file():
    util = pytest.importorskip("ray.autoscaler._private.util")
    text = (FOLDER / "ray_up.yaml").read_text()
    file = yaml.safe_load(text)
    util.validate_config(util.prepare_config(file))
    with pytest.raises(jsonschema.ValidationError):
        util.validate_config(util.prepare_config({**file, "max_worker": 2}))
    starts = [*file["head_start_ray_commands"], *file["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert any(path.endswith(".ray/auth_token") for path in file["file_mounts"])
    config = run_config(shlex.split(command_in_comments(text)))
    check_run(config)
    types = {tuple(t["labels"].items()): t for t in file["available_node_types"].values()}
    rollout = types[tuple(config.cluster.rollout.labels.items())]
    assert rollout["min_workers"] == config.cluster.rollout.nodes
    assert tuple(config.cluster.learner.labels.items()) in types


STUB = """#!/bin/bash
printf '%s\\0' "$(basename "$0")" "$@" >> {log}
printf '\\n' >> {log}
echo "{name} token=${{RAY_AUTH_TOKEN:-none}} mode=${{RAY_AUTH_MODE:-none}}" >> {environment}
case "$(basename "$0") $*" in
    scontrol*) printf 'node1\\nnode2\\nnode3\\n' ;;
    srun*hostname*) echo '10.0.0.1 fe80::1' ;;
esac
"""


def test_the_slurm_script_starts_ray_on_every_node_and_the_run_on_the_first(tmp_path):
    scripts = pytest.importorskip("ray.scripts.symmetric_run")
    script = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    log, environment = tmp_path / "log", tmp_path / "environment"
    for name in ("srun", "scontrol"):
        stub = tmp_path / name
        stub.write_text(STUB.format(log=log, environment=environment, name=name))
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    slurm = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "CHECKPOINT": "/shared/my checkpoint",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_JOB_ID": "17",
        "SLURM_CPUS_ON_NODE": "16",
    }
    subprocess.run(["bash", script], check=True, env=slurm, timeout=60)
    calls = [line.split("\0")[:-1] for line in log.read_text().splitlines()]
    assert calls[0] == ["scontrol", "show", "hostnames", "node[1-3]"]
    assert calls[1][:4] == ["srun", "--nodes=1", "--ntasks=1", "--nodelist=node1"]
    srun, ray = calls[2][: calls[2].index("ray")], calls[2][calls[2].index("ray") :]
    assert srun == ["srun", "--nodes=3", "--ntasks=3"]
    end = ray.index("--")
    assert ray[:6] == ["ray", "symmetric-run", "--address", "10.0.0.1:6379", "--min-nodes", "3"]
    assert scripts.curate_and_validate_ray_start_args(ray[2:end]) == ["--num-cpus=16"]
    config = run_config(ray[end + 1 :])
    check_run(config)
    assert config.model.checkpoint == "/shared/my checkpoint"
    assert config.name == "simpler-17"
    # A token of its own for the whole cluster, made before Ray starts.
    _, _, started = environment.read_text().splitlines()
    assert re.fullmatch(r"srun token=[0-9a-f]{64} mode=token", started)
    directives = re.findall(r"^#SBATCH --([a-z-]+)", script.read_text(), re.M)
    assert {"nodes", "ntasks-per-node", "gpus-per-node", "exclusive", "time"} <= set(directives)
    without = {key: value for key, value in slurm.items() if key != "CHECKPOINT"}
    refused = subprocess.run(["bash", script], env=without, capture_output=True, text=True)
    assert refused.returncode
    assert "CHECKPOINT=FOLDER" in refused.stderr
