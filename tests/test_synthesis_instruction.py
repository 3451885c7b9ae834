"""Instructions say what the recorded motion does; a text that says otherwise is found."""

import numpy as np
import pytest

from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.claims import Surroundings, contradictions, read
from vlarl.synthesis.generator import make_shard
from vlarl.synthesis.observation import observe
from vlarl.synthesis.scene import GOALS, OTHER, TARGET, TEMPLATES, draw
from vlarl.synthesis.vocabulary import DIRECTIONS, RELATIONS, heading, headings, load_vocabulary

COUNT = 48


@pytest.fixture(scope="module")
def shards():
    robots = ["ur5e", "franka_panda", "xarm7"] * 2
    return {
        template: make_shard(load_arm(robot), template, 5, 0, COUNT)
        for robot, template in zip(robots, TEMPLATES, strict=True)
    }


def seen_of(trajectory):
    return observe(
        trajectory.template, trajectory.tool_pose, trajectory.gripper, trajectory.segment_ends
    )


def surroundings(trajectory):
    scene = trajectory.scene
    return Surroundings(
        scene["position"][TARGET].astype(float),
        float(scene["yaw"][TARGET]),
        scene["position"][OTHER].astype(float),
        float(scene["radius"][OTHER]),
    )


def found(trajectory, text):
    arm, claims = load_arm(trajectory.robot), read(text, load_vocabulary())
    return contradictions(arm, claims, seen_of(trajectory), surroundings(trajectory))


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_instruction_is_true_of_the_recorded_path(shards, template):
    shard, kinds = shards[template], set()
    for row in range(COUNT):
        trajectory = shard.trajectory(row)
        assert found(trajectory, trajectory.instruction) == []
        kinds |= set(read(trajectory.instruction, load_vocabulary()))
    # Not only true, but saying something.
    needed = {
        "pick_place": {"directions", "cm", "relations", "regions", "paces"},
        "push": {"directions", "cm", "paces"},
        "pull": {"directions", "cm", "paces"},
        "rotate_reposition": {"directions", "cm", "turns", "degrees", "regions"},
        "rotate_toward": {"facings"},
        "swap": {"paces"},
    }
    assert needed[template] <= kinds


def test_left_is_towards_positive_y_of_the_robots_base(shards):
    ways = []
    for template in ("push", "pull"):
        for row in range(COUNT):
            trajectory = shards[template].trajectory(row)
            seen = seen_of(trajectory)
            way = seen.released[0] - seen.taken[0]
            direction = read(trajectory.instruction, load_vocabulary()).get("directions")
            if direction == "left":
                ways.append(way / np.linalg.norm(way))
            if direction == "right":
                ways.append(-way / np.linalg.norm(way))
    assert len(ways) > 5
    assert np.array(ways) == pytest.approx(np.tile([0, 1, 0], (len(ways), 1)), abs=0.05)


OPPOSITES = [
    (("to the left", "to your left", "leftward"), "to the right"),
    (("to the right", "to your right", "rightward"), "to the left"),
    (("counterclockwise", "anticlockwise"), "clockwise"),
    (("into", "inside", "onto", "on top of"), "to the left of"),
]


@pytest.mark.parametrize(("phrases", "opposite"), OPPOSITES)
def test_the_opposite_is_a_contradiction(shards, phrases, opposite):
    vocabulary, changed = load_vocabulary(), 0
    for shard in shards.values():
        for row in range(COUNT):
            trajectory = shard.trajectory(row)
            text = trajectory.instruction
            claims = read(text, vocabulary)
            for phrase in phrases:
                if f" {phrase} " not in f"{text} " or "diagonal" in text or " and to the" in text:
                    continue
                turned = f"{text} ".replace(f" {phrase} ", f" {opposite} ").strip()
                if read(turned, vocabulary) != claims:
                    changed += 1
                    assert found(trajectory, turned)
    assert changed > 2


def test_wrong_numbers_are_contradictions(shards):
    for template, unit in (("push", "cm"), ("rotate_reposition", "degrees")):
        trajectory = shards[template].trajectory(0)
        claims = read(trajectory.instruction, load_vocabulary())
        number = int(claims[unit])
        wrong = trajectory.instruction.replace(str(number), str(number + 15))
        assert any(kind.startswith(unit) for kind in found(trajectory, wrong))


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("push the cup 12 cm to the left", {"directions": "left", "cm": "12"}),
        ("pull the cup back and to the right", {"directions": "back right"}),
        ("put the cup to the left of the can", {"relations": "left"}),
        ("put the cup on the left side of the can", {"relations": "left"}),
        ("put the cup on the left side of the table", {"regions": "left"}),
        (
            "turn the mug on your right until its handle faces you",
            {"facings": "inward", "places": "right"},
        ),
        (
            "turn the can by 45 degrees anticlockwise, slowly, keeping it low",
            {"turns": "counterclockwise", "degrees": "45", "paces": "slow", "lifts": "low"},
        ),
        ("swap the cup and the can", {}),
    ],
)  # fmt: skip
def test_reading(text, claims):
    assert read(text, load_vocabulary()) == claims


def test_every_phrase_is_read_as_what_it_stands_for():
    words = load_vocabulary().words
    lists = ("facings", "regions", "relations", "directions", "turns", "paces", "lifts", "places")
    for kind in lists:
        for key, phrases in words[kind].items():
            for phrase in phrases:
                text = f"move the cup {phrase}" + " the can" * (kind == "relations")
                assert read(text, load_vocabulary()) == {kind: key}


def test_keys_of_the_vocabulary_are_those_of_the_code():
    words = load_vocabulary().words
    assert set(words["directions"]) == set(words["facings"]) == set(DIRECTIONS)
    assert set(words["relations"]) == set(RELATIONS)
    assert set(words["sentences"]) == set(TEMPLATES)
    assert {goal for each in words["sentences"].values() for goal in each} == set(GOALS)


def test_headings_one_by_one_and_together():
    place = np.random.default_rng(0).normal(size=(30, 3))
    directions = np.arange(30) % len(DIRECTIONS)
    together = headings(directions, place)
    single = [heading(int(d), p) for d, p in zip(directions, place, strict=True)]
    assert np.exp(1j * together) == pytest.approx(np.exp(1j * np.array(single)))
    assert heading(DIRECTIONS.index("left"), place[0]) == pytest.approx(np.pi / 2)
    inward = heading(DIRECTIONS.index("inward"), np.array([0.3, 0.4, 0]))
    assert [np.cos(inward), np.sin(inward)] == pytest.approx([-0.6, -0.8])


@pytest.mark.parametrize("template", TEMPLATES)
def test_scenes_are_within_reach_and_things_apart(template):
    arm = load_arm("ur10e")
    scene = draw(arm, template, 200, np.random.default_rng(1))
    assert len(scene) == 200
    low, high = arm.reach_radius
    for place in (scene.position[:, TARGET], scene.final_position[:, TARGET]):
        radius = np.linalg.norm(place[:, :2], axis=1)
        assert (radius >= low).all()
        assert (radius <= high).all()
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = (scene.radius[:, first] > 0) & (scene.radius[:, second] > 0)
        apart = np.linalg.norm(
            (scene.position[:, first] - scene.position[:, second])[:, :2], axis=1
        )
        assert (apart > scene.radius[:, first] + scene.radius[:, second])[both].all()
    # Goals speak in whole centimeters.
    assert 100 * scene.distance == pytest.approx(np.round(100 * scene.distance))
