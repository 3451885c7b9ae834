"""Motion programs as data: real successes, segments that make up the whole, true captions."""

import json

import numpy as np
import pytest

from actors import cli
from actors.synthesis import motions, vision_language_action
from actors.synthesis.motions import MotionStudio
from actors.synthesis.vision_language_action import caption, cut
from envservers.tabletop.facts import region
from envservers.tabletop.workbench import Workbench
from vlarl.data.conversations import ConversationSet
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.samples import ChunkDataset

SLOTS = 8


@pytest.fixture(scope="module")
def recordings():
    studio = MotionStudio(SLOTS, 8, "both", seed=1)
    found = studio.round()
    assert studio.tables == SLOTS == len(found) + studio.failures.total()
    assert len(found) >= 5
    assert {len(r.program.stages) > 1 for r in found} == {True, False}
    return found


def test_the_recorded_actions_succeed_again_without_the_program(recordings):
    bench = Workbench(len(recordings), 1)
    ids = np.arange(len(recordings))
    assert bench.lay(ids, [r.layout for r in recordings]) == [""] * len(ids)
    for slot, recording in enumerate(recordings):
        assert not recording.program.succeeded(bench.facts(slot))
    for step in range(max(len(recording) for recording in recordings)):
        going = np.array([i for i in ids if step < len(recordings[i])])
        actions = np.stack([recordings[i].actions[step] for i in going])
        assert np.abs(actions[:, :3]).max() <= 0.05 + 1e-6
        bench.step(going, actions.astype(np.float64))
    for slot, recording in enumerate(recordings):
        assert recording.program.succeeded(bench.facts(slot)), recording.program


def test_segments_make_up_the_whole(recordings):
    for recording in recordings:
        segments = list(cut(recording))
        stages = recording.program.stages
        moves = [s for s in segments if s.level == "motion"]
        assert [m.first for m in moves[1:]] == [m.end for m in moves[:-1]]
        assert (moves[0].first, moves[-1].end) == (0, len(recording))
        assert all(m.end > m.first for m in moves)
        assert len(moves) == 2 * len(stages)
        whole = [s for s in segments if s.level == "stage"]
        assert len(whole) == (len(stages) if len(stages) > 1 else 0)
        for stage, pick, place in zip(stages, moves[::2], moves[1::2], strict=True):
            thing = recording.layout.name(stage.carried)
            assert pick.instruction == f"pick up the {thing}"
            assert place.instruction == f"place the {thing} {stage.where}"
            # The gripper closes while picking, and opens again while placing.
            commands = np.stack(recording.actions)[:, 4]
            assert commands[pick.end - 1] == -1
            assert commands[place.first] == -1
            assert commands[place.end - 1] == 1


def test_captions_name_things_places_and_turns(recordings):
    turned = 0
    for recording in recordings:
        text = caption(recording)
        program, name = recording.program, recording.layout.name
        assert text.count("Step ") == 2 * len(program.stages)
        first, last = program.stages[0], program.stages[-1]
        start, end = recording.facts[0], recording.facts[-1]
        place = region(start, first.carried)
        assert text.startswith(f"Step 1: Pick up the {name(first.carried)} from the {place}")
        assert text.endswith(f"Place it {last.where}, at the {region(end, last.carried)}.")
        turned += "the gripper turned" in text
    assert turned


def test_a_written_set_is_read_and_comes_again(tmp_path, capsys):
    for name in ("one", "two"):
        words = ["synth", "vla", f"out={tmp_path / name}", "episodes=3", "image_size=16", "--json"]
        assert cli.run(words) == 0
        result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == 3 == sum(result["kinds"].values())
    assert result["tables"] == 3 + result["surplus"] + sum(result["failures"].values())
    full, parts, again = (
        LeRobotReader(tmp_path / name) for name in ("one/full", "one/segments", "two/full")
    )
    assert len(parts) == result["segments"]
    for index in range(3):
        whole, other = full.episode(index), again.episode(index)
        assert np.array_equal(whole.action, other.action)
        for camera, images in whole.images.items():
            assert np.array_equal(images, other.images[camera])
    moves = [row for row in parts.episodes if row.extra["level"] == "motion"]
    for index in range(3):
        own = [parts.episode(r.index) for r in moves if r.extra["full_episode"] == index]
        whole = full.episode(index)
        assert np.array_equal(np.concatenate([e.action for e in own]), whole.action)
        assert np.array_equal(np.concatenate([e.state for e in own]), whole.state)
        ego = np.concatenate([e.images["ego"] for e in own])
        assert np.array_equal(ego, whole.images["ego"])
        row = full.episodes[index]
        assert (row.extra["horizon"] == "long") == (row.extra["stages"] > 1)
        assert json.loads(row.extra["success_test"])
    assert len(ChunkDataset.read(parts, 8)) == sum(row.length for row in parts.episodes)
    captions = list(ConversationSet(tmp_path / "one/captions.jsonl"))
    assert len(captions) == 3
    for conversation in captions:
        times = [picture.seconds for picture in conversation.pictures]
        assert len(times) == 8
        assert times == sorted(set(times))
        assert conversation.turns[-1].content[0].startswith("Step 1: Pick up the ")


def test_when_nearly_everything_fails_it_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("envservers.tabletop.worker.STAGE_STEPS", 2)
    monkeypatch.setattr(vision_language_action, "_TABLES_AT_ONCE", 2)
    assert cli.run(["synth", "vla", f"out={tmp_path / 'none'}", "episodes=1", "image_size=8"]) == 2
    message = capsys.readouterr().err
    assert "tables gave 0 of 1 episodes" in message
    assert "timed out in stage 1" in message
    assert not list(tmp_path.iterdir())


def test_what_does_not_settle_is_counted(monkeypatch):
    monkeypatch.setattr(Workbench, "_defect", lambda *_: "an object tilted while settling")
    studio = MotionStudio(2, 8, "short", seed=0)
    assert studio.round() == []
    assert studio.failures == {"an object tilted while settling": 2}
    assert motions.HORIZONS == ("short", "long")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["horizon=lang"], "Did you mean long"), (["episodes=0"], "at least 1")],
)
def test_mistakes(tmp_path, capsys, words, message):
    assert cli.run(["synth", "vla", f"out={tmp_path / 'x'}", *words]) == 2
    assert message in capsys.readouterr().err
