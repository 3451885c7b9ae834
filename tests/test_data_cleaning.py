"""Cleaning drops what is unfit, keeps the rest bit for bit, and says why."""

import json

import numpy as np
import pytest
from recordings import make_episodes, write_v21, write_v30

from actors import cli
from vlarl.data.cleaning import clean, still_runs
from vlarl.data.defects import inspect_dataset
from vlarl.data.episode import Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.pseudo_actions import is_angle, is_gripper, pseudo_actions


def flawed():
    """Eight episodes, of which 1, 2, 3, 5 and 6 have a flaw, and 4 a pause."""
    episodes = make_episodes((20, 22, 21, 90, 40, 19, 23, 20))
    episodes[1].action[3, 0] = np.nan
    episodes[2].action[:] = episodes[2].action[0]
    pause = slice(10, 25)
    episodes[4].action[pause], episodes[4].state[pause] = 0.25, 0.5
    grip = episodes[6]
    grip.action[:, 2] = 1.0
    blank = episodes[5]
    episodes[5] = Episode(blank.images, blank.state, blank.action, "", blank.extra)
    return episodes


def report_of(path, *filters, **settings):
    reader = LeRobotReader(path)
    found = inspect_dataset(reader)
    if filters:
        settings["filters"] = filters
    return clean(found, reader.fps, reader.action_names, **settings)


def test_each_filter_drops_its_own(tmp_path):
    path = write_v30(tmp_path / "data", flawed())
    report = report_of(path)
    cuts = [(cut.filter, cut.episode, cut.first, cut.last) for cut in report.cuts]
    assert cuts == [
        ("frames", 1, 0, 21),
        ("static", 2, 0, 20),
        ("length", 3, 0, 89),
        ("static", 4, 10, 24),
        ("language", 5, 0, 18),
        ("motion", 6, 0, 22),
    ]
    kept = [(0, 0, 20), (4, 0, 10), (4, 25, 40), (7, 0, 20)]
    assert report.kept == kept
    result = report.to_dict()
    assert result["filters"]["static"] == {"episodes": 2, "frames": 36}
    dropped = sum(row["frames"] for row in result["filters"].values())
    assert result["kept_frames"] + dropped == result["frames"] == 255
    reasons = {cut.filter: cut.reason for cut in report.cuts}
    assert "frame 3: action is not finite" in reasons["frames"]
    assert "'put the cup down', but no gripper moves" in reasons["motion"]


@pytest.mark.parametrize(
    ("name", "episodes"),
    [
        ("frames", {1}),
        ("static", {2, 4}),
        ("length", {3}),
        ("language", {5}),
        # The gripper of episode 2 stands still, as all of it does.
        ("motion", {2, 6}),
    ],
)
def test_filters_are_independent(tmp_path, name, episodes):
    cuts = report_of(write_v30(tmp_path / "data", flawed()), name).cuts
    assert {(cut.filter, cut.episode) for cut in cuts} == {(name, number) for number in episodes}


def test_short_takes_what_the_others_left(tmp_path):
    path = write_v30(tmp_path / "data", flawed())
    report = report_of(path, "static", "short", min_frames=12)
    assert [(cut.episode, cut.first, cut.last) for cut in report.cuts if cut.filter == "short"] == [
        (4, 0, 9)
    ]
    assert (4, 25, 40) in report.kept


def test_a_steady_command_that_the_arm_follows_is_no_pause(tmp_path):
    episodes = make_episodes((40, 40, 40))
    episodes[1].action[5:35] = 0.25
    assert report_of(write_v30(tmp_path / "a", episodes), "static").cuts == []
    episodes[1].state[5:35] = 0.1
    cuts = report_of(write_v30(tmp_path / "b", episodes), "static").cuts
    assert [(cut.episode, cut.first, cut.last) for cut in cuts] == [(1, 5, 34)]


def test_still_runs_cover_every_frame_once():
    values = np.array([[0.0], [0.0], [0.05], [1.0], [1.0], [2.0]])
    assert still_runs(values, np.array([0.1])) == [(0, 3), (3, 5), (5, 6)]


@pytest.mark.parametrize(
    ("write", "settings"), [(write_v30, {}), (write_v21, {}), (write_v21, {"video": True})]
)
def test_command_writes_what_is_kept(tmp_path, capsys, write, settings):
    episodes = flawed()
    path = write(tmp_path / "raw", episodes, **settings)
    out = tmp_path / "clean"
    assert cli.run(["data", "clean", str(path), f"out={out}", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    report = json.loads((out / "meta/cleaning.json").read_text())
    assert all(report[key] == result[key] for key in ("dropped", "filters", "kept_frames"))
    assert "motion" in captured.err
    source, reader = LeRobotReader(path), LeRobotReader(out)
    assert reader.meta.names("observation.state") == source.meta.names("observation.state")
    spans = [(0, 0, 20), (4, 0, 10), (4, 25, 40), (7, 0, 20)]
    for index, (episode, start, stop) in enumerate(spans):
        found, expected = reader.episode(index), source.episode(episode)
        assert np.array_equal(found.action, expected.action[start:stop])
        assert np.array_equal(found.state, expected.state[start:stop])
        for name, images in expected.images.items():
            assert np.array_equal(found.images[name], images[start:stop])
        assert found.instruction == expected.instruction
        origin = {"source_episode": episode, "source_frame": start}
        assert found.extra == {"seed": 100 + episode} | origin
    assert cli.run(["data", "validate", str(out)]) == 0


def test_conversion_without_filters(tmp_path):
    path = write_v21(tmp_path / "raw", make_episodes(), video=True)
    out = tmp_path / "converted"
    words = ["data", "clean", str(path), f"out={out}", "filters=none", "video=h264"]
    assert cli.run(words) == 0
    reader = LeRobotReader(out)
    assert not reader.meta.is_legacy
    assert set(reader.episodes[0].videos) == {"ego", "cam_right_wrist"}
    assert np.array_equal(reader.actions(), LeRobotReader(path).actions())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data clean needs out=DIR"),
        (["out={data}"], "exists already"),
        (["out={data}x", "filters=statics"], "Did you mean static?"),
        (["out={data}x", "min_frames=0"], "at least 1"),
        (["out={data}x", "filters=short", "min_frames=500"], "keep none of its 2 episodes"),
        (["out={data}x", "video=vp8"], "choose one of h264, libsvtav1"),
        (["out={data}x", "filtres=none"], "Did you mean filters?"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, capsys, words, message):
    path = write_v30(tmp_path / "data", make_episodes((12, 12)))
    assert cli.run(["data", "clean", str(path), *(w.format(data=path) for w in words)]) == 2
    assert message in capsys.readouterr().err
    assert [folder.name for folder in tmp_path.iterdir()] == ["data"]


def test_pseudo_actions_take_the_short_way_round():
    state = np.array([[0.0, 3.1, 3.1, 0.0], [0.5, -3.1, -3.1, 1.0], [0.25, -3.0, 3.0, 0.0]])
    names = ("x", "yaw", "joint_angle", "gripper")
    found = pseudo_actions(state, names)
    turn = 2 * np.pi - 6.2
    expected = [[0.5, turn, -6.2, 1.0], [-0.25, 0.1, 6.1, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
    plain = pseudo_actions(state, ())
    assert plain[:-1] == pytest.approx(np.diff(state, axis=0), abs=1e-6)
    with pytest.raises(ValueError, match="2 names for 4 channels"):
        pseudo_actions(state, ("a", "b"))


def test_half_a_turn_is_positive_either_way():
    for sign in (1, -1):
        state = np.array([[0.0], [sign * np.pi]])
        assert pseudo_actions(state, ("heading",))[0, 0] == pytest.approx(np.pi)


def test_names_of_angles_and_grippers():
    assert [is_angle(name) for name in ("eef_roll", "Yaw", "joint_1_angle", "x")] == [
        True,
        True,
        False,
        False,
    ]
    assert is_gripper("left_gripper_open")
    assert not is_gripper("trip")
