"""A disk that is full while a run saves: the kernel itself refuses, by a limit on files."""

import contextlib
import dataclasses
import resource
from pathlib import Path

import pytest
import torch
from t2a_data import synthesize

from actors.controller import Interrupt, iterate, train
from actors.runtime import InprocessRuntime
from actors.supervise import supervise
from actors.text_to_action import text_to_action
from vlarl.config.load import load_config
from vlarl.errors import CheckpointError, SaveError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.runs import RunFolder

CONFIG = Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml"
ROOM = 20_000
"""Bytes of a file: more than the metrics need, less than a model or its optimizer."""


@contextlib.contextmanager
def full_disk(room=ROOM):
    """No file of this process grows beyond `room`: writing more is an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full_at(monkeypatch, *calls, owner=InprocessRuntime, method="save"):
    """The disk is full in these calls of what writes a checkpoint, the first being 1."""
    save, count = getattr(owner, method), iter(range(1, 100))

    def saving(*arguments, **named):
        with full_disk() if next(count) in calls else contextlib.nullcontext():
            save(*arguments, **named)

    monkeypatch.setattr(owner, method, saving)


def content(run):
    return sorted(entry.name for entry in (run.path / "checkpoints").iterdir())


def test_a_failed_save_is_counted_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    torch.set_num_threads(1)
    full_at(monkeypatch, 2)
    result = train(load_config(CONFIG, [f"output={tmp_path}", "ppo.iterations=3"]))
    run = RunFolder(tmp_path / "debug")
    assert result["steps"] == 3
    assert [row["checkpoints_failed"] for row in run.metrics()] == [0, 0, 1]
    assert "checkpoint of step 2 could not be written" in caplog.text
    assert content(run) == ["last", "step_1", "step_3"]
    assert run.checkpoint_path() == run.path / "checkpoints" / "step_3"


def test_a_failed_last_save_is_an_error_that_names_the_last_good_one(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    full_at(monkeypatch, 2, 3)
    config = load_config(CONFIG, [f"output={tmp_path}", "ppo.iterations=2"])
    with pytest.raises(SaveError, match=r"(?s)step 2 could not be written.*step_1.*resume=auto"):
        train(config)
    run = RunFolder(tmp_path / "debug")
    assert content(run) == ["last", "step_1"]
    assert (run.path / "checkpoints" / "last").readlink() == Path("step_1")
    # With room again, the run goes on from there.
    again = train(load_config(CONFIG, [f"output={tmp_path}", "ppo.iterations=2", "resume=auto"]))
    assert again["steps"] == 2
    assert [row["step"] for row in run.metrics()] == [1, 2]


def stage_config(stage, tmp_path):
    """A debug config, saved after each of its four steps."""
    words = [f"output={tmp_path}", "name=run", "supervised.save_every=1"]
    if stage == "t2a":
        words += [f"supervised.data.t2a.synthetic={synthesize(tmp_path / 'synthetic')}"]
    elif stage == "cpt":
        words += ["model.init.weights=''"]
    return load_config(CONFIG.parents[1] / stage / "debug.yaml", words)


@pytest.mark.parametrize("stage", ["t2a", "cpt", "sft"])
def test_a_supervised_stage_goes_on_after_a_failed_save(tmp_path, monkeypatch, caplog, stage):
    torch.set_num_threads(1)
    config = stage_config(stage, tmp_path)
    full_at(monkeypatch, 2, owner=QwenVLA, method="save_pretrained")
    result = (text_to_action if stage == "t2a" else supervise)(config)
    run = RunFolder(tmp_path / "run")
    assert result["steps"] == 4
    failed = [row.get("checkpoints_failed") for row in run.metrics()]
    assert failed == [None, 0, 1, 1]
    assert result["checkpoints_failed"] == 1
    assert "checkpoint of step 2 could not be written" in caplog.text
    assert content(run) == ["last", "step_3", "step_4"]
    assert run.checkpoint_path() == run.path / "checkpoints" / "step_4"


def test_a_supervised_stage_that_cannot_save_at_last_says_where_to_go_on(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    config = stage_config("sft", tmp_path)
    # The last one is tried twice.
    with monkeypatch.context() as patched:
        full_at(patched, 3, 4, 5, owner=QwenVLA, method="save_pretrained")
        with pytest.raises(
            SaveError, match=r"(?s)step 4 could not be written.*step_2.*resume=auto"
        ):
            supervise(config)
    run = RunFolder(tmp_path / "run")
    assert content(run) == ["last", "step_1", "step_2"]
    result = supervise(dataclasses.replace(config, resume="auto"))
    assert result["steps"] == 4
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]
    assert run.steps()[-1] == 4


class Saving:
    """A runtime that writes more than there is room for."""

    def iterate(self):
        return {"waiting_seconds": 0.0}

    def save(self, folder):
        (folder / "weights").write_bytes(bytes(2 * ROOM))


def test_every_failed_save_is_tried_again_at_the_next_turn(tmp_path):
    config = load_config(CONFIG, [f"output={tmp_path}", "ppo.iterations=4", "checkpoint_every=2"])
    run = RunFolder.create(config)
    with full_disk(), pytest.raises(SaveError):
        iterate(config, run, Saving(), Interrupt())
    assert [row["checkpoints_failed"] for row in run.metrics()] == [0, 0, 1, 1]
    assert content(run) == []
    assert run.checkpoint_path() is None


def test_metrics_wait_for_room_and_lose_nothing(tmp_path):
    run = RunFolder(tmp_path)
    run.log(1, loss=1.0)
    size = run.metrics_file.stat().st_size
    with full_disk(size + 10):
        run.log(2, loss=2.0)
        assert run.metrics_file.stat().st_size == size
        assert [row["step"] for row in run.metrics()] == [1]
    run.log(3, loss=3.0)
    assert [row["loss"] for row in run.metrics()] == [1.0, 2.0, 3.0]


def test_a_full_disk_costs_prometheus_a_row_and_the_run_nothing(tmp_path, caplog):
    words = [f"output={tmp_path}", "logging.prometheus=true"]
    run = RunFolder.create(load_config(CONFIG, words))
    run.log(1, loss=1.0)
    shown = (run.path / "metrics.prom").read_text()
    many = {f"loss/{number}": 0.5 for number in range(1000)}
    with full_disk():
        run.log(2, **many)
    assert (run.path / "metrics.prom").read_text() == shown
    assert sorted(run.path.glob("metrics.prom*")) == [run.path / "metrics.prom"]
    assert "PrometheusSink: [Errno 27]" in caplog.text
    run.log(3, loss=3.0)
    run.close()
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    assert 'vlarl_loss{run="debug"} 3' in (run.path / "metrics.prom").read_text()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_costs_tensorboard_rows_and_the_run_nothing(tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [f"output={tmp_path}", "logging.tensorboard=true"]
    run = RunFolder.create(load_config(CONFIG, words))
    run.log(1, loss=1.0)
    with full_disk(300):
        run.log(2, **{f"loss/{number}": 0.5 for number in range(100)})
    assert "TensorBoardSink: [Errno 27]" in caplog.text
    run.log(3, loss=3.0)
    run.close()
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    shown = EventAccumulator(str(run.path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in shown] == [(1, 1.0), (3, 3.0)]


def test_some_checkpoints_stay_for_good(tmp_path):
    run = RunFolder(tmp_path, keep_checkpoints=1, keep_checkpoints_every=20)
    for step in (10, 20, 30, 40, 50):
        with run.checkpoint(step) as folder:
            (folder / "weights").write_text("w")
    assert run.steps() == [20, 40, 50]


def test_what_a_killed_save_left_is_cleared(tmp_path):
    config = load_config(CONFIG, [f"output={tmp_path}"])
    checkpoints = tmp_path / "debug" / "checkpoints"
    for name in (".step_3.tmp", "..step_3.tmp.partial-17"):
        (checkpoints / name).mkdir(parents=True)
    run = RunFolder.create(config)
    assert content(run) == []


@pytest.mark.parametrize("kind", ["ray", "inprocess"])
def test_a_missing_checkpoint_is_found_before_anything_starts(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("actors.controller.open_runtime", None)
    words = [f"output={tmp_path}", "model.checkpoint=nowhere", "env.mode=spawn"]
    with pytest.raises(CheckpointError, match="nowhere"):
        train(load_config(CONFIG, [*words, f"runtime.kind={kind}"]))
    assert not list(tmp_path.iterdir())
