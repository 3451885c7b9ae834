"""Quantiles in one pass are numpy's, to the last bit, and keep only the tails."""

import json

import numpy as np
import pytest
from recordings import ACTIONS, STATES, make_episodes, write_v21, write_v30

from actors import cli
from vlarl.codec import fit_action_stats
from vlarl.data.channel_stats import channel_stats
from vlarl.data.exact_quantiles import ExactQuantiles
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError

LEVELS = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 101, 1000, 4321])
def test_quantiles_equal_numpy(count):
    random = np.random.default_rng(count)
    values = random.normal(size=(count, 3)).astype(np.float32)
    values[:, 2] = random.integers(0, 3, count)
    for levels in (LEVELS, (0.01, 0.99), (0.99,), (0.3,)):
        quantiles = ExactQuantiles(count, levels)
        for block in np.array_split(values, 7):
            quantiles.add(block)
        expected = np.quantile(values.astype(np.float64), levels, axis=0)
        assert np.array_equal(quantiles.result(), expected)


def test_only_the_tails_are_kept():
    count, block = 100_000, 500
    quantiles = ExactQuantiles(count, (0.01, 0.99))
    values = np.random.default_rng(0).normal(size=(count, 1)).astype(np.float32)
    most = 0
    for start in range(0, count, block):
        quantiles.add(values[start : start + block])
        most = max(most, quantiles.held)
    assert most <= 0.04 * count + 2 * block
    assert np.array_equal(
        quantiles.result(), np.quantile(values.astype(float), (0.01, 0.99), axis=0)
    )


def test_mistakes_of_quantiles():
    with pytest.raises(ValueError, match="levels lie in"):
        ExactQuantiles(5, (1.2,))
    quantiles = ExactQuantiles(5, (0.5,))
    quantiles.add(np.zeros((4, 1), np.float32))
    with pytest.raises(ValueError, match="4 rows came, 5 were announced"):
        quantiles.result()


@pytest.mark.parametrize("write", [write_v30, write_v21])
def test_stats_of_a_dataset(tmp_path, write):
    episodes = make_episodes()
    reader = LeRobotReader(write(tmp_path / "data", episodes))
    found = channel_stats(reader, (0.01, 0.5, 0.99))
    assert list(found["action"]) == list(ACTIONS)
    assert list(found["observation.state"]) == list(STATES)
    action = np.concatenate([e.action for e in episodes]).astype(np.float64)
    for channel, name in enumerate(ACTIONS):
        values, column = found["action"][name], action[:, channel]
        assert values["q0.5"] == np.quantile(column, 0.5)
        assert (values["min"], values["max"]) == (column.min(), column.max())
        assert values["mean"] == pytest.approx(column.mean(), rel=1e-9)
        assert values["std"] == pytest.approx(column.std(), rel=1e-9)
    codec = fit_action_stats(action)
    assert [np.float32(v["q0.01"]) for v in found["action"].values()] == codec.low.tolist()
    assert [np.float32(v["q0.99"]) for v in found["action"].values()] == codec.high.tolist()


def test_command_line(tmp_path, capsys):
    path = write_v21(tmp_path / "data", make_episodes(), action=False)
    assert cli.run(["data", "stats", str(path), "quantiles=0.5", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["episodes"], result["frames"], result["has_actions"]) == (5, 57, False)
    assert set(result["features"]["action"]["yaw"]) == {"min", "max", "mean", "std", "q0.5"}
    lengths = [len(episode) for episode in make_episodes()]
    assert result["episode_frames"]["median"] == np.median(lengths)
    assert "differences of the state" in captured.err
    assert cli.run(["data", "stats", str(path), "quantiles=1%"]) == 2
    assert "quantiles = '1%': must be numbers from 0 to 1" in capsys.readouterr().err
    assert cli.run(["data", "stats", "--help"]) == 0
    assert "quantiles        levels" in capsys.readouterr().out
    assert cli.run(["data", "stat", str(path)]) == 2
    assert "Did you mean stats?" in capsys.readouterr().err


def test_a_value_that_is_not_finite_is_named(tmp_path):
    episodes = make_episodes((6, 6))
    episodes[1].action[4, 2] = np.inf
    with np.errstate(invalid="ignore"):
        reader = LeRobotReader(write_v21(tmp_path / "data", episodes))
    with pytest.raises(UserError, match="action of episode 1, frame 4 is not finite"):
        channel_stats(reader)


def test_view_draws_a_sheet(tmp_path, capsys):
    from PIL import Image

    path = write_v30(tmp_path / "data", make_episodes())
    out = tmp_path / "pictures/sheet.png"
    words = ["data", "view", str(path), f"out={out}"]
    assert cli.run([*words, "episodes=3", "frames=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == [0, 2, 4]
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] == pytest.approx(3 * 1.65 * 80, abs=2)
    # The lower right quarter of episode 4's images is 160 in every channel.
    last = pixels[-pixels.shape[0] // 3 :, : pixels.shape[1] // 2]
    assert (last == 160).all(-1).sum() > 500
    for wrong, message in (
        (["camera=egg"], "Did you mean ego?"),
        (["episodes=0"], "at least 1"),
    ):
        assert cli.run([*words, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert cli.run(["data", "view", str(path)]) == 2
    assert "needs out=FILE.png" in capsys.readouterr().err
