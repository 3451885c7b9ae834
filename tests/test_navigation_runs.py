"""Navigation end to end: demonstrations at 2 Hz and the debug configs, with a history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors import cli
from actors.collect import collect
from envservers.navigation import NavigationSuite
from vlarl.config.data_schema import CollectConfig
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.rewards import RewardInput
from vlarl.types import EpisodeStart

SIZE = 8


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """JSON of a command that succeeds."""
    code = cli.run([*words, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


def test_demonstrations_are_at_two_hertz_and_replay_open_loop(tmp_path: Path) -> None:
    config = CollectConfig(episodes=6, seed=2, clumsy_steps=0)
    result = collect("navigation", tmp_path / "data", config, num_envs=3, image_size=SIZE)
    reader = LeRobotReader(tmp_path / "data")
    assert result.episodes == len(reader) == 6
    assert reader.fps == 2.0
    assert reader.action_names == ("dx", "dy", "dtheta")
    tasks = [row.extra["scene_task"] for row in reader.episodes]
    assert sorted(tasks.count(task) for task in set(tasks)) == [1, 1, 2, 2]
    suite = NavigationSuite(1, image_size=SIZE)
    for index in range(len(reader)):
        episode = reader.episode(index)
        start = EpisodeStart(episode.extra["scene_task"], episode.extra["scene_seed"])
        now = suite.reset(np.arange(1), [start])
        for frame, action in enumerate(episode.action):
            assert np.array_equal(now.images["ego"][0], episode.images["ego"][frame])
            assert np.array_equal(now.state[0], episode.state[frame])
            now = suite.step(np.arange(1), action[None, None])
        assert now.success[0]


def test_wandering_is_not_recorded(tmp_path: Path) -> None:
    """An episode that began with it starts where the recording does, not where the episode did."""
    config = CollectConfig(episodes=6, seed=1, clumsy_steps=4)
    tasks = ("go_to_landmark",)
    collect("navigation", tmp_path / "data", config, tasks, num_envs=6, image_size=SIZE)
    reader = LeRobotReader(tmp_path / "data")
    first = [reader.episode(index).state[0] for index in range(len(reader))]
    assert 0 < sum(bool(state.any()) for state in first) < 6


def test_debug_configs_run_with_a_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SFT from nothing, RL from what it left, evaluation: the history is the checkpoint's."""
    output = f"output={tmp_path}"
    sft = answer(capsys, "sft", "configs/sft/navigation_debug.yaml", output, "name=s")
    assert sft["steps"] == 4
    assert 0 <= sft["eval_success_rate"] <= 1
    contract = QwenVLA.from_pretrained(sft["checkpoint"]).contract
    assert contract.history == 4
    assert contract.past_frames is not None
    assert contract.past_frames.steps_back == (4, 3, 2, 1)
    rl = answer(
        capsys,
        "rl",
        "configs/rl/navigation_debug.yaml",
        output,
        "name=r",
        f"model.checkpoint={sft['checkpoint']}",
        "model.history=0",
    )
    assert rl["steps"] == 2
    assert rl["log_prob_gap"] < 1e-3
    assert len(list((tmp_path / "r" / "videos").glob("*.gif"))) == 2
    played = answer(
        capsys,
        "eval",
        rl["checkpoint"],
        "suite=navigation",
        "episodes=2",
        "env.image_size=32",
        "env.max_steps=4",
        "env.mode=inprocess",
        "runtime.kind=inprocess",
    )
    assert played["episodes"] == 2
    paths = [row["metrics"]["spl"] for row in played["outcomes"]]
    assert all(
        0 <= spl <= row["success"] for spl, row in zip(paths, played["outcomes"], strict=True)
    )
    assert played["metrics"]["spl"]["mean"] == pytest.approx(sum(paths) / 2)


def nearness(seen: RewardInput) -> NDArray[np.float32]:
    """A reward that even a random policy gets some of."""
    return -seen.after.info["distance_to_goal"]


def test_rl_with_a_history_resumes_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "rl",
        "configs/rl/navigation_debug.yaml",
        f"output={tmp_path}",
        "reward.name=test_navigation_runs:nearness",
        "evaluation.every=1",
        "evaluation.videos=0",
        "env.tasks=[search_object]",
        "ppo.value_warmup_iterations=0",
        "ppo.optimizer.final_fraction=1",
    )
    whole = answer(capsys, *words, "name=whole")
    first = answer(capsys, *words, "name=parts", "ppo.iterations=1")
    before = QwenVLA.from_pretrained(first["checkpoint"]).state_dict()
    parts = answer(capsys, *words, "name=parts", "resume=auto")
    one, two = (QwenVLA.from_pretrained(run["checkpoint"]).state_dict() for run in (whole, parts))
    assert all(bool((one[name] == two[name]).all()) for name in one)
    changed = [name for name in one if bool((one[name] != before[name]).any())]
    assert any("expert" in name for name in changed)


def test_grounding_scenes_are_of_another_suite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only tabletop has"):
        cli._dispatch(
            [
                "sft",
                "configs/sft/navigation_debug.yaml",
                f"output={tmp_path}",
                "supervised.data.grounding_images=4",
                "supervised.grounding_batch_size=2",
            ]
        )
    assert not list(tmp_path.iterdir())
