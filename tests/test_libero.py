"""LIBERO's data and what reads BDDL: without the simulator."""

import numpy as np
import pytest

from actors.episodes import held_out_starts
from envservers.held_out import HELD_OUT, published_start
from envservers.libero import tasks
from envservers.libero.goals import Goal, parse
from envservers.libero.grasps import boxes_of, candidates, closing
from envservers.libero.suite import LiberoSuite
from envservers.registry import describe_suite
from envservers.task_groups import expand
from vlarl.errors import UserError

DRAWER = """
(define (problem LIBERO_Kitchen_Tabletop_Manipulation)
  (:domain robosuite)
  (:language put the mug away) ; what the robot is told
  (:regions
    (mug_init_region (:target kitchen_table) (:ranges ((0.1 -0.2 0.12 -0.18))))
    (top_region (:target white_cabinet_1))
  )
  (:fixtures kitchen_table - kitchen_table  white_cabinet_1 - white_cabinet)
  (:objects red_mug_1 red_mug_2 - red_mug  plate_1 - plate)
  (:obj_of_interest red_mug_1)
  (:init (On red_mug_1 kitchen_table_mug_init_region))
  (:goal (And (In red_mug_1 white_cabinet_1_top_region) (Close white_cabinet_1_top_region)))
)
"""


def test_there_are_130_tasks_of_five_groups_in_the_published_order():
    names = tasks.all_tasks()
    sizes = {name: len(tasks.chosen(name, None)) for name in tasks.GROUPS}
    assert sizes == {"spatial": 10, "object": 10, "goal": 10, "long": 10, "90": 90}
    assert len(set(names)) == len(names) == 130
    assert names[10] == "object/pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    assert tasks.chosen("all", None) == names


def test_a_name_spells_the_instruction():
    long = tasks.chosen("long", ["KITCHEN_SCENE8_put_both_moka_pots_on_the_stove"])[0]
    assert long == "long/KITCHEN_SCENE8_put_both_moka_pots_on_the_stove"
    assert tasks.sentence(long) == "put both moka pots on the stove"
    assert tasks.sentence("goal/turn_on_the_stove") == "turn on the stove"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "spacial"}, "Did you mean 'spatial'"),
        ({"tasks": ["turn_on_the_stov"]}, "turn_on_the_stove"),
        ({"tasks": ["goal", "turn_on_the_stove"]}, "named twice"),
        ({"variant": "swop"}, "Did you mean 'swap'"),
        ({"split": "90", "variant": "swap"}, "no variant 'swap' of 90"),
        ({"renderer": "fast"}, "choose one of tuned, default"),
        ({"image_size": 0}, "image_size = 0: must be at least 1"),
        ({"max_steps": -5}, "max_steps = -5: must be at least 0"),
    ],
)
def test_what_there_is_none_of_is_refused_with_what_there_is(options, words):
    with pytest.raises(UserError, match=words):
        describe_suite("libero", **options)


def test_the_spec_needs_no_simulator():
    spec = describe_suite("libero", split="object", image_size=96)
    assert spec.max_steps == 280
    assert [camera.name for camera in spec.cameras] == ["ego", "cam_right_wrist"]
    assert spec.embodiment == "franka_panda_eef"
    mixed = describe_suite("libero", tasks=["turn_on_the_stove", "long"])
    assert mixed.max_steps == 520
    assert len(mixed.tasks) == 11
    assert describe_suite("libero", max_steps=40).max_steps == 40


def test_each_task_keeps_the_limit_of_its_group_unless_one_is_given():
    limits = [
        LiberoSuite(1, tasks=["spatial", "long"], **options).limits
        for options in ({}, {"max_steps": 40})
    ]
    assert [set(found.values()) for found in limits] == [{220, 520}, {40}]


def test_tasks_may_be_named_without_their_group_wherever_they_are_asked_for():
    stove = tasks.chosen("goal", ["turn_on_the_stove"])
    assert expand("libero", ["turn_on_the_stove"]) == stove == ("goal/turn_on_the_stove",)
    assert expand("maniskill", ["PickCube", "RollBall-v1"]) == ("PickCube-v1", "RollBall-v1")
    short = "PutSpoonOnTableClothInScene"
    assert expand("simpler-widowx", [short]) == (f"{short}-v1",)


def test_the_published_protocol_plays_each_official_state_of_each_task_once():
    names = tasks.chosen("goal", None)
    starts = held_out_starts(names, len(names) * tasks.TRIALS, HELD_OUT)
    played = [
        (start.task, published_start(start.seed, len(names), tasks.TRIALS)) for start in starts
    ]
    assert sorted(played) == sorted((name, state) for name in names for state in range(50))
    assert published_start(HELD_OUT - 1, len(names), tasks.TRIALS) is None


def test_a_variant_has_a_folder_of_its_own():
    task = tasks.chosen("object", None, "temp_x0.2")[0]
    assert tasks.folder(task, "temp_x0.2") == "libero_object_temp_x0.2"
    assert tasks.folder("long/KITCHEN_SCENE8_put_both_moka_pots_on_the_stove") == "libero_10"


def test_a_problem_says_what_there_is_and_what_is_wanted():
    problem = parse(DRAWER)
    assert problem.instruction == "put the mug away"
    assert problem.goals == (
        Goal("in", "red_mug_1", "white_cabinet_1_top_region"),
        Goal("close", "white_cabinet_1_top_region"),
    )
    assert problem.objects == {"red_mug_1": "red_mug", "red_mug_2": "red_mug", "plate_1": "plate"}
    assert problem.fixtures["white_cabinet_1"] == "white_cabinet"
    assert problem.regions["white_cabinet_1_top_region"] == "white_cabinet_1"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (DRAWER.replace("(define", "(declare"), "begin with"),
        (DRAWER + ")", "too many"),
        (DRAWER.rstrip()[:-1], "do not match"),
        (DRAWER.replace("(Close white", "(Polish white"), "unknown goal"),
        (DRAWER.replace("(:goal", "(:wish"), "no \\(:goal"),
    ],
)
def test_what_is_no_problem_is_refused(broken, words):
    with pytest.raises(ValueError, match=words):
        parse(broken)


def _block(center, half):
    return boxes_of(np.array([center]), np.eye(3)[None], np.array([half]))


def test_a_block_is_held_across_its_narrow_side():
    block = _block([0.3, -0.1, 0.02], [0.06, 0.02, 0.02])
    nothing = _block([5, 5, 5], [0.01, 0.01, 0.01])
    best = candidates(block, nothing, np.array([0.3, -0.1]))[0]
    assert np.allclose(best.position[:2], [0.3, -0.1], atol=0.005)
    assert abs(closing(best.yaw)[1]) > 0.95
    assert 0 < best.position[2] < 0.04


def test_a_bowl_wider_than_the_hand_is_held_at_its_rim_away_from_what_stands_beside_it():
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    around = np.stack([np.cos(angles), np.sin(angles), np.zeros(16)], axis=1)
    walls = around * 0.06 + np.array([0, 0, 0.03])
    turned = np.stack([[[c, -s, 0], [s, c, 0], [0, 0, 1]] for c, s in around[:, :2]])
    bowl = boxes_of(walls, turned, np.tile([0.003, 0.014, 0.03], (16, 1)))
    beside = _block([0.0, 0.13, 0.1], [0.2, 0.04, 0.1])
    best = candidates(bowl, beside, np.zeros(2))[0]
    assert np.isclose(np.hypot(*best.position[:2]), 0.06, atol=0.006)
    assert best.position[1] < 0.02


def _joined(*boxes):
    """Boxes as (centers, half sizes, turns about the vertical), one after the other."""
    centers, halves, turns = (np.concatenate(each) for each in zip(*boxes, strict=True))
    rows = [[[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]] for t in turns]
    return boxes_of(centers, np.array(rows), halves)


NOTHING = _block([5, 5, 5], [0.01, 0.01, 0.01])


def test_a_pot_too_wide_for_the_hand_is_held_by_its_handle():
    body = [[0, 0, 0.07]], [[0.045, 0.045, 0.07]], [0.0]
    handle = [[0.0, 0.08, 0.08]], [[0.007, 0.007, 0.04]], [0.0]
    best = candidates(_joined(body, handle), NOTHING, np.zeros(2))[0]
    assert np.allclose(best.position[:2], [0, 0.08], atol=0.003)
    assert abs(closing(best.yaw)[0]) > 0.99, "no finger fits between handle and pot"
    assert 0.05 < best.position[2] < 0.12


def test_a_pan_is_held_at_its_wall_and_not_at_the_end_of_its_higher_handle():
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    around = np.stack([np.cos(turns), np.sin(turns), np.zeros(16)], axis=1)
    wall = around * 0.09 + [0, 0, 0.02], np.tile([0.004, 0.018, 0.02], (16, 1)), turns
    floor = [[0, 0, 0.004]], [[0.08, 0.08, 0.004]], [0.0]
    handle = [[0, 0.17, 0.05]], [[0.012, 0.07, 0.01]], [0.0]
    best = candidates(_joined(wall, floor, handle), NOTHING, np.zeros(2))[0]
    assert np.hypot(*best.position[:2]) == pytest.approx(0.09, abs=0.006)
    assert best.position[2] < 0.04
