"""vla-eval's protocol: a harness played from its messages, and the real one where it is there."""

import io
import json
import subprocess
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import make_model
from websocket_peers import serving
from websockets.sync.client import connect

from actors.harness.messages import unpack
from actors.harness.observation_keys import ObservationKeys
from actors.harness.served_policy import ServedPolicy
from actors.harness.vla_eval_session import VlaEvalSession
from envservers import environments
from vlarl.config.load import load_config
from vlarl.model.presets import build, channel_bounds_codec, robot_contract

KEYS = ObservationKeys.parse("libero")
EXECUTED = 5
SCRIPT = Path(__file__).with_name("vla_eval_run.py")
STEPS = 11
"""Of an episode of the script's own benchmark."""


def served(model):
    overrides = ["stage=eval", f"sampling.execute_steps={EXECUTED}"]
    return ServedPolicy(model, load_config(None, overrides), KEYS, "normalized")


@pytest.fixture(scope="module")
def policy():
    found = served(make_model())
    yield found
    found.close()


@pytest.fixture(scope="module")
def address(policy):
    with serving(VlaEvalSession(policy)) as where:
        yield where


def shown(step, task="count up"):
    """The observation of a control step, as the script's own benchmark makes it."""
    picture = np.full((128, 128, 3), 20 * step, np.uint8)
    return {"images": {"agentview": picture, "wrist": 255 - picture}, "task_description": task}


def as_sent(value):
    """Pictures as the harness sends them."""
    if isinstance(value, dict):
        return {key: as_sent(each) for key, each in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    stream = io.BytesIO()
    Image.fromarray(value).save(stream, "PNG")
    return {"__image__": True, "format": "png", "data": stream.getvalue(), "shape": value.shape}


class Harness:
    """The client's side, message by message."""

    def __init__(self, address):
        self._connection = connect(address)
        self._number = 0

    def say(self, kind, payload):
        self._number += 1
        message = {"type": kind, "payload": payload, "seq": self._number, "timestamp": 0.0}
        self._connection.send(msgpack.packb(message))

    def ask(self, kind, payload):
        self.say(kind, payload)
        answer = unpack(self._connection.recv(timeout=60))
        assert answer["seq"] == self._number
        assert isinstance(answer["timestamp"], float)
        return answer["type"], answer["payload"]

    def episode(self, task, steps, picture=int):
        """[steps, c] what it is answered in one episode; `picture` says which one a step shows."""
        self.say("episode_start", {"task": {"name": task, "episode_idx": 0}})
        actions = [self.action(picture(step), task) for step in range(steps)]
        self.say("episode_end", {"metrics": {"success": False}, "steps": steps})
        return np.stack(actions)

    def action(self, step, task):
        kind, payload = self.ask("observation", as_sent(shown(step, task)))
        assert kind == "action", payload
        return payload["actions"]

    def close(self):
        self._connection.close()


def test_hello_is_answered_with_what_the_benchmark_is_to_show(address):
    harness = Harness(address)
    kind, payload = harness.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})
    harness.close()
    assert kind == "hello"
    assert payload["protocol_version"] == 1
    assert payload["observation_params"] == {"send_wrist_image": True}


def test_chunks_are_executed_step_by_step_and_begin_with_what_is_seen_then(address):
    harness = Harness(address)
    actions = harness.episode("count up", STEPS)
    starts = set(range(0, STEPS, EXECUTED))
    # What is shown within a chunk changes nothing; what is shown at its start does.
    unlike = harness.episode("count up", STEPS, lambda step: step if step in starts else 12 - step)
    np.testing.assert_array_equal(unlike, actions)
    late = harness.episode("count up", STEPS, lambda step: 12 if step == EXECUTED else step)
    harness.close()
    chunks = [slice(first, first + EXECUTED) for first in sorted(starts)]
    assert [bool((late[c] != actions[c]).any()) for c in chunks] == [False, True, False]
    assert len(np.unique(actions, axis=0)) == STEPS
    assert np.abs(actions).max() <= 1


def test_an_episode_does_not_depend_on_those_before_it(address):
    one, other = Harness(address), Harness(address)
    first = one.episode("count up", 3)
    other.episode("count down", 4)
    np.testing.assert_array_equal(other.episode("count up", 3), first)
    assert (one.episode("count down", 3) != first).any()
    one.close()
    other.close()


def test_mistakes_are_answered_as_errors_and_the_connection_goes_on(address):
    harness = Harness(address)
    for kind, payload, match in (
        ("observation", {"task_description": "x"}, "lacks 'images/agentview'"),
        ("wave", {}, "a message of type 'wave'"),
    ):
        harness.say(kind, payload)
        answer = unpack(harness._connection.recv(timeout=60))
        assert answer["type"] == "error"
        assert match in answer["payload"]["error"]
    assert len(harness.episode("count up", 2)) == 2
    harness.close()


def test_a_model_that_is_shown_the_past_is_shown_every_step():
    """What lies between two decisions, and so within no chunk's first picture, changes the next."""
    contract = robot_contract("tabletop_arm", 64, history=2, history_hz=2.5)
    policy = served(moved(build("tiny", contract, channel_bounds_codec(contract))))
    with serving(VlaEvalSession(policy)) as where:
        harness = Harness(where)
        actions = harness.episode("count up", 2 * EXECUTED)
        between = range(1, EXECUTED)
        other = harness.episode("count up", 2 * EXECUTED, lambda s: 12 - s if s in between else s)
        harness.close()
    policy.close()
    np.testing.assert_array_equal(other[:EXECUTED], actions[:EXECUTED])
    assert (other[EXECUTED:] != actions[EXECUTED:]).any()


def moved(model):
    """A new model in which nothing is zero any more: a new one is blind to what it is shown."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def real(address, *words):
    """The result of the real harness, run in its own environment.

    Skips where that is not installed.
    """
    wrong = environments.problem("vla-eval")
    if wrong:
        pytest.skip(f"vla-eval is {wrong}")
    answer = subprocess.run(
        [environments.python_of("vla-eval"), str(SCRIPT), address, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    (result,) = json.loads(answer.stdout.splitlines()[-1])
    return result


@pytest.mark.suites
def test_the_real_harness_is_answered_as_the_played_one(address):
    result = real(address, "counting", "1")
    assert [task["task"] for task in result["tasks"]] == ["count up", "count down"]
    for task in result["tasks"]:
        (episode,) = task["episodes"]
        assert episode["metrics"]["success"]
        actions = np.array(episode["metrics"]["actions"], np.float32)
        assert actions.shape == (STEPS, 5)
        assert len(np.unique(actions, axis=0)) == STEPS


@pytest.mark.suites
@pytest.mark.slow
def test_the_real_harness_plays_its_libero():
    """Two episodes from official initial states, by a policy that learned nothing."""
    contract = robot_contract("franka_panda_eef", 64, instructions=["long words " * 20])
    policy = served(moved(build("tiny", contract, channel_bounds_codec(contract))))
    with serving(VlaEvalSession(policy)) as where:
        result = real(where, "libero_object", "2", "12")
    policy.close()
    episodes = result["tasks"][0]["episodes"]
    assert [episode["steps"] for episode in episodes] == [12, 12]
    assert not result["num_errors"]
