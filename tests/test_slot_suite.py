"""`SlotSuite`: single simulators as a suite, with a simulator whose physics is a sum."""

import dataclasses

import numpy as np
import pytest

from envservers.inprocess import InprocessClient
from envservers.service import SuiteService
from envservers.simulator import Outcome
from envservers.slot_suite import SlotSuite
from vlarl.types import CameraSpec, Channel, EnvSpec, EpisodeStart

SPEC = EnvSpec(
    suite="sums",
    tasks=("up", "down"),
    cameras=(CameraSpec("ego", 4, 6),),
    channels=(Channel("a", "1", "absolute_joint", -1.0, 1.0),) * 2,
    embodiment="counting",
    control_hz=5.0,
    max_steps=5,
    state_dim=1,
)


class Sum:
    """Adds up its actions; the goal is a sum of 3, up or down, and a sum beyond 4 is a failure."""

    def reset(self, start):
        self.total, self.sign = float(start.seed), 1.0 if start.task == "up" else -1.0
        self.drawn = 0
        return f"count {start.task}"

    def step(self, action):
        self.total += self.sign * float(action.sum())
        return Outcome(float(action.sum()), 3 <= self.total <= 4, failed=self.total > 4)

    def images(self):
        self.drawn += 1
        return {"ego": np.full((4, 6, 3), max(0, int(self.total)), np.uint8)}

    def state(self):
        return np.array([self.total], np.float32)

    def info(self):
        return {"drawn": float(self.drawn)}

    def expert_action(self):
        return np.full(2, 0.5 * self.sign)

    def snapshot(self):
        return np.array([self.total, self.sign]).tobytes()

    def restore(self, blob):
        self.total, self.sign = np.frombuffer(blob).tolist()
        self.drawn = 0

    def close(self):
        self.total = float("nan")


def make(num_envs=3, **further):
    return SlotSuite(num_envs, SPEC, Sum, **further)


def chunk(*rows):
    """[n, h, 2] both channels alike."""
    return np.repeat(np.array(rows, np.float32)[..., None], 2, axis=2)


def test_a_chunk_ends_with_its_episode_and_is_drawn_once():
    suite = SuiteService(make())
    ids = np.array([2, 0])
    first = suite.reset(ids, [EpisodeStart("up", 0), EpisodeStart("down", 0)])
    assert first.instruction == ("count up", "count down")
    after = suite.step(ids, chunk([1, 0.5, 1, 1], [-1, -1, -1, -1]))
    # 2, 3: success on the second step; down: 2, 4 -> success on the second as well.
    np.testing.assert_array_equal(after.executed, [2, 2])
    np.testing.assert_array_equal(after.success, [True, True])
    np.testing.assert_array_equal(after.terminated, [True, True])
    np.testing.assert_array_equal(after.task_success, [[True, False], [False, True]])
    np.testing.assert_array_equal(after.reward, [3.0, -4.0])
    np.testing.assert_array_equal(after.state, [[3.0], [4.0]])
    # One image at the reset, one at the end of the chunk.
    np.testing.assert_array_equal(after.info["drawn"], [2.0, 2.0])


def test_failure_and_time_end_episodes_otherwise():
    suite = SuiteService(make())
    ids = np.arange(2)
    suite.reset(ids, [EpisodeStart("up", 2), EpisodeStart("down", 0)])
    after = suite.step(ids, chunk([5.0] * 6, [0.0] * 6))
    # Beyond the bounds of a channel is its bound: 2 + 2 is a goal, not 2 + 10.
    np.testing.assert_array_equal(after.success, [True, False])
    np.testing.assert_array_equal(after.truncated, [False, True])
    np.testing.assert_array_equal(after.executed, [1, 5])
    suite.reset(ids[:1], [EpisodeStart("up", 2)])
    suite.step(ids[:1], chunk([0.4]))
    failed = suite.step(ids[:1], chunk([1.0]))
    assert (failed.terminated[0], failed.success[0]) == (True, False)
    with pytest.raises(ValueError, match="no running episode"):
        suite.step(ids, chunk([0.0], [0.0]))


def test_without_termination_on_success_it_runs_until_its_time():
    suite = make(terminate_on_success=False)
    suite.reset(np.arange(1), [EpisodeStart("up", 3)])
    after = suite.step(np.arange(1), chunk([0.0] * 5), record=True)
    assert (after.success[0], after.terminated[0], after.truncated[0]) == (True, False, True)
    assert after.frames[0].shape == (5, 4, 6, 3)


def test_the_expert_of_the_suite_acts_in_the_slots_asked_for():
    client = InprocessClient(make())
    client.reset(np.arange(3), [EpisodeStart(task, 0) for task in ("up", "down", "up")])
    np.testing.assert_array_equal(client.expert_actions([1, 2]), [[-0.5, -0.5], [0.5, 0.5]])


def test_a_snapshot_brings_back_simulators_and_books():
    suite, other = make(), make()
    ids = np.array([0, 2])
    suite.reset(ids, [EpisodeStart("up", 0), EpisodeStart("down", 1)])
    suite.step(ids, chunk([0.5], [0.0]))
    blob = suite.snapshot()
    expected = suite.step(ids, chunk([0.5, 0.5], [-0.5, -0.25]))
    for restored in (suite, other):
        restored.restore(blob)
        after = restored.step(ids, chunk([0.5, 0.5], [-0.5, -0.25]))
        np.testing.assert_array_equal(after.state, expected.state)
        np.testing.assert_array_equal(after.step, expected.step)
        assert after.instruction == expected.instruction
    with pytest.raises(ValueError, match="has slot 2, this suite has 2"):
        make(2).restore(blob)


def test_a_snapshot_of_other_tasks_is_refused_and_forgets_nothing():
    suite = make()
    suite.reset(np.arange(1), [EpisodeStart("down", 0)])
    blob = suite.snapshot()
    other = make()
    other.reset(np.array([0]), [EpisodeStart("up", 3)])
    other.spec = dataclasses.replace(other.spec, tasks=("up",))
    with pytest.raises(ValueError, match="down"):
        other.restore(blob)
    assert other.step(np.array([0]), chunk([0.5])[:1]).task == ("up",)
