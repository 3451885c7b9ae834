import os
from pathlib import Path

import pytest

from actors.controller import train
from vlarl.config.load import load_config
from vlarl.errors import CheckpointError
from vlarl.runs import RunFolder

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


@pytest.mark.slow
def test_workers_apart_get_every_version_of_the_weights(tmp_path):
    config = ray_config(tmp_path, "rollout.workers=2")
    check(train(config), RunFolder(tmp_path / config.name))


@pytest.mark.slow
def test_mistakes_cross_ray_as_themselves(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        train(ray_config(tmp_path, "model.checkpoint=nowhere"))
    assert not our_servers()
