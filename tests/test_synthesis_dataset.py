"""Shards and folders: round trips, crashes, resuming, the same data whatever the workers."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from actors import cli
from actors.synthesis import pool
from actors.synthesis.pool import SynthesisFailed, make_shards
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError
from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.dataset import (
    MANIFEST_FILE,
    SHARD_SIZE,
    Job,
    Recipe,
    SynthesisDataset,
    append,
    open_folder,
    read_manifest,
)
from vlarl.synthesis.generator import Infeasible, make_shard
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.shard import read_shard

ROOT = Path(__file__).resolve().parents[1]
RECIPE = Recipe(seed=3, robots=("ur5e", "xarm7"), templates=("push", "swap"), trajectories=22)


def filled(folder, recipe=RECIPE, workers=1, left=None):
    done = open_folder(folder, recipe)
    jobs = [job for job in recipe.jobs() if job.name not in done][:left]
    return list(make_shards(folder, recipe.seed, jobs, workers))


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthesis") / "data"
    filled(path)
    return path


def test_a_shard_is_read_as_it_was_written(tmp_path):
    shard = make_shard(load_arm("tm12"), "pull", 1, 0, 5)
    size = shard.write(tmp_path / "a.safetensors")
    again = read_shard(tmp_path / "a.safetensors")
    assert size == (tmp_path / "a.safetensors").stat().st_size
    assert (again.robot, again.template, len(again)) == ("tm12", "pull", 5)
    assert set(again.arrays) == set(shard.arrays)
    for name, values in shard.arrays.items():
        assert again.arrays[name].dtype == values.dtype
        assert np.array_equal(again.arrays[name], values)
    assert [again.instruction(row) for row in range(5)] == [shard.instruction(r) for r in range(5)]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.safetensors"]


def test_another_reader_of_safetensors_agrees(folder):
    from safetensors.numpy import load_file

    path = folder / "ur5e/push/00000.safetensors"
    ours, theirs = read_shard(path).arrays, load_file(path)
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_access_by_index(folder):
    dataset = SynthesisDataset(folder)
    assert len(dataset) == RECIPE.trajectories == len(list(dataset))
    assert dataset.robots == ["ur5e", "xarm7"]
    steps = 0
    for index, trajectory in enumerate(dataset):
        name, row = dataset.name(index).split(":")
        again = read_shard(folder / f"{name}.safetensors").trajectory(int(row))
        assert np.array_equal(trajectory.joint_position, again.joint_position)
        assert trajectory.instruction == again.instruction
        assert name.startswith(f"{trajectory.robot}/{trajectory.template}/")
        joints = load_arm(trajectory.robot).joints
        assert trajectory.joint_velocity.shape == (len(trajectory), joints)
        assert trajectory.tool_pose.shape == (len(trajectory), 7)
        assert trajectory.segment_ends[-1] == len(trajectory) - 1
        steps += len(trajectory)
    assert dataset.hours == pytest.approx(steps / RATE / 3600)
    assert [dataset[i].robot for i in dataset.indices("xarm7")] == ["xarm7"] * 10
    with pytest.raises(IndexError, match="there are 22"):
        dataset[22]


def test_shares_are_even_and_shards_are_not_larger_than_allowed():
    jobs = Recipe(0, ("a", "b"), ("c", "d"), 4 * SHARD_SIZE + 2).jobs()
    assert sum(job.count for job in jobs) == 4 * SHARD_SIZE + 2
    assert max(job.count for job in jobs) == SHARD_SIZE
    assert [(job.robot, job.template, job.count) for job in jobs if job.index == 1] == [
        ("a", "c", 1), ("a", "d", 1)
    ]  # fmt: skip
    assert len({job.name for job in jobs}) == len(jobs)


def test_the_number_of_workers_changes_nothing(folder, tmp_path):
    filled(tmp_path / "two", workers=2)
    assert digests(tmp_path / "two") == digests(folder)


def test_seeds_and_shards_differ():
    arm = load_arm("ur5e")
    texts = [
        tuple(shard.instruction(row) for row in range(4))
        for shard in (
            make_shard(arm, "push", 0, 0, 4),
            make_shard(arm, "push", 0, 1, 4),
            make_shard(arm, "push", 1, 0, 4),
            make_shard(arm, "pull", 0, 0, 4),
        )
    ]
    assert len(set(texts)) == 4


def test_what_was_stopped_is_continued(folder, tmp_path):
    filled(tmp_path / "part", left=2)
    assert len(read_manifest(tmp_path / "part")) == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    made = filled(tmp_path / "part")
    assert len(made) == 2
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert digests(tmp_path / "part") == digests(folder)


def test_a_line_or_a_file_cut_off_by_a_crash_is_made_again(folder, tmp_path):
    path = tmp_path / "data"
    filled(path)
    manifest = path / MANIFEST_FILE
    manifest.write_text(manifest.read_text()[:-20])
    torn = path / "ur5e/push/00000.safetensors"
    torn.write_bytes(torn.read_bytes()[:-100])
    assert len(SynthesisDataset(path).entries) == 2
    with pytest.raises(UserError, match="bytes"):
        read_shard(torn)
    assert len(filled(path)) == 2
    assert digests(path) == digests(folder)
    assert all(json.loads(line) for line in manifest.read_text().splitlines())
    assert len(SynthesisDataset(path)) == RECIPE.trajectories


@pytest.mark.slow
def test_a_killed_worker_loses_only_its_unfinished_shard(tmp_path):
    """The real command in a process of its own; one of its workers is killed twice."""
    words = ["synth", "t2a", f"out={tmp_path / 'd'}", "robots=ur5e,tm12", "trajectories=96"]
    command = subprocess.Popen(
        [sys.executable, "-m", "actors.cli", *words, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    killed = []
    while len(killed) < 2 and command.poll() is None:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        done = len(list((tmp_path / "d").rglob("*.safetensors")))
        if done > 3 * len(killed) and children:
            os.kill(int(children[0]), signal.SIGKILL)
            killed.append(done)
        time.sleep(0.05)
    output, _ = command.communicate(timeout=120)
    assert command.returncode == 0
    assert len(killed) == 2
    assert json.loads(output)["trajectories"] == len(SynthesisDataset(tmp_path / "d")) == 96
    undisturbed = Recipe(0, ("tm12", "ur5e"), ("push",), 16)
    expected = make_shard(load_arm("ur5e"), "push", 0, 0, 8)
    kept = read_shard(tmp_path / "d" / undisturbed.jobs()[1].name)
    assert all(np.array_equal(kept.arrays[name], expected.arrays[name]) for name in kept.arrays)


def test_a_shard_that_kills_its_workers_ends_the_run(tmp_path, monkeypatch):
    deaths = []

    class Dying(pool._Worker):
        def give(self, job):
            super().give(job)
            deaths.append(job.name)
            os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(pool, "_Worker", Dying)
    job = Job("ur5e", "push", 0, 2)
    with pytest.raises(SynthesisFailed, match=r"push/00000.*3 workers died.*-9"):
        list(make_shards(tmp_path, 0, [job], 1))
    assert deaths == [job.name] * 3


def test_stopping_early_leaves_no_process(tmp_path):
    open_folder(tmp_path, RECIPE)
    shards = make_shards(tmp_path, 3, RECIPE.jobs(), 2)
    next(shards)
    children = set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
    shards.close()
    left = set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
    assert len(children - left) == 2
    assert len(read_manifest(tmp_path)) >= 1


def test_an_arm_that_reaches_nothing_is_named(monkeypatch):
    from dataclasses import replace

    arm = load_arm("ur5e")
    short = replace(arm, reach_radius=(2.0, 2.5))
    with pytest.raises(Infeasible, match="ur5e, pull: 0 of"):
        make_shard(short, "pull", 0, 0, 4)


def test_the_manifest_names_what_is_whole(folder, tmp_path):
    entries = read_manifest(folder)
    assert set(entries) == {job.name for job in RECIPE.jobs()}
    for name, entry in entries.items():
        shard = read_shard(folder / name)
        assert (entry.trajectories, entry.steps) == (len(shard), shard.steps)
    append(tmp_path, next(iter(entries.values())))
    assert read_manifest(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["t2a"], "needs out=DIR"),
        (["t2b", "out=x"], "no such subcommand. Did you mean t2a?"),
        (["t2a", "x", "out=y"], "one argument too many"),
        (["t2a", "out=x", "robots=ur5"], "robot 'ur5' is unknown. Did you mean ur5e?"),
        (["t2a", "out=x", "templates=fold"], "template 'fold' is unknown"),
        (["t2a", "out=x", "trajectories=0"], "at least 1"),
        (["t2a", "out=x", "trajectories=-5"], "at least 1"),
        (["t2a", "out=x", "workers=0"], "at least 1"),
        (["t2a", "out=x", "seed=-1"], "at least 0"),
        (["t2a", "out=x", "samples=3"], "synth t2a: samples: no such setting"),
        (["audit"], "needs DIR"),
        (["audit", "nowhere"], "dataset.json is missing"),
        (["audit", "DATA", "samples=0"], "at least 1"),
        (["sheet", "DATA", "out=x.jpg"], "name it FILE.png"),
        (["sheet", "DATA", "out=x.png", "robots=tm12"], "robot 'tm12' is unknown"),
        (["export", "DATA"], "needs out=DIR"),
        (["export", "DATA", "out=DATA"], "exists already"),
        (["t2a", "out=DATA", "seed=3", "trajectories=22"], "holds another dataset: robots"),
        (["t2a", "out=DATA/.."], "is no such dataset"),
    ],
)
def test_mistakes_are_one_message(words, message, folder, capsys):
    assert cli.run(["synth", *(word.replace("DATA", str(folder)) for word in words)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_the_command_reports_and_finds_nothing_left_to_do(folder, capsys):
    words = ["robots=xarm7,ur5e", "templates=swap,push", "trajectories=22", "seed=3", "--json"]
    assert cli.run(["synth", "t2a", f"out={folder}", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["trajectories"], result["made"]) == (22, 0)
    assert result["robots"]["ur5e"]["push"]["trajectories"] == 6
    hours = [cell["hours"] for row in result["robots"].values() for cell in row.values()]
    assert sum(hours) == pytest.approx(result["hours"])


def test_export_is_a_lerobot_dataset_of_positions(folder, tmp_path, capsys):
    assert cli.run(["synth", "export", str(folder), f"out={tmp_path / 'out'}"]) == 0
    dataset = SynthesisDataset(folder)
    reader = LeRobotReader(tmp_path / "out" / "ur5e")
    indices = dataset.indices("ur5e")
    assert len(reader) == len(indices)
    assert reader.info["fps"] == 50
    for place, index in enumerate(indices):
        episode, trajectory = reader.episode(place), dataset[index]
        assert episode.instruction == trajectory.instruction
        assert np.array_equal(episode.state[:, :6], trajectory.joint_position[:-1])
        assert np.array_equal(episode.action[:, :6], trajectory.joint_position[1:])
        assert np.array_equal(episode.action[:, 6], trajectory.gripper[1:])


def test_the_sheet_is_a_picture(folder, tmp_path, capsys):
    from PIL import Image

    out = tmp_path / "sheet.png"
    assert cli.run(["synth", "sheet", str(folder), f"out={out}", "count=5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 5
    image = np.asarray(Image.open(out).convert("RGB"))
    assert min(image.shape[:2]) > 100
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
