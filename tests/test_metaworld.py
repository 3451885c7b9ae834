"""MetaWorld as far as it goes without its simulator: tasks, groups, spec, mistakes, evaluation."""

import pytest

from actors.commands.evaluate import _of_protocol
from envservers.metaworld.groups import DIFFICULTY, SPLITS
from envservers.metaworld.suite import EMBODIMENTS
from envservers.metaworld.tasks import INSTRUCTIONS, TASKS
from envservers.registry import describe_suite
from envservers.task_groups import expand, find_protocol, groups_of, reported_groups
from vlarl.config.embodiments import load_embodiment
from vlarl.errors import UserError
from vlarl.evaluation.report import plain_table
from vlarl.evaluation.results import Outcome, summarize
from vlarl.evaluation.statistics import wilson


def test_fifty_tasks_each_with_a_sentence_of_its_own():
    assert len(TASKS) == 50
    assert all(task.endswith("-v3") for task in TASKS)
    assert len(set(INSTRUCTIONS.values())) == 50


def test_every_task_is_of_one_difficulty():
    assert sorted(sum(DIFFICULTY.values(), ())) == sorted(TASKS)
    assert [len(tasks) for tasks in DIFFICULTY.values()] == [28, 11, 6, 5]


def test_benchmarks_hold_as_many_tasks_as_they_say_and_tests_are_not_trained_on():
    assert {name: len(tasks) for name, tasks in SPLITS.items()} == {
        "MT10": 10, "MT50": 50, "ML10-train": 10, "ML10-test": 5, "ML45-train": 45, "ML45-test": 5,
    }  # fmt: skip
    for name, tasks in SPLITS.items():
        assert len(set(tasks)) == len(tasks)
        assert set(tasks) <= set(TASKS)
        if name.endswith("train"):
            assert not set(tasks) & set(SPLITS[name.replace("train", "test")])


@pytest.mark.parametrize("repeat", EMBODIMENTS)
def test_spec_and_embodiment_agree(repeat):
    spec = describe_suite("metaworld", tasks=["MT10"], action_repeat=repeat, image_size=32)
    robot = load_embodiment(spec.embodiment)
    assert spec.channels == robot.channels
    assert spec.control_hz == robot.control_hz == 80 / repeat
    assert tuple(camera.name for camera in spec.cameras) == robot.cameras
    assert spec.tasks == SPLITS["MT10"]
    assert spec.max_steps * repeat == 500


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": ["reach"]}, "Did you mean 'reach-v3'"),
        ({"tasks": ["MT11"]}, "Did you mean 'MT10'"),
        ({"tasks": []}, "name at least one"),
        ({"action_repeat": 3}, "choose one of 1, 2, 4"),
        ({"renderer": "fast"}, "choose one of tuned, default"),
        ({"cameras": ["corner2"]}, "choose of ego, cam_right_wrist"),
        ({"cameras": ["ego", "ego"]}, "choose of ego, cam_right_wrist"),
        ({"image_size": 0}, "image_size = 0: must be at least 1"),
    ],
)
def test_a_mistake_is_one_message(options, said):
    with pytest.raises(UserError, match=said):
        describe_suite("metaworld", **options)


def test_names_of_groups_stand_for_their_tasks():
    assert expand("metaworld", ["MT10", "reach-v3", "nothing"]) == (*SPLITS["MT10"], "nothing")
    assert expand("tabletop", ["MT10"]) == ("MT10",)
    assert groups_of("gym:Whatever-v1").groups == {}
    assert reported_groups("metaworld", ["push-v3", "reach-v3", "hammer-v3"]) == {
        "easy": ("reach-v3",),
        "medium": ("hammer-v3",),
        "hard": ("push-v3",),
    }


def test_the_mean_of_groups_counts_each_group_once():
    outcomes = [Outcome("a", seed, True, 3) for seed in range(30)]
    outcomes += [Outcome("b", seed, False, 3) for seed in range(10)]
    summary = summarize(outcomes, 0, {"left": ["a"], "right": ["b"]})
    assert summary["success_rate"] == 0.75
    assert summary["mean_of_groups"]["success_rate"] == 0.5
    low, high = summary["mean_of_groups"]["interval"]
    # One rate can only be lower, the other only higher: half of each one's distance.
    assert low == pytest.approx(0.5 - (1 - wilson(30, 30)[0]) / 2)
    assert high == pytest.approx(0.5 + wilson(0, 10)[1] / 2)
    words = plain_table({"checkpoint": summary})
    assert "all left" in words
    assert "mean of these" in words
    alone = summarize(outcomes, 0)
    assert "groups" not in alone
    assert "mean of these" not in plain_table({"checkpoint": alone})


def test_one_group_alone_has_the_interval_of_its_rate():
    outcomes = [Outcome("a", seed, seed < 3, 3) for seed in range(8)]
    summary = summarize(outcomes, 0, {"only": ["a"]})
    assert summary["mean_of_groups"]["interval"] == pytest.approx(summary["interval"])


def test_a_protocol_says_tasks_and_episodes():
    assert find_protocol("metaworld", "MT50").episodes == 10
    tasks, episodes = _of_protocol({"protocol": "MT50"}, "metaworld")
    assert tasks == f"env.tasks=[{','.join(TASKS)}]"
    assert episodes == "evaluation.episodes=500"
    with pytest.raises(UserError, match="leave one of the two out"):
        _of_protocol({"protocol": "MT50", "episodes": "3"}, "metaworld")
    with pytest.raises(UserError, match="Did you mean 'MT50'"):
        find_protocol("metaworld", "MT5")
    with pytest.raises(UserError, match="'tabletop' has none"):
        find_protocol("tabletop", "MT50")
