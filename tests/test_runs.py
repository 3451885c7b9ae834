"""The run folder: whole checkpoints or none, metrics that survive a crash, sinks by choice."""

import json
import math

import pytest

from vlarl.config.load import load_config
from vlarl.errors import CheckpointError, ConfigError
from vlarl.runs import RunFolder, verify_manifest


def config_in(folder, *overrides):
    return load_config(None, [f"output={folder}", "name=run", *overrides])


def save(run, step, text="weights"):
    with run.checkpoint(step) as folder:
        (folder / "sub").mkdir()
        (folder / "model.bin").write_text(text)
        (folder / "sub" / "state.bin").write_text("state")


def test_create_writes_the_resolved_config(tmp_path):
    config = config_in(tmp_path, "seed=5")
    run = RunFolder.create(config)
    assert load_config(run.path / "config.yaml") == config


def test_create_without_a_name_dates_the_folder(tmp_path):
    run = RunFolder.create(load_config(None, [f"output={tmp_path}", "env.suite='gym:A/b-v0'"]))
    assert run.path.name.startswith("rl-gym-A-b-v0-")


def test_create_refuses_a_folder_in_use_unless_it_resumes(tmp_path):
    RunFolder.create(config_in(tmp_path)).log(0, loss=1.0)
    with pytest.raises(ConfigError, match="resume=auto"):
        RunFolder.create(config_in(tmp_path))
    resumed = RunFolder.create(config_in(tmp_path, "resume=auto"))
    assert [row["step"] for row in resumed.metrics()] == [0]


def test_metrics_append_and_stay_json(tmp_path):
    run = RunFolder(tmp_path)
    run.log(1, loss=0.5, kl=math.nan)
    RunFolder(tmp_path).log(2, loss=0.25)
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [row["loss"] for row in rows] == [0.5, 0.25]
    assert rows[0]["kl"] is None
    with run.metrics_file.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in run.metrics()] == [1, 2]
    run.forget_after(1)
    assert [row["step"] for row in run.metrics()] == [1]


def test_damaged_line_in_the_middle_is_an_error(tmp_path):
    run = RunFolder(tmp_path)
    run.metrics_file.write_text('{"st\n{"step": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        run.metrics()


def test_checkpoints_keep_the_newest_and_point_to_the_last(tmp_path):
    run = RunFolder(tmp_path, keep_checkpoints=2)
    assert run.checkpoint_path() is None
    for step in (5, 10, 15):
        save(run, step, f"weights {step}")
    assert run.steps() == [10, 15]
    assert (tmp_path / "checkpoints" / "last" / "model.bin").read_text() == "weights 15"
    assert run.checkpoint_path() == tmp_path / "checkpoints" / "step_15"
    assert verify_manifest(tmp_path / "checkpoints" / "last") == 15
    save(run, 15, "again")
    assert (run.checkpoint_path(15) / "model.bin").read_text() == "again"


def test_failed_checkpoint_leaves_nothing(tmp_path):
    run = RunFolder(tmp_path)
    save(run, 1)

    def fail_while_saving():
        with run.checkpoint(2) as folder:
            (folder / "model.bin").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_while_saving()
    assert run.steps() == [1]
    assert sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir()) == [
        "last",
        "step_1",
    ]


def test_create_clears_what_a_killed_process_left(tmp_path):
    leftover = tmp_path / "run" / "checkpoints" / ".step_3.tmp"
    leftover.mkdir(parents=True)
    RunFolder.create(config_in(tmp_path))
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.bin").unlink(), "model.bin is missing"),
        (lambda folder: (folder / "model.bin").write_text("we"), "2 bytes"),
        (lambda folder: (folder / "sub" / "state.bin").write_text("STATE"), "was changed"),
        (lambda folder: (folder / "manifest.json").unlink(), "holds no manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not JSON"),
    ],
)
def test_damaged_checkpoint_is_refused(tmp_path, damage, words):
    run = RunFolder(tmp_path)
    save(run, 4)
    damage(tmp_path / "checkpoints" / "step_4")
    with pytest.raises(CheckpointError, match=words):
        run.checkpoint_path()
    with pytest.raises(CheckpointError, match="does not exist"):
        run.checkpoint_path(3)


def test_tensorboard_by_choice(tmp_path):
    pytest.importorskip("tensorboard")
    run = RunFolder.create(config_in(tmp_path, "logging.tensorboard=true"))
    run.log(1, loss=0.5)
    run.close()
    assert list((run.path / "tensorboard").glob("events*"))


@pytest.fixture
def wandb_service():
    """Ends the process that wandb leaves until its parent ends."""
    wandb = pytest.importorskip("wandb")
    yield
    wandb.teardown()


@pytest.mark.slow
@pytest.mark.usefixtures("wandb_service")
def test_wandb_offline_by_choice(tmp_path):
    run = RunFolder.create(config_in(tmp_path, "logging.wandb=true"))
    run.log(1, loss=0.5)
    run.close()
    assert list((run.path / "wandb").glob("offline-run-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("wandb_service")
def test_a_resumed_wandb_run_keeps_its_id(tmp_path):
    for overrides in ([], ["resume=auto"]):
        run = RunFolder.create(config_in(tmp_path, "logging.wandb=true", *overrides))
        run.log(1, loss=0.5)
        run.close()
    parts = list((run.path / "wandb").glob("offline-run-*"))
    identity = (run.path / "wandb_id").read_text()
    assert len(parts) == 2
    # Parts that begin within one second are numbered behind the id.
    assert all(f"-{identity}" in part.name for part in parts)


def test_a_resumed_tensorboard_shows_each_step_once(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, loss, overrides in ((1, 1.0, []), (3, 2.0, ["resume=auto"])):
        run = RunFolder.create(config_in(tmp_path, "logging.tensorboard=true", *overrides))
        for step in range(first, 5):
            run.log(step, loss=loss)
        run.close()
    events = accumulator.EventAccumulator(str(run.path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [
        (1, 1.0),
        (2, 1.0),
        (3, 2.0),
        (4, 2.0),
    ]
