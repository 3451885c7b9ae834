import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from actors import cli, controller
from actors.controller import Interrupt, iterate, train
from actors.runtime import InprocessRuntime
from vlarl.config.load import load_config
from vlarl.errors import CheckpointError, ConfigError
from vlarl.progress import Progress
from vlarl.runs import RunFolder

CONFIG = Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml"


def debug_config(tmp_path, *overrides):
    return load_config(CONFIG, [f"output={tmp_path}", *overrides])


class FakeRuntime:
    """Records what the controller asks for."""

    def __init__(self, metrics=()):
        self.events = []
        self._metrics = list(metrics)

    def iterate(self):
        self.events.append("iterate")
        extra = self._metrics.pop(0) if self._metrics else {}
        return {"waiting_seconds": 0.0, "success_rate": 0.5, "approximate_kl": 0.01, **extra}

    def save(self, folder):
        self.events.append("save")
        (folder / "weights").write_text("w")

    def close(self):
        self.events.append("close")


class InterruptingProgress(Progress):
    """Presses Ctrl-C after the first iteration."""

    def advance(self, amount=1, **numbers):
        super().advance(amount, **numbers)
        os.kill(os.getpid(), signal.SIGINT)


def make_run(tmp_path, *overrides):
    config = debug_config(tmp_path, *overrides)
    return config, RunFolder.create(config)


def test_loop_logs_every_iteration_and_saves_as_configured(tmp_path):
    config, run = make_run(tmp_path, "ppo.iterations=5", "checkpoint_every=2")
    runtime = FakeRuntime()
    result = iterate(config, run, runtime, Interrupt())
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4, 5]
    assert runtime.events == [*["iterate", "iterate", "save"] * 2, "iterate", "save"]
    assert result["steps"] == 5
    assert result["checkpoint"] == str(run.path / "checkpoints" / "step_5")
    json.dumps(result)


def test_restarts_and_dropped_episodes_are_summed_also_where_a_run_goes_on(tmp_path):
    config, run = make_run(tmp_path, "ppo.iterations=2")
    lossy = {"restarts": 1.0, "dropped_episodes": 4.0}
    iterate(config, run, FakeRuntime([lossy, {}]), Interrupt())
    config, again = make_run(tmp_path, "ppo.iterations=3", "resume=auto")
    iterate(config, again, FakeRuntime([lossy]), Interrupt(), first=2)
    rows = again.metrics()
    assert [row["restarts_total"] for row in rows] == [1, 1, 2]
    assert [row["dropped_episodes_total"] for row in rows] == [4, 4, 8]


def test_each_row_tells_the_seconds_of_the_checkpoint_before_it(tmp_path):
    config, run = make_run(tmp_path, "ppo.iterations=4", "checkpoint_every=2")
    iterate(config, run, FakeRuntime(), Interrupt())
    saving = [row["saving_seconds"] for row in run.metrics()]
    assert [seconds > 0 for seconds in saving] == [False, False, True, False]
    assert all(row["evaluation_seconds"] == 0 for row in run.metrics())


def test_success_is_smoothed_over_iterations(tmp_path):
    config, run = make_run(tmp_path, "ppo.iterations=2")
    iterate(config, run, FakeRuntime([{"success_rate": 0.0}, {"success_rate": 1.0}]), Interrupt())
    smooth = [row["success_rate_smooth"] for row in run.metrics()]
    assert smooth[0] == 0.0
    assert 0.0 < smooth[1] < 1.0


def test_interrupt_ends_after_the_iteration_with_a_checkpoint(tmp_path):
    config, run = make_run(tmp_path, "ppo.iterations=9", "checkpoint_every=9")
    with (
        Interrupt.watching() as interrupt,
        InterruptingProgress("rl", 9, stream=open(os.devnull, "w")) as progress,
    ):
        result = iterate(config, run, FakeRuntime(), interrupt, progress=progress)
    assert result["interrupted"]
    assert run.steps() == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_interrupt_is_immediate(number):
    before = signal.getsignal(number)
    with Interrupt.watching() as interrupt:
        os.kill(os.getpid(), number)
        assert interrupt.pressed
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_no_iteration_begins_after_the_budget(tmp_path):
    config, run = make_run(tmp_path)
    runtime = FakeRuntime()
    assert iterate(config, run, runtime, Interrupt(), until=0.0)["steps"] == 0
    assert runtime.events == ["save"]


def test_divergence_is_not_saved_over_a_good_checkpoint(tmp_path):
    config, run = make_run(tmp_path, "ppo.iterations=3")
    runtime = FakeRuntime([{}, {"policy_loss": float("nan")}])
    with pytest.raises(RuntimeError, match=r"iteration 2 diverged: policy_loss.*step_1"):
        iterate(config, run, runtime, Interrupt())
    assert run.steps() == [1]


def test_runtime_is_closed_when_the_loop_fails(tmp_path, monkeypatch):
    runtime = FakeRuntime([{"policy_loss": float("inf")}])

    @contextlib.contextmanager
    def open_fake(config, checkpoint):
        try:
            yield runtime
        finally:
            runtime.close()

    monkeypatch.setattr(controller, "open_runtime", open_fake)
    monkeypatch.setattr(controller.Proof, "judge", lambda self, name: 0.0)
    with pytest.raises(RuntimeError):
        train(debug_config(tmp_path))
    assert runtime.events[-1] == "close"


TIMINGS = ("seconds", "share", "per_second", "memory_bytes")


def numbers(run):
    """Every logged metric that is no timing and no memory."""
    return [
        {name: value for name, value in row.items() if not name.endswith(TIMINGS)}
        for row in run.metrics()
    ]


def test_debug_config_trains_and_its_checkpoint_is_whole(tmp_path):
    torch.set_num_threads(1)
    result = train(debug_config(tmp_path))
    run = RunFolder(tmp_path / "debug")
    assert result["steps"] == 2
    rows = run.metrics()
    assert [row["decisions"] for row in rows] == [16, 16]
    assert rows[1]["ratio_start"] < 1e-3
    assert run.checkpoint_path() is not None


def test_resumed_run_repeats_an_uninterrupted_one(tmp_path):
    torch.set_num_threads(1)
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    train(debug_config(whole, "ppo.iterations=3"))
    with open(os.devnull, "w") as stream:
        stopped = train(
            debug_config(halted, "ppo.iterations=3"),
            progress=InterruptingProgress("rl", 3, stream=stream),
        )
    assert stopped["interrupted"]
    assert stopped["steps"] == 1
    train(debug_config(halted, "ppo.iterations=3", "resume=auto"))
    expected = numbers(RunFolder(whole / "debug"))
    assert numbers(RunFolder(halted / "debug")) == expected


def test_a_run_is_not_overwritten(tmp_path):
    config, run = make_run(tmp_path)
    run.log(1, success_rate=0.0)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config)


def test_a_missing_checkpoint_leaves_nothing_behind(tmp_path):
    config = debug_config(tmp_path, f"model.checkpoint={tmp_path}/nowhere")
    with pytest.raises(CheckpointError, match="nowhere"):
        train(config)
    assert not (tmp_path / "debug").exists()


def test_contract_is_held_against_the_environments(tmp_path):
    first = train(debug_config(tmp_path, "ppo.iterations=1"))
    overrides = (f"model.checkpoint={first['checkpoint']}", "env.image_size=32", "name=other")
    with pytest.raises(CheckpointError, match=r"(?s)64x64.*Use env.image_size=64"):
        train(debug_config(tmp_path, *overrides))


def test_a_mistake_in_a_run_to_continue_leaves_it_as_it_was(tmp_path):
    mistake = (f"model.checkpoint={tmp_path}/nowhere", "resume=auto")
    with pytest.raises(CheckpointError, match="nowhere"):
        train(debug_config(tmp_path, *mistake))
    assert not (tmp_path / "debug").exists()
    (tmp_path / "debug").mkdir()
    (tmp_path / "debug" / "config.yaml").write_text("before")
    with pytest.raises(CheckpointError, match="nowhere"):
        train(debug_config(tmp_path, *mistake))
    assert (tmp_path / "debug" / "config.yaml").read_text() == "before"


def test_a_run_without_a_checkpoint_begins_again_without_its_old_metrics(tmp_path):
    _, run = make_run(tmp_path, "ppo.iterations=1")
    run.log(1, success_rate=0.0)
    run.log(2, success_rate=0.0)
    train(debug_config(tmp_path, "ppo.iterations=1", "resume=auto"))
    assert [row["step"] for row in run.metrics()] == [1]


def test_the_demo_continues_no_run(tmp_path, capsys):
    assert cli.run(["demo", "name=halted", "resume=auto", f"output={tmp_path}"]) == 2
    message = capsys.readouterr().err
    assert "vlarl rl configs/rl/demo.yaml name=halted resume=auto" in message
    assert not list(tmp_path.iterdir())


def test_a_termination_request_leaves_a_checkpoint_and_exit_code_1(tmp_path, monkeypatch, capsys):
    iteration = InprocessRuntime.iterate

    def terminated(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return iteration(self)

    monkeypatch.setattr(InprocessRuntime, "iterate", terminated)
    words = ["rl", str(CONFIG), f"output={tmp_path}", "ppo.iterations=3", "--json"]
    assert cli.run(words) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["interrupted"]
    assert RunFolder(tmp_path / "debug").steps() == [1]
    assert f"left {result['checkpoint']}, which name=debug resume=auto continues" in captured.err
