"""The supervised stage as a whole, on its shipped debug config."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import actors.supervise
from actors import cli
from actors.controller import Interrupt
from actors.supervise import supervise
from learners.supervised import SupervisedTrainer
from vlarl.config.embodiments import load_embodiment
from vlarl.config.load import load_config
from vlarl.data.episode import Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.errors import ConfigError, UserError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.runs import RunFolder
from vlarl.types import CameraSpec

CONFIG = Path(__file__).parents[1] / "configs/sft/debug.yaml"


def train(output: Path, *overrides: str) -> dict:
    return supervise(load_config(CONFIG, [f"output={output}", *overrides]))


def test_stopped_and_resumed_run_ends_where_a_whole_one_does(tmp_path):
    whole = train(tmp_path, "name=whole")
    dataset = f"supervised.data.path={tmp_path / 'whole/demonstrations'}"
    common = ("name=parts", "resume=auto", dataset, "supervised.collect.episodes=400")
    first = train(tmp_path, *common)
    assert first["steps"] == whole["steps"] == 4
    run = tmp_path / "parts"
    for leftover in ("checkpoints/step_4", "checkpoints/last"):
        path = run / leftover
        path.unlink() if path.is_symlink() else path.rename(tmp_path / "moved")
    again = train(tmp_path, *common)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert again["action_loss"] == whole["action_loss"]
    one, other = (QwenVLA.from_pretrained(r["checkpoint"]).state_dict() for r in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    low = QwenVLA.from_pretrained(whole["checkpoint"]).codec.stats.low
    actions = LeRobotReader(tmp_path / "whole/demonstrations").actions()
    assert (low <= actions.max(0)).all()
    assert (low >= actions.min(0)).all()


def test_dataset_of_another_image_size_is_refused(tmp_path):
    train(tmp_path, "name=small")
    dataset = f"supervised.data.path={tmp_path / 'small/demonstrations'}"
    with pytest.raises(UserError, match="cameras"):
        train(tmp_path, "name=big", dataset, "env.image_size=64", "supervised.collect.episodes=400")


def test_a_run_that_streams_its_data_is_the_run_that_does_not(tmp_path):
    whole = train(tmp_path, "name=whole")
    dataset = f"supervised.data.path={tmp_path / 'whole/demonstrations'}"
    settings = (dataset, "supervised.collect.episodes=400", "supervised.data.memory_gigabytes=1e-5")
    streamed = train(tmp_path, "name=streamed", *settings)
    assert streamed["skipped_episodes"] == 0
    one, other = (QwenVLA.from_pretrained(r["checkpoint"]) for r in (whole, streamed))
    values = other.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in one.state_dict().items())
    assert one.codec.stats.to_dict() == other.codec.stats.to_dict()


@pytest.mark.parametrize(("memory", "workers"), [("8", 0), ("1e-5", 0), ("1e-5", 2)])
def test_a_corrupt_episode_is_skipped_until_there_are_too_many(tmp_path, capsys, memory, workers):
    train(tmp_path, "name=whole")
    path = tmp_path / "whole/demonstrations"
    file = path / "data/chunk-000/file-000.parquet"
    content = bytearray(file.read_bytes())
    second = content.index(b"\x89PNG", content.index(b"\x89PNG") + 1)
    content[second + 60 : second + 90] = bytes(30)
    file.write_bytes(content)
    common = ["supervised.collect.episodes=400", f"supervised.data.memory_gigabytes={memory}"]
    common += [f"supervised.data.path={path}", "supervised.batch_size=48"]
    common += [f"supervised.data.workers={workers}"]
    done = train(tmp_path, "name=skips", "supervised.data.skip_limit=0.3", *common)
    assert (done["steps"], done["skipped_episodes"]) == (4, 1)
    assert capsys.readouterr().err.count("episode 0 is skipped: ") == 1
    words = r"1 of 4 episodes are corrupt \(0\), more than .*skip_limit=0\.01 allows.*is damaged"
    with pytest.raises(UserError, match=words):
        train(tmp_path, "name=stops", *common)


def test_an_episode_shorter_than_a_chunk_is_refused_with_its_place(tmp_path):
    train(tmp_path, "name=whole")
    source = tmp_path / "whole/demonstrations"
    episode = LeRobotReader(source).episode(2)
    short = Episode(
        {name: images[:5] for name, images in episode.images.items()},
        episode.state[:5],
        episode.action[:5],
        episode.instruction,
    )
    reader = LeRobotReader(source)
    path = tmp_path / "short"
    with LeRobotWriter(path, reader.fps, reader.cameras, reader.action_names, 11, "x") as writer:
        for one in (reader.episode(0), short):
            writer.add(Episode(one.images, one.state, one.action, one.instruction))
    words = f"episode 1 has 5 frames.* the 8 steps of a chunk.*vlarl data clean {path} out=DIR"
    dataset = ["supervised.collect.episodes=400", f"supervised.data.path={path}"]
    with pytest.raises(UserError, match=words):
        train(tmp_path, "name=refused", *dataset)
    padded = train(tmp_path, "name=padded", *dataset, "supervised.data.pad_short=true")
    assert padded["steps"] > 0
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.checkpoint=nowhere", "nowhere"),
        ("model.backbone=nowhere", "nowhere"),
        ("model.preset=qwen_vla_4b", "tokenizer comes with the backbone"),
        ("model.checkpoint=tabletop-sft", "Use env.image_size=64"),
        ("env.suite=tabeltop", "Did you mean 'tabletop'"),
        ("env.suite=counting", "no scripted expert"),
        ("env.tasks=[typo]", "typo"),
        ("env.image_size=40", "Try env.image_size=64"),
        ("supervised.data.path=/nowhere", "/nowhere"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(tmp_path, capsys, override, words):
    own = ["supervised.collect.episodes=400"] if "data.path" in override else []
    assert cli.run(["sft", str(CONFIG), f"output={tmp_path}/runs", override, *own]) == 2
    message = capsys.readouterr().err
    assert message.startswith("vlarl: ")
    assert words in message
    assert "collecting" not in message
    assert not list(tmp_path.iterdir())


def write_conversations(folder, *answers):
    rows = []
    for number, answer in enumerate(answers):
        Image.new("RGB", (40 + 20 * number, 40)).save(folder / f"{number}.png")
        shown = [{"type": "image", "image": f"{number}.png"}, {"type": "text", "text": "What?"}]
        messages = [{"role": "user", "content": shown}, {"role": "assistant", "content": answer}]
        rows.append(json.dumps({"id": f"s{number}", "messages": messages}))
    path = folder / "set.jsonl"
    path.write_text("\n".join(rows))
    return path


def test_conversations_train_beside_actions_and_grounding(tmp_path):
    path = write_conversations(tmp_path, "a plate", "two spoons", "a towel")
    data = f"supervised.data.conversations={path}"
    result = train(tmp_path, "name=run", data, "supervised.conversation_batch_size=2")
    rows = RunFolder(tmp_path / "run").metrics()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for loss in ("action_loss", "grounding_loss", "conversation_loss"):
        assert all(row[loss] > 0 for row in rows)
    assert result["conversation_loss"] < rows[0]["conversation_loss"]


def test_conversations_resume_beside_actions_as_if_never_stopped(tmp_path):
    path = write_conversations(tmp_path, "a plate", "two spoons", "a towel")
    words = (f"supervised.data.conversations={path}", "supervised.conversation_batch_size=2")
    whole = train(tmp_path, "name=whole", *words)
    train(tmp_path, "name=parts", *words)
    for leftover in ("last", "step_4"):
        (tmp_path / "parts/checkpoints" / leftover).rename(tmp_path / leftover)
    again = train(tmp_path, "name=parts", "resume=auto", *words)
    one, other = (QwenVLA.from_pretrained(r["checkpoint"]).state_dict() for r in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [RunFolder(result["run"]).metrics() for result in (whole, again)]
    assert [row["step"] for row in rows[1]] == [1, 2, 3, 4]
    for name in ("action_loss", "grounding_loss", "conversation_loss", "grad_norm/total"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]], name


def test_a_broken_conversation_is_found_before_anything_is_written(tmp_path):
    path = write_conversations(tmp_path, "a plate", "two spoons")
    data = f"supervised.data.conversations={path}", "supervised.conversation_batch_size=2"
    with pytest.raises(UserError, match=r"line 1, sample 's0': .* are allowed"):
        train(tmp_path / "runs", *data, "supervised.data.conversation_tokens=8")
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"line 2, sample 's1': image .* is missing"):
        train(tmp_path / "runs", *data)
    assert not (tmp_path / "runs").exists()


def test_a_new_model_has_room_for_long_instructions(tmp_path):
    images = np.zeros((8, 32, 32, 3), np.uint8)
    sentence = "put the large red block on the small blue block, then " * 3 + "wait"
    cameras = [CameraSpec(name, 32, 32) for name in ("ego", "cam_right_wrist")]
    channels = [channel.name for channel in load_embodiment("tabletop_arm").channels]
    with LeRobotWriter(tmp_path / "long", 5.0, cameras, channels, 1, "tabletop_arm") as writer:
        action = np.random.default_rng(0).uniform(-0.04, 0.04, (8, 5)).astype(np.float32)
        shown = {camera.name: images for camera in cameras}
        writer.add(Episode(shown, np.zeros((8, 1), np.float32), action, sentence))
    data = [f"supervised.data.path={tmp_path / 'long'}", "supervised.collect.episodes=400"]
    result = train(tmp_path, "name=new", *data)
    assert result["steps"] == 4
    contract = QwenVLA.from_pretrained(result["checkpoint"]).contract
    assert contract.prompt_tokens > 72


def test_a_taken_name_is_refused_before_demonstrations_are_collected(tmp_path):
    RunFolder(tmp_path / "taken").log(1, action_loss=0.5)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(tmp_path, "name=taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("trainer", ["LocalizationTrainer", "BindingTrainer"])
def test_a_stop_while_learning_to_see_ends_cleanly(tmp_path, monkeypatch, capsys, trainer):
    learn = getattr(actors.supervise, trainer).train

    def stopped(self, progress, stop):
        os.kill(os.getpid(), signal.SIGINT)
        return learn(self, progress, stop)

    monkeypatch.setattr(getattr(actors.supervise, trainer), "train", stopped)
    prefix = "supervised.localization"
    steps = [f"{prefix}.{key}=2" for key in ("steps", "binding_steps", "binding_batch_size")]
    words = ["sft", str(CONFIG), f"output={tmp_path}", "name=run", f"{prefix}.batch_size=2", *steps]
    assert cli.run(words) == 1
    assert capsys.readouterr().err.endswith("vlarl: stopped\n")
    run = RunFolder(tmp_path / "run")
    assert not run.steps()
    assert not run.metrics()
    monkeypatch.undo()
    assert train(tmp_path, *words[3:], "resume=auto")["steps"] == 4
    assert [row["step"] for row in run.metrics()] == [0, 1, 2, 3, 4]


def test_a_stop_while_collecting_leaves_no_half_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(Interrupt, "pressed", True, raising=False)
    monkeypatch.setattr(Interrupt, "__init__", lambda self: None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "name=run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_stop_during_training_is_exit_code_1(tmp_path, monkeypatch, capsys):
    step = SupervisedTrainer.train_step

    def stopped(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(SupervisedTrainer, "train_step", stopped)
    assert cli.run(["sft", str(CONFIG), f"output={tmp_path}", "name=run", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"] == 1
    assert "step_1, which name=run resume=auto continues" in captured.err


@pytest.mark.parametrize("memory", ["8", "1e-5"])
def test_a_run_with_workers_is_the_run_without_also_resumed(tmp_path, memory):
    whole = train(tmp_path, "name=whole")
    dataset = f"supervised.data.path={tmp_path / 'whole/demonstrations'}"
    common = (
        dataset,
        "supervised.collect.episodes=400",
        f"supervised.data.memory_gigabytes={memory}",
    )
    words = ("name=ahead", "resume=auto", "supervised.data.workers=2", *common)
    train(tmp_path, *words)
    for leftover in ("checkpoints/step_4", "checkpoints/last"):
        path = tmp_path / "ahead" / leftover
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    ahead = train(tmp_path, *words)
    assert ahead["steps"] == whole["steps"] == 4
    one, other = (QwenVLA.from_pretrained(r["checkpoint"]).state_dict() for r in (whole, ahead))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
