"""Supervised training on a mixture of every kind of source, made here, from end to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mixture_sources import NAMES, SIZE, write_sources

from actors import cli
from actors.mixture_data import MixtureData, open_mixture
from actors.supervise import supervise
from envservers.registry import make_suite
from learners.supervised import SupervisedTrainer
from vlarl.config.embodiments import load_embodiment
from vlarl.config.load import load_config
from vlarl.data.episode import Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.errors import UserError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.runs import RunFolder
from vlarl.types import CameraSpec

CONFIG = "configs/sft/mixture_debug.yaml"
KEY = "supervised.data.mixture"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[str]:
    """Overrides that name data of all four kinds."""
    return write_sources(tmp_path_factory.mktemp("sources"))


def train(output: Path, sources: list[str], *overrides: str) -> dict:
    return supervise(load_config(CONFIG, [*sources, f"output={output}", *overrides]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sources) -> dict:
    """The debug config's run, never stopped."""
    return train(tmp_path_factory.mktemp("trained"), sources, "name=run")


def opened(sources: list[str], *overrides: str) -> MixtureData:
    mixture = open_mixture(load_config(CONFIG, [*sources, *overrides]), None)
    assert mixture is not None
    return mixture


def folder_of(sources: list[str]) -> Path:
    return Path(sources[0].partition("=")[2]).parent


def test_the_debug_config_trains_one_model_on_all_of_them(sources, trained):
    assert trained["steps"] == 2
    rows = RunFolder(trained["run"]).metrics()
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["action_loss"] > 0
        assert row["conversation_loss"] > 0
        assert 0 < row["padding_share"] < 0.3
    model = QwenVLA.from_pretrained(trained["checkpoint"])
    assert list(model.codecs) == ["tabletop_arm", "vln_agent", "human_hands"]
    seen = [[c.name for c in model.contract.cameras_of(place)] for place in range(3)]
    assert seen == [["ego", "cam_right_wrist"], ["ego"], ["ego"]]
    assert model.contract.horizons == (8, 8, 16)
    for name, robot in (("tabletop", "tabletop_arm"), ("navigation", "vln_agent")):
        actions = LeRobotReader(folder_of(sources) / name).actions()
        expected = np.quantile(actions.astype(np.float64), 0.01, axis=0).astype(np.float32)
        np.testing.assert_array_equal(model.codecs[robot].stats.low, expected)
    assert (Path(trained["checkpoint"]) / "hands.json").is_file()


@pytest.mark.parametrize(("suite", "cameras"), [("tabletop", 2), ("navigation", 1)])
def test_one_checkpoint_acts_in_suites_of_different_cameras(capsys, trained, suite, cameras):
    words = ["episodes=1", "env.image_size=32", "env.max_steps=2", "env.mode=inprocess"]
    words += [f"suite={suite}", "runtime.kind=inprocess", "runtime.threads=1"]
    assert cli.run(["eval", trained["checkpoint"], *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 1
    spec = make_suite(suite, 1, image_size=32).spec
    assert len(spec.cameras) == cameras


def numbers(result: dict) -> list[dict]:
    """Every metric of every step but those of the clock and of saving."""
    rows = RunFolder(result["run"]).metrics()
    clock = ("seconds", "steps_per_second", "saving_seconds", "checkpoints_failed")
    return [{name: row[name] for name in row if name not in clock} for row in rows]


def test_a_stopped_run_in_micro_batches_is_the_one_that_never_stopped(
    tmp_path, sources, monkeypatch
):
    """Stopped by a signal between two checkpoints; with an average of the weights."""
    settings = (
        "supervised.micro_batch=3",
        "supervised.ema=0.5",
        "supervised.steps=3",
        "supervised.save_every=3",
    )
    whole = train(tmp_path, sources, "name=whole", *settings)
    step = SupervisedTrainer.train_step

    def stopped(self):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(SupervisedTrainer, "train_step", stopped)
    half = train(tmp_path, sources, "name=half", "resume=auto", *settings)
    assert (half["steps"], half["interrupted"]) == (2, True)
    monkeypatch.undo()
    half = train(tmp_path, sources, "name=half", "resume=auto", *settings)
    assert numbers(half) == numbers(whole)
    for found in ("checkpoint", "average"):
        one, two = (QwenVLA.from_pretrained(run[found]).state_dict() for run in (whole, half))
        assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_resumed_run_is_the_one_that_never_stopped(tmp_path, sources, trained):
    train(tmp_path, sources, "name=parts", "resume=auto")
    for leftover in ("checkpoints/step_2", "checkpoints/last"):
        path = tmp_path / "parts" / leftover
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    parts = train(tmp_path, sources, "name=parts", "resume=auto")
    assert parts["steps"] == trained["steps"] == 2
    one, two = (QwenVLA.from_pretrained(run["checkpoint"]).state_dict() for run in (trained, parts))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert numbers(parts) == numbers(trained)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_streams_its_data_is_the_run_that_does_not(tmp_path, sources, trained, workers):
    words = ["supervised.data.memory_gigabytes=1e-5", f"supervised.data.workers={workers}"]
    streamed = train(tmp_path, sources, "name=streamed", *words)
    one, two = (QwenVLA.from_pretrained(run["checkpoint"]) for run in (trained, streamed))
    values = two.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in one.state_dict().items())


def test_a_checkpoint_goes_on_with_fewer_sources(tmp_path, sources, trained):
    words = [f"model.checkpoint={trained['checkpoint']}", f"{KEY}.tabletop.weight=0"]
    some = train(tmp_path, sources, "name=some", *words)
    kept = QwenVLA.from_pretrained(some["checkpoint"])
    before = QwenVLA.from_pretrained(trained["checkpoint"])
    assert list(kept.codecs) == list(before.codecs)
    assert kept.codec.stats.to_dict() == before.codec.stats.to_dict()


def test_a_mixture_of_conversations_alone_needs_a_checkpoint(tmp_path, sources, trained):
    words = [f"{KEY}.{name}.weight=0" for name in NAMES[:3]]
    words.append("supervised.optimizer.learning_rates={language: 1e-3}")
    with pytest.raises(UserError, match="conversations alone: name a checkpoint"):
        train(tmp_path, sources, "name=x", *words)
    words.append(f"model.checkpoint={trained['checkpoint']}")
    result = train(tmp_path, sources, "name=x", *words)
    assert result["conversation_loss"] > 0
    assert "action_loss" not in result


@pytest.mark.parametrize(
    ("setting", "words"),
    [("model.state=dit", "shown the robot's state"), ("model.history=2", "shown a history")],
)
def test_a_model_that_is_shown_more_than_a_mixture_has_is_refused(
    tmp_path, sources, setting, words
):
    few = [f"output={tmp_path}", "name=made", setting, "supervised.steps=2"]
    made = supervise(load_config("configs/sft/debug.yaml", few))
    alone = [f"{KEY}.{name}.weight=0" for name in NAMES[1:]]
    checkpoint = f"model.checkpoint={made['checkpoint']}"
    with pytest.raises(UserError, match=words):
        train(tmp_path, sources, "name=refused", checkpoint, *alone)
    assert not (tmp_path / "refused").exists()


def write_widow(path: Path) -> None:
    """One short episode of another robot."""
    robot = load_embodiment("widowx_eef")
    names = [channel.name for channel in robot.channels]
    cameras = [CameraSpec("ego", SIZE, SIZE)]
    with LeRobotWriter(path, robot.control_hz, cameras, names, 1, robot.name) as writer:
        images = {"ego": np.zeros((18, SIZE, SIZE, 3), np.uint8)}
        action = np.random.default_rng(0).uniform(-0.01, 0.01, (18, len(names)))
        writer.add(Episode(images, np.zeros((18, 1), np.float32), np.float32(action), "go"))


def test_a_folder_of_datasets_is_one_source_balanced_by_embodiment(tmp_path, sources):
    """The one short episode of a robot counts as much as all of the arm's."""
    folder = tmp_path / "robots"
    for number in (1, 2):
        shutil.copytree(folder_of(sources) / "tabletop", folder / f"arm_{number}")
    write_widow(folder / "widow")
    (folder / "notes").mkdir()
    words = [f"{KEY}.{name}.weight=0" for name in NAMES[1:]]
    words += [f"{KEY}.tabletop.path={folder}", "supervised.batch_size=20"]
    mixture = opened(sources, *words)
    found = [each.reader.path.name for each in mixture.recordings]
    assert found == ["arm_1", "arm_2", "widow"]
    contract = mixture.contract(None)
    assert [robot.name for robot in contract.embodiments] == ["tabletop_arm", "widowx_eef"]
    actions = LeRobotReader(folder / "arm_1").actions().astype(np.float64)
    expected = np.quantile(np.concatenate([actions, actions]), 0.01, axis=0).astype(np.float32)
    np.testing.assert_array_equal(mixture.codecs(contract)[0].stats.low, expected)
    batches = mixture.batches(load_config(CONFIG, [*sources, *words]), contract)
    for step in range(3):
        arm, widow = batches.batch(step).chunks
        assert set(arm.observations.embodiment.tolist()) == {0}
        assert set(widow.observations.embodiment.tolist()) == {1}
        assert len(arm.actions) == len(widow.actions) == 10


def test_shares_of_batches_are_the_weights(sources):
    config = load_config(CONFIG, [*sources, "supervised.batch_size=96"])
    mixture = opened(sources)
    contract = mixture.contract(None)
    batches = mixture.batches(config, contract)
    counts = np.zeros(4)
    for step in range(5):
        batch = batches.batch(step)
        assert len(batch) == 96
        assert len(batch.chunks) == 2, "one with two cameras, one with one"
        for part in batch.chunks:
            counts[:3] += np.bincount(part.observations.embodiment, minlength=3)
        counts[3] += len(batch.conversations)
        wanted = 96 * (step + 1) * np.array([74.2, 7.5, 6.0, 8.5]) / 96.2
        assert np.abs(counts - wanted).max() < 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (f"{KEY}.navigation.kind=robot", "is of vln_agent, which is of kind navigation"),
        (f"{KEY}.tabletop.kind=navigation", "is of tabletop_arm, which is of kind robot"),
        (f"{KEY}.tabletop.embodiment=widowx_eef", "does not fit the model: actions"),
        (f"{KEY}.hands={{kind: robot, path: HANDS}}", "is of robot 'human': unknown embodiment"),
        (f"{KEY}.tabletop.path=CONVERSATIONS", "not a folder"),
        ("supervised.data.conversation_tokens=8", "are allowed"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_is_written(tmp_path, sources, override, words):
    folder = folder_of(sources)
    override = override.replace("HANDS", str(folder / "hands"))
    override = override.replace("CONVERSATIONS", str(folder / "conversations.jsonl"))
    with pytest.raises(UserError, match=words):
        train(tmp_path, sources, "name=refused", override)
    assert not list(tmp_path.iterdir())


def test_table_1_says_at_once_which_data_are_missing(tmp_path, capsys):
    code = cli.run(["cpt", "configs/mixtures/table1.yaml", f"output={tmp_path}/runs"])
    message = capsys.readouterr().err
    assert code == 2
    assert "8 of 8 sources are not there: 'Robot Manipulation Trajectories' (data/" in message
    assert f"'{KEY}.NAME.path=FOLDER'" in message
    assert not list(tmp_path.iterdir())


def test_names_from_the_paper_are_settings(tmp_path, capsys, sources):
    """Blanks and parentheses included; the others are left out."""
    folder = folder_of(sources)
    with_weight = load_config("configs/mixtures/table1.yaml").supervised.data.mixture
    wanted = "Synthetic Simulation Trajectories (ours)"
    words = [f"{KEY}.{name}.weight=0" for name in with_weight if name != wanted]
    words += [f"{KEY}.{wanted}.path={folder}/tabletop"]
    words += ["supervised.steps=1", "supervised.batch_size=2", "supervised.data.pad_short=true"]
    words += ["supervised.optimizer.warmup_steps=0", "runtime.kind=inprocess", "name=run"]
    words += ["runtime.threads=1", "supervised.flow.repeats=1"]
    words += [f"output={tmp_path}"]
    assert cli.run(["cpt", "configs/mixtures/table1.yaml", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
