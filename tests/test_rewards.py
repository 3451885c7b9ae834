"""Rewards: the paper's, and your own by name with checked parameters."""

import itertools

import numpy as np
import pytest

from vlarl.config.schema import RewardConfig
from vlarl.errors import ConfigError
from vlarl.rewards import RewardInput, load_reward
from vlarl.types import TimeStep

NUMBER = itertools.count()
SOURCE = """
from __future__ import annotations
from vlarl.rewards import RewardInput

def shaped(decision: RewardInput, scale: float, offset: int = 1, verbose: bool = False):
    return decision.after.reward * scale + offset

def untyped(decision, scale):
    return decision.after.reward * scale

not_callable = 3
"""


def decision(success, terminated, truncated):
    n = len(success)
    after = TimeStep(
        env_ids=np.arange(n),
        images={},
        state=np.zeros((n, 0), np.float32),
        instruction=("",) * n,
        task=("",) * n,
        seed=np.zeros(n, np.int64),
        step=np.ones(n, np.int32),
        executed=np.ones(n, np.int32),
        reward=np.arange(n, dtype=np.float32),
        success=success,
        task_success=success[:, None],
        terminated=terminated,
        truncated=truncated,
    )
    return RewardInput(after, np.zeros((n, 1, 1), np.float32), after)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in a folder of its own, which is the current one."""
    name = f"own_reward_{next(NUMBER)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "rewards.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    return f"{name}.rewards"


def refused(name, **parameters):
    with pytest.raises(ConfigError) as caught:
        load_reward(RewardConfig(name, parameters))
    return str(caught.value)


def test_sparse_success_pays_at_the_end_of_an_episode_alone():
    success = np.array([1, 1, 1, 0, 0], bool)
    terminated, truncated = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]], bool)
    rewards = load_reward(RewardConfig())(decision(success, terminated, truncated))
    assert rewards.tolist() == [1, 1, 0, 0, 0]
    assert rewards.dtype == np.float32


def test_a_reward_from_the_current_folder(module):
    reward = load_reward(RewardConfig(f"{module}:shaped", {"scale": 2, "offset": 3}))
    seen = decision(*np.zeros((3, 4), bool))
    assert reward(seen).tolist() == [3, 5, 7, 9]


def test_bad_parameters_name_key_value_and_remedy(module):
    name = f"{module}:shaped"
    message = refused(name, scale="much")
    assert "reward.parameters.scale = 'much'" in message
    assert "must be float, not str" in message
    assert "Did you mean scale?" in refused(name, scal=1.0)
    assert "Set reward.parameters.scale" in refused(name)
    assert "must be int, not float" in refused(name, scale=1.0, offset=0.5)
    assert "must be float, not bool" in refused(name, scale=True)
    assert "must be bool" in refused(name, scale=1.0, verbose=1)
    assert "annotate" in refused(f"{module}:untyped", scale=1.0)


def test_names_that_lead_nowhere(module):
    assert "Did you mean sparse_success?" in refused("sparse_succes")
    assert "It has: shaped, untyped" in refused(f"{module}:shapd")
    assert "no callable" in refused(f"{module}:not_callable")
    assert "Start from the folder" in refused("no_such_package.rewards:shaped")
    assert "no such parameter" in refused("sparse_success", scale=1.0)
