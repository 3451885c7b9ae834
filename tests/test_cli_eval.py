"""`vlarl eval`: whose settings an evaluation follows."""

import json

import pytest

from actors import cli, evaluate_checkpoint
from vlarl.config.load import load_config
from vlarl.runs import RunFolder

HERE = ["env.mode=inprocess", "env.servers=1", "env.envs_per_server=2", "episodes=4"]


@pytest.fixture
def used(monkeypatch):
    """Configs that evaluations were run with; nothing is played."""
    seen = []

    def evaluate(checkpoint, config):
        seen.append((checkpoint, config))
        return {"success_rate": 0.5, "interval": [0.4, 0.6], "episodes": 4, "tasks": {}}

    monkeypatch.setattr(evaluate_checkpoint, "evaluate_checkpoint", evaluate)
    return seen


def evaluated(capsys, used, *words):
    assert cli.run(["eval", *words, *HERE, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    return answer["config"], used[-1][1]


def test_a_config_says_how_long_episodes_are_and_how_actions_are_sampled(capsys, used):
    source, config = evaluated(capsys, used, "tabletop-sft", "configs/rl/demo.yaml")
    demo = load_config("configs/rl/demo.yaml")
    assert source == "configs/rl/demo.yaml"
    assert config.sampling == demo.sampling
    assert config.env.max_steps == demo.env.max_steps
    assert (config.env.servers, config.evaluation.episodes) == (1, 4)


def test_a_checkpoint_in_a_run_is_evaluated_as_the_run_says(capsys, used, tmp_path):
    overrides = [f"output={tmp_path}", "name=mine", "sampling.execute_steps=3", "env.max_steps=7"]
    run = RunFolder.create(load_config("configs/rl/debug.yaml", overrides))
    with run.checkpoint(1) as folder:
        (folder / "weights").write_text("")
    for name in (run.path, run.checkpoint_path(1), run.path / "checkpoints" / "last"):
        source, config = evaluated(capsys, used, str(name))
        assert source == str(run.path)
        assert (config.sampling.execute_steps, config.env.max_steps) == (3, 7)
    _, other = evaluated(capsys, used, str(run.path), "env.max_steps=9")
    assert other.env.max_steps == 9


def test_without_a_run_the_defaults_count(capsys, used):
    source, config = evaluated(capsys, used, "tabletop-sft")
    assert source is None
    assert config.sampling == load_config(None).sampling


def test_settings_of_training_are_refused(capsys, used):
    assert cli.run(["eval", "tabletop-sft", "ppo.epochs=2"]) == 2
    assert "no effect with stage=eval" in capsys.readouterr().err
    assert not used


def test_a_run_whose_checkpoint_was_changed_is_refused(capsys, used, tmp_path):
    run = RunFolder.create(
        load_config("configs/rl/debug.yaml", [f"output={tmp_path}", "name=mine"])
    )
    with run.checkpoint(1) as folder:
        (folder / "weights").write_text("some")
    (run.path / "checkpoints" / "step_1" / "weights").write_text("else")
    for name in (run.path, run.path / "checkpoints" / "last"):
        assert cli.run(["eval", str(name), *HERE]) == 2
        assert "weights was changed" in capsys.readouterr().err
    assert not used


def test_two_checkpoints_are_compared_on_the_same_episodes(capsys):
    words = ["eval", "tabletop-sft", *HERE, "env.max_steps=4", "sampling.execute_steps=2"]
    assert cli.run([*words, "against=tabletop-sft", "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["against"]["outcomes"] == answer["outcomes"]
    paired = answer["paired"]
    assert (paired["difference"], paired["episodes"]) == (0, 4)
    assert paired["interval"][0] < 0 < paired["interval"][1]
    assert "gain" in captured.err
    assert cli.run([*words, "against=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert cli.run(["eval", "ws://127.0.0.1:1", "suite=tabletop", "against=tabletop-sft"]) == 2
    assert "against has an effect with a checkpoint alone" in capsys.readouterr().err
