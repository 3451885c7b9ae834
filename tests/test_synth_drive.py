"""Drives: the car's kinematics, waypoints and their inverse, roads as they are seen, a dataset."""

import json
from dataclasses import replace

import numpy as np
import pytest

from actors import cli
from envservers.driving.car import WHEELBASE, bicycle, drive, poses_of, waypoints
from envservers.driving.roads import KINDS, LANE, Box, distance_to, headings, sample_road
from envservers.driving.view import RoadView, ground_colors, simplified
from vlarl.codec import ActionCodec, fit_action_stats
from vlarl.config.embodiments import load_embodiment
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.samples import ChunkDataset
from vlarl.prompt import prompt


@pytest.fixture(scope="module")
def drives():
    """One successful drive of each kind."""
    found = {}
    for seed in range(80):
        random = np.random.default_rng(seed)
        road = sample_road(random)
        driven = drive(road, random)
        assert not driven.defect
        found.setdefault(road.kind, (road, driven))
    assert set(found) == set(KINDS)
    return found


def test_a_steady_wheel_drives_a_circle():
    steer, speed = 0.3, 4.0
    radius = WHEELBASE / np.tan(steer)
    around = 2 * np.pi * radius / speed
    pose = np.array([1.0, 2.0, 0.5])
    for _ in range(8):
        pose = bicycle(pose, speed, steer, around / 8)
    np.testing.assert_allclose(pose, [1.0, 2.0, 0.5 + 2 * np.pi], atol=1e-9)
    half = bicycle(np.zeros(3), speed, steer, around / 2)
    np.testing.assert_allclose(half, [0.0, 2 * radius, np.pi], atol=1e-9)
    np.testing.assert_allclose(bicycle(np.zeros(3), speed, 0.0, 2.0), [8.0, 0.0, 0.0])


def test_waypoints_are_in_the_cars_frame_and_lead_back_to_the_poses(drives):
    poses = np.array([[3.0, 4.0, np.pi / 2], [3.0, 6.0, np.pi / 2], [2.0, 6.0, np.pi]])
    expected = [[2.0, 0.0, 0.0], [0.0, 1.0, np.pi / 2]]
    np.testing.assert_allclose(waypoints(poses), expected, atol=1e-6)
    around = waypoints(np.array([[0.0, 0.0, 3.1], [0.0, 0.0, -3.1]]))
    assert abs(around[0, 2] - (2 * np.pi - 6.2)) < 1e-6
    for _, driven in drives.values():
        again = poses_of(driven.poses[0], waypoints(driven.poses))
        np.testing.assert_allclose(again, driven.poses, atol=1e-3)


def test_each_kind_ends_where_its_words_say(drives):
    def moved(kind):
        poses = drives[kind][1].poses
        return waypoints(poses[[0, -1]])[0]

    assert moved("turn_left")[1] > 20
    assert moved("turn_left")[2] == pytest.approx(np.pi / 2, abs=0.1)
    assert moved("turn_right")[1] < -20
    assert moved("turn_right")[2] == pytest.approx(-np.pi / 2, abs=0.1)
    assert abs(moved("straight_on")[1]) < 1
    for kind, aside in (("change_left", LANE), ("change_right", -LANE)):
        poses = drives[kind][1].poses
        assert poses[-1, 1] - poses[0, 1] == pytest.approx(aside, abs=0.6)
    road, driven = drives["stop"]
    assert driven.speeds[-1] < 0.3
    gap = np.linalg.norm(driven.poses[-1, :2] - road.boxes[0].center)
    assert 5 < gap < 14
    for road, driven in drives.values():
        assert (driven.speeds <= road.speed + 1e-9).all()


def test_failures_have_a_reason(drives):
    road, _ = drives["follow"]
    middle = tuple(road.path[30].tolist())
    parked = Box(middle, 0.0, (4.4, 1.8, 1.5), (1.0, 0.0, 0.0))
    random = np.random.default_rng(0)
    assert drive(replace(road, boxes=(parked,)), random).defect == "came too near a car"
    assert drive(replace(road, speed=0.2), random).defect == "did not arrive"
    corner = np.concatenate([road.path[:10], road.path[9] + np.outer(np.arange(1, 20), [0, 1.0])])
    assert drive(replace(road, path=corner, speed=11.0), random).defect == "left its lane"


def test_distances_have_a_side_and_houses_keep_off_the_road():
    line = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    points = np.array([[5.0, 2.0], [5.0, -1.0], [12.0, 5.0], [8.0, 5.0], [-3.0, 4.0]])
    np.testing.assert_allclose(distance_to(line, points), [2, -1, -2, 2, 5])
    np.testing.assert_allclose(headings(line), [0, np.pi / 4, np.pi / 2])
    for seed in range(20):
        road = sample_road(np.random.default_rng(seed))
        for box in road.boxes:
            gap = min(abs(distance_to(line, np.array([box.center]))[0]) for line in road.lines)
            assert (gap > road.width / 2 + 2) == (box.size[2] > 2)


def test_a_simplified_line_is_the_same_line(drives):
    for kind in ("follow", "turn_left"):
        road, _ = drives[kind]
        for line in road.lines:
            short = simplified(line)
            assert len(short) < 0.7 * len(line)
            assert np.abs(distance_to(short, line)).max() < 0.05
    straight = drives["straight_on"][0].lines[0]
    assert len(simplified(straight)) == 2


def test_the_road_is_where_the_map_has_it(drives):
    road, _ = drives["straight_on"]
    on, off = np.array([[5.0, -LANE / 2]]), np.array([[5.0, 6.0]])
    asphalt, grass = (ground_colors(road.lines, road.width, p)[0] for p in (on, off))
    assert abs(asphalt[1] - asphalt[0]) < 0.05
    assert grass[1] > grass[0] + 0.1
    view = RoadView(48)
    view.show(replace(road, boxes=()))
    image = view.render(np.array([0.0, -LANE / 2, 0.0]))
    assert np.array_equal(image[-1, 24], (255 * asphalt).astype(np.uint8))
    assert np.array_equal(image[0, 24], image[3, 40])
    wall = Box((8.0, -LANE / 2), 0.0, (1.0, 6.0, 6.0), (1.0, 0.0, 0.0))
    view.show(replace(road, boxes=(wall,)))
    red = view.render(np.array([0.0, -LANE / 2, 0.0]))[24, 24]
    assert red[0] > 100
    assert red[1:].max() == 0
    with pytest.raises(ValueError, match="14 boxes"):
        view.show(replace(road, boxes=(wall,) * 14))


def test_a_written_set_trains_like_any_other(tmp_path, capsys):
    for name in ("one", "two"):
        words = ["synth", "drive", f"out={tmp_path / name}", "episodes=5", "image_size=16"]
        assert cli.run([*words, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
    reader, again = LeRobotReader(tmp_path / "one"), LeRobotReader(tmp_path / "two")
    assert len(reader) == 5 == sum(result["kinds"].values())
    car = load_embodiment("driving_car")
    assert list(reader.action_names) == [channel.name for channel in car.channels]
    assert reader.fps == car.control_hz
    actions = reader.actions()
    assert len(actions) == result["frames"]
    assert np.array_equal(actions, again.actions())
    for column, channel in zip(actions.T, car.channels, strict=True):
        assert channel.low <= column.min() <= column.max() <= channel.high
    dataset = ChunkDataset.read(reader, car.horizon)
    batch = dataset.chunks(np.arange(4))
    codec = ActionCodec(fit_action_stats(actions), car.horizon)
    clean, mask = codec.encode(batch.actions)
    assert mask[:, : car.horizon, :3].all()
    assert not mask[..., 3:].any()
    assert np.abs(codec.decode(clean) - batch.actions).max() < 0.5
    text = prompt(car, dataset.sentences[0], car.horizon)
    assert text.startswith("The robot is car with mobile base. The control frequency is 2 Hz.")
    assert "next 8 waypoints" in text
