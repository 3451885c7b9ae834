"""Bad datasets and mixtures on the command line: one message with the place, before training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import cli
from vlarl.config.embodiments import load_embodiment
from vlarl.config.paths import configs_folder
from vlarl.data.episode import Episode
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.types import CameraSpec

ROBOT = load_embodiment("tabletop_arm")
VIEWS = ("ego", "cam_right_wrist")
DATA_FILE = "data/chunk-000/file-000.parquet"
MIXTURE = "supervised.data.mixture"


def write(
    folder: Path,
    lengths: tuple[int, ...] = (12, 12, 12),
    cameras: tuple[str, ...] = VIEWS,
    channels: tuple[str, ...] = tuple(channel.name for channel in ROBOT.channels),
    fps: float = ROBOT.control_hz,
    size: int = 32,
) -> Path:
    """A dataset of the tabletop arm, or nearly so."""
    seen = [CameraSpec(name, size, size) for name in cameras]
    random = np.random.default_rng(0)
    with LeRobotWriter(folder, fps, seen, channels, 1, ROBOT.name) as writer:
        for length in lengths:
            images = {
                name: random.integers(0, 256, (length, size, size, 3)).astype(np.uint8)
                for name in cameras
            }
            action = random.uniform(-0.01, 0.01, (length, len(channels))).astype(np.float32)
            state = np.zeros((length, 1), np.float32)
            writer.add(Episode(images, state, action, "put the spoon on the towel"))
    return folder


def run(output: Path, *words: str, name: str = "run", batch: int = 2) -> int:
    """One step of SFT on images of 32 x 32."""
    settings = [
        "supervised.steps=1", f"supervised.batch_size={batch}", "supervised.flow.repeats=1",
        "supervised.optimizer.warmup_steps=0", "env.image_size=32", "runtime.threads=1",
    ]  # fmt: skip
    file = output / "sft.yaml"
    file.write_text("stage: sft\n")
    return cli.run(
        ["sft", str(file), f"output={output / 'runs'}", f"name={name}", *settings, *words]
    )


def refusal(capsys: pytest.CaptureFixture[str], output: Path, *words: str) -> str:
    code = run(output, *words)
    message = capsys.readouterr().err
    assert code == 2, message
    assert "Traceback" not in message
    assert not (output / "runs/run/metrics.jsonl").exists(), "training had begun"
    return message


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file: Path) -> None:
    file.write_text("{")


def one_source(data: Path) -> str:
    return f"{MIXTURE}={{a: {{path: {data}}}}}"


def alone(data: Path) -> str:
    return f"supervised.data.path={data}"


@pytest.mark.parametrize("given", [alone, one_source])
@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("meta/info.json", overwrite, "meta/info.json is not valid JSON"),
        ("meta/info.json", Path.unlink, "meta/info.json is missing"),
        ("meta/tasks.parquet", cut_in_half, "meta/tasks.parquet is truncated or no parquet file"),
        (DATA_FILE, cut_in_half, f"{DATA_FILE} is truncated or no parquet file"),
        (DATA_FILE, Path.unlink, f"{DATA_FILE} is missing"),
    ],
)
def test_an_unreadable_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: Callable[[Path], str],
    file: str,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    data = write(tmp_path / "data")
    damage(data / file)
    assert words in refusal(capsys, tmp_path, given(data))


@pytest.mark.parametrize("given", [alone, one_source])
@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"channels": ("x", "y", "z")}, "actions: x, y, z; tabletop_arm has delta_x, "),
        ({"cameras": ("front",)}, "supervised.data.cameras={ego: NAME_IN_THE_DATASET}"),
        ({"fps": 30.0}, "fps: 30; tabletop_arm has 5."),
        ({"lengths": (12, 3, 12)}, "episode 1 has 3 frames, and 1 of 3 episodes less than the 8"),
    ],
)
def test_features_that_do_not_fit_the_embodiment(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: Callable[[Path], str],
    made: dict[str, Any],
    words: str,
) -> None:
    message = refusal(capsys, tmp_path, given(write(tmp_path / "data", **made)))
    assert str(tmp_path / "data") in message
    assert words in message


def test_images_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data", size=64)
    message = refusal(capsys, tmp_path, alone(data))
    assert "cameras: ego (64 x 64), cam_right_wrist (64 x 64); the model has ego (32 x" in message
    assert "env.image_size" in message


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ("{}", "an empty mixture"),
        ("{a: {path: DATA}, a: {path: DATA}}", "found duplicate key a"),
        ("{a: {path: DATA, weight: -1}}", f"{MIXTURE}.a.weight = -1.0: must be a finite number"),
        ("{a: {path: DATA, weight: .nan}}", f"{MIXTURE}.a.weight = nan: must be a finite number"),
        ("{a: {path: DATA, weight: .inf}}", f"{MIXTURE}.a.weight = inf: must be a finite number"),
        ("{a: {path: DATA, weight: 0}, b: {path: DATA, weight: 0}}", "all weights are zero"),
        ("{a: {path: DATA/nowhere}}", "1 of 1 sources are not there: 'a' ("),
    ],
)
def test_mixtures_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sources: str, words: str
) -> None:
    data = write(tmp_path / "data", (12,))
    assert words in refusal(capsys, tmp_path, f"{MIXTURE}={sources.replace('DATA', str(data))}")


def test_weights_need_not_sum_to_anything(tmp_path: Path) -> None:
    data = write(tmp_path / "data", (12,))
    other = shutil.copytree(data, tmp_path / "other")
    sources = f"{{a: {{path: {data}, weight: 74.2}}, b: {{path: {other}, weight: 25.7}}}}"
    assert run(tmp_path, f"{MIXTURE}={sources}") == 0


def test_two_different_robots_of_one_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both files are called arm.yaml; one would have been taken for the other."""
    text = (configs_folder() / "embodiments/tabletop_arm.yaml").read_text()
    sources = []
    for number, words in enumerate((text, text.replace("robot_tag: ", "robot_tag: another "))):
        folder = tmp_path / f"lab_{number}"
        folder.mkdir()
        (folder / "arm.yaml").write_text(words)
        data = write(folder / "data", (12,))
        sources.append(f"s{number}: {{path: {data}, embodiment: {folder / 'arm.yaml'}}}")
    message = refusal(capsys, tmp_path, f"{MIXTURE}={{{', '.join(sources)}}}")
    assert "are of two different robots called arm: rename one of their files" in message


@pytest.mark.parametrize("memory", ["8", "1e-5"])
def test_a_corrupt_episode_of_a_source_is_skipped_until_there_are_too_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], memory: str
) -> None:
    data = write(tmp_path / "data")
    content = bytearray((data / DATA_FILE).read_bytes())
    image = content.index(b"\x89PNG", content.index(b"\x89PNG") + 1)
    content[image + 60 : image + 90] = bytes(30)
    (data / DATA_FILE).write_bytes(content)
    sources = [one_source(data), f"supervised.data.memory_gigabytes={memory}"]
    assert run(tmp_path, *sources, "supervised.data.skip_limit=0.4", "--json", batch=36) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["skipped_episodes"] == 1
    assert captured.err.count("episode 0 is skipped: ") == 1
    assert run(tmp_path, *sources, name="stops", batch=36) == 2
    message = capsys.readouterr().err
    assert "1 of 3 episodes are corrupt (0), more than" in message
    assert "is damaged" in message


@pytest.mark.parametrize("lengths", [(12,), (12, 12, 12)])
def test_a_dataset_without_a_sound_episode_is_described_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lengths: tuple[int, ...]
) -> None:
    """There was a traceback: without a sound episode nothing is known of usual motion."""
    data = write(tmp_path / "data", lengths)
    content = (data / DATA_FILE).read_bytes()
    (data / DATA_FILE).write_bytes(content.replace(b"\x89PNG", b"\x89PNX"))
    assert cli.run(["data", "validate", str(data), "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)["defects"]
    assert {each["episode"] for each in found} == set(range(len(lengths)))
    assert {each["kind"] for each in found} == {"corrupt_frame"}
    assert cli.run(["data", "clean", str(data), f"out={tmp_path / 'new'}"]) == 2
    assert "keep none of its" in capsys.readouterr().err
