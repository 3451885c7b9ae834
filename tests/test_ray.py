import json
import os
from pathlib import Path

import pytest

from actors.controller import train
from vlarl.config.load import load_config
from vlarl.errors import CheckpointError
from vlarl.runs import RunFolder
from vlarl.training_state import read_state

pytest.importorskip("ray")

CONFIG = Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml"


MARK = f"VLARL_TEST_RAY={os.getpid()}"
"""An environment variable that tells this test's env servers from anybody else's."""


@pytest.fixture(autouse=True)
def _mark(monkeypatch):
    monkeypatch.setenv(*MARK.split("="))


def ray_config(tmp_path, *overrides):
    """The debug config, spread over Ray actors and two server processes."""
    spread = ["runtime.kind=ray", "env.mode=spawn", "env.servers=2", "env.envs_per_server=2"]
    return load_config(CONFIG, [f"output={tmp_path}", *spread, *overrides])


def our_servers():
    """Process ids of the env servers of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                variables = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"envservers.server" in command and MARK.encode() in variables.split(b"\0"):
                found.append(int(entry.name))
    return found


def check(result, run):
    rows = run.metrics()
    assert result["steps"] == len(rows) == 2
    # Judged on the servers of the run, before the first iteration and after the last.
    assert result["sft"]["episodes"] == result["instruct"]["episodes"] == 4
    assert Path(result["report"]).is_file()
    for row in rows:
        assert row["decisions"] == 16
        assert row["batch_age"] == 0
        # A warm-up iteration trains the value head alone.
        assert row.get("ratio_start", 0.0) < 1e-3
    assert not our_servers()


@pytest.mark.slow
def test_one_process_acts_and_learns(tmp_path):
    config = ray_config(tmp_path)
    check(train(config), RunFolder(tmp_path / config.name))


@pytest.mark.soak
def test_workers_apart_get_every_version_of_the_weights(tmp_path):
    config = ray_config(tmp_path, "rollout.workers=2", "profile=true")
    run = RunFolder(tmp_path / config.name)
    check(train(config), run)
    for row in run.metrics():
        assert row["publishing_seconds"] > 0
        # Two workers that hold the same model as the learner.
        assert row["worker_memory_bytes"] > row["learner_memory_bytes"]
        assert row["server_memory_bytes"] > 0
        assert row["server_simulation_seconds"] > 0
    events = json.loads((run.path / "profile.json").read_text())["traceEvents"]
    processes = {e["args"]["name"]: e["pid"] for e in events if e["name"] == "process_name"}
    assert set(processes) == {"controller", "runtime", "learner", "worker 0", "worker 1"}
    spans = {e["name"]: e for e in events if e["ph"] == "X"}
    iterate = spans["iterate"]
    for name in ("window", "update", "publish"):
        # Clocks of one machine agree to well below this.
        assert iterate["ts"] - 1e4 < spans[name]["ts"]
        assert spans[name]["ts"] + spans[name]["dur"] < iterate["ts"] + iterate["dur"] + 1e4
    acting = {e["pid"] for e in events if e["name"] == "policy"}
    assert acting == {processes["worker 0"], processes["worker 1"]}


@pytest.mark.soak
@pytest.mark.slow
def test_workers_of_two_suites_allocate_by_what_all_of_them_saw(tmp_path):
    suites = {
        "rooms": {"suite": "navigation", "tasks": ["search_object", "follow_target"],
                  "image_size": 32, "max_steps": 4, "envs_per_server": 2},
        "table": {"suite": "tabletop", "tasks": ["spoon_on_towel"], "image_size": 32,
                  "max_steps": 8, "envs_per_server": 2},
    }  # fmt: skip
    spread = ["runtime.kind=ray", "env.mode=spawn", "rollout.workers=2"]
    allocation = ["env.allocation.suites=false", f"env.suites={json.dumps(suites)}"]
    words = [f"output={tmp_path}", *spread, *allocation]
    config = load_config(CONFIG.with_name("debug_suites.yaml"), words)
    train(config)
    assert not our_servers()
    run = RunFolder(tmp_path / config.name)
    walked, placed = ["rooms/search_object", "rooms/follow_target"], "table/spoon_on_towel"
    rows = run.metrics()
    assert [sum(row[f"allocation/{task}"] for task in walked) for row in rows] == [4, 4]
    assert [row[f"allocation/{placed}"] for row in rows] == [4, 4]
    workers = read_state(run.checkpoint_path())["workers"]
    assert len(workers) == 2
    known = [worker["sources"]["rooms"]["allocation"] for worker in workers]
    assert known[0]["episodes"] == known[1]["episodes"]
    assert known[0]["successes"] == known[1]["successes"]
    # Laplace's rule, of what both saw.
    for task, episodes, successes in zip(
        walked, known[0]["episodes"], known[0]["successes"], strict=True
    ):
        assert rows[-1][f"running_success/{task}"] == (successes + 1) / (episodes + 2)
    assert f"running_success/{placed}" not in rows[-1], "its suite has nothing to allocate"


@pytest.mark.slow
def test_mistakes_cross_ray_as_themselves(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty"):
        train(ray_config(tmp_path, f"model.checkpoint={tmp_path}/empty"))
    assert not our_servers()


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_rollout_goes_on_while_the_learner_learns(tmp_path, workers):
    """In one process with shared weights, and apart: every worker's thread ends with its actor."""
    spread = ("rollout.mode=async", f"rollout.workers={workers}", "ppo.iterations=3")
    config = ray_config(tmp_path, *spread, "checkpoint_every=2")
    result = train(config)
    rows = RunFolder(tmp_path / config.name).metrics()
    assert result["steps"] == len(rows) == 3
    for row in rows:
        assert row["decisions"] >= 16
        assert 0 <= row["batch_age_mean"] <= row["batch_age"] <= config.rollout.max_staleness
        assert row.get("ratio_start", 0.0) < 1e-3
    resumed = ray_config(tmp_path, *spread[:2], "ppo.iterations=4", "resume=auto")
    assert train(resumed)["steps"] == 4
    assert not our_servers()
