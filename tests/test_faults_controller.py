"""The controller killed or interrupted for real, and what a resumed run then is: the same run."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from counting_run import CONFIG, PATIENCE, counting_overrides, processes, until

from actors import cli
from actors.controller import train
from actors.learner import Learner
from actors.proof import AFTER, Proof
from actors.rollout import RolloutCollector
from actors.runtime import InprocessRuntime
from vlarl.config.load import load_config
from vlarl.runs import RunFolder, verify_manifest

pytestmark = pytest.mark.timeout(900)
ROOT = CONFIG.parents[2]
ITERATIONS = "ppo.iterations=3"
TIMINGS = ("seconds", "share", "per_second", "memory_bytes")


@pytest.fixture(autouse=True)
def _marked(monkeypatch):
    tests = str(Path(__file__).parent)
    paths = [tests, str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("VLARL_TEST_FAULTS", f"{os.getpid()}-{time.monotonic_ns()}")
    torch.set_num_threads(1)


@contextlib.contextmanager
def started(folder, *overrides):
    """`vlarl rl` as a process, in a process group of its own as from a terminal."""
    words = [sys.executable, "-m", "actors.cli", "rl", str(CONFIG), f"output={folder}", *overrides]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=ROOT, stderr=log, stdout=log, process_group=0)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_rows(folder, count, process):
    """Until the run has logged so many iterations."""
    file = folder / "debug" / "metrics.jsonl"

    def logged():
        assert process.poll() is None, (folder / "log").read_text()
        return file.exists() and file.read_text().count("\n") >= count

    until(logged, f"{count} iterations")


def numbers(run):
    """Every logged metric that is no timing."""
    return [
        {name: value for name, value in row.items() if not name.endswith(TIMINGS)}
        for row in run.metrics()
    ]


def assert_same_run(one, other):
    """Equal in every byte of the last checkpoint (weights, optimizer, environments) and metric."""
    first, second = RunFolder(one / "debug"), RunFolder(other / "debug")
    assert numbers(first) == numbers(second)
    folders = [run.checkpoint_path() for run in (first, second)]
    names = sorted(str(file.relative_to(folders[0])) for file in folders[0].rglob("*"))
    assert {"model.safetensors", "training_state.safetensors", "training_state.json"} <= {*names}
    for name in names:
        if (folders[0] / name).is_file():
            same = (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
            assert same, f"{name} differs"


def folders(tmp_path):
    made = tmp_path / "whole", tmp_path / "halted"
    for folder in made:
        folder.mkdir()
    return made


def killed_and_resumed(folder, overrides):
    """SIGKILL while it works, its servers gone, then `resume=auto` to the end."""
    with started(folder, *overrides, ITERATIONS) as process:
        # The second row says that the checkpoint of the first iteration is whole.
        wait_for_rows(folder, 2, process)
        process.kill()
        process.wait()
        until(lambda: not processes(b""), "orphans remain")
    return train(load_config(CONFIG, [f"output={folder}", *overrides, ITERATIONS, "resume=auto"]))


@pytest.mark.slow
@pytest.mark.parametrize("allocation", ["uniform", pytest.param("failure", marks=pytest.mark.soak)])
def test_a_killed_controller_resumes_bit_for_bit(tmp_path, allocation):
    whole, halted = folders(tmp_path)
    spread = ["env.mode=spawn", "env.servers=2", "env.envs_per_server=4", "runtime.threads=1"]
    spread += [f"env.allocation.kind={allocation}"]
    train(load_config(CONFIG, [f"output={whole}", *spread, ITERATIONS]))
    killed_and_resumed(halted, spread)
    assert_same_run(whole, halted)


@pytest.mark.soak
def test_killed_under_ray_leaves_no_orphans_and_resumes_bit_for_bit(tmp_path):
    pytest.importorskip("ray")
    whole, halted = folders(tmp_path)
    words = counting_overrides(tmp_path, "runtime.threads=1")[1:]
    train(load_config(CONFIG, [f"output={whole}", *words, ITERATIONS]))
    killed_and_resumed(halted, [*words, "runtime.kind=ray"])
    for row in (rows := RunFolder(halted / "debug").metrics()):
        assert row.pop("host_restarts") == 0
    # What Ray alone logs is taken out, so that the rest can be held against a run without it.
    file = RunFolder(halted / "debug").metrics_file
    file.write_text("")
    for row in rows:
        RunFolder(halted / "debug").log(**{k: v for k, v in row.items() if k != "seconds"})
    assert_same_run(whole, halted)


MOMENTS = {
    "rollout": (RolloutCollector, "collect"),
    "update": (Learner, "update"),
    "evaluation": (InprocessRuntime, "evaluate"),
    "save": (InprocessRuntime, "save"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_at_any_moment_leaves_a_run_that_resumes(
    tmp_path, monkeypatch, capsys, moment
):
    owner, name = MOMENTS[moment]
    plain = getattr(owner, name)
    presses = iter([signal.SIGINT])

    def interrupted(self, *arguments):
        for number in presses:
            os.kill(os.getpid(), number)
        return plain(self, *arguments)

    words = [f"output={tmp_path}", "ppo.iterations=3", "env.mode=spawn"]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        assert cli.run(["rl", str(CONFIG), *words]) == 1
    assert "which name=debug resume=auto continues" in capsys.readouterr().err
    assert not processes(b"envservers.server")
    run = RunFolder(tmp_path / "debug")
    assert run.steps() == [0 if moment == "evaluation" else 1]
    assert verify_manifest(run.path / "checkpoints" / "last") == run.steps()[-1]
    assert train(load_config(CONFIG, [*words, "resume=auto"]))["steps"] == 3
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]


def test_an_interrupt_during_the_last_evaluation_stops_before_the_report(
    tmp_path, monkeypatch, capsys
):
    judge = Proof.judge

    def interrupted(self, name):
        if name == AFTER:
            os.kill(os.getpid(), signal.SIGINT)
        return judge(self, name)

    words = [f"output={tmp_path}", "env.mode=spawn"]
    with monkeypatch.context() as patched:
        patched.setattr(Proof, "judge", interrupted)
        assert cli.run(["rl", str(CONFIG), *words]) == 1
    said = capsys.readouterr()
    assert "step_2, which name=debug resume=auto continues" in said.err
    assert not processes(b"envservers.server")
    run = RunFolder(tmp_path / "debug")
    assert not (run.path / "report.html").exists()
    assert cli.run(["rl", str(CONFIG), *words, "resume=auto"]) == 0
    assert (run.path / "report.html").exists()
    assert [row["step"] for row in run.metrics()] == [1, 2]


@pytest.mark.soak
@pytest.mark.slow
def test_ctrl_c_under_ray_leaves_a_checkpoint_and_nothing_else(tmp_path):
    pytest.importorskip("ray")
    spread = ["runtime.kind=ray", "env.mode=spawn", "ppo.iterations=1000", "checkpoint_every=1000"]
    with started(tmp_path, *spread) as process:
        wait_for_rows(tmp_path, 1, process)
        # A terminal tells the whole group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 1
        until(lambda: not processes(b""), "processes remain")
    assert "resume=auto continues" in (tmp_path / "log").read_text()
    run = RunFolder(tmp_path / "debug")
    assert run.steps()[-1] == run.metrics()[-1]["step"] >= 1
    assert run.checkpoint_path() is not None
