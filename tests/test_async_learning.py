"""That decoupled PPO learns from a rollout that never waits, as from one that takes turns."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from tensordict import TensorDict

from actors.episodes import EpisodeSource
from actors.rollout import RolloutCollector
from actors.stream import RolloutStream
from envservers.counting import TASKS, CountingSuite
from envservers.inprocess import InprocessClient
from learners.ppo import PPOLearner
from vlarl.config.schema import OptimizerConfig, PPOConfig, SamplingConfig
from vlarl.policy import Policy

SAMPLING = SamplingConfig(execute_steps=1)
CONFIG = PPOConfig(
    minibatch=128,
    micro_batch=128,
    gamma=0.1,
    value_warmup_iterations=0,
    optimizer=OptimizerConfig(learning_rates={"expert": 3e-3, "value": 1e-2}),
)
ENVS, T, ITERATIONS = 8, 16, 40


class Blind(FakeModel):
    """Sees nothing of the counting suite's images; at first there is only noise."""

    def __init__(self):
        super().__init__(active=3, horizon=1, channels=3, tensor_horizon=1)
        self.contract = SimpleNamespace(past_frames=None)
        with torch.no_grad():
            self.expert[-1].weight.zero_()
            self.expert[-1].bias.zero_()

    def processor(self, observations):
        shape = (len(observations), 4)
        return TensorDict({"observation": torch.zeros(shape)}, batch_size=shape[:1])


def closeness(seen):
    """Of every action to 0.5; no dynamics."""
    return -np.abs(seen.actions - 0.5).mean(axis=(1, 2))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_it_learns_to_act(mode):
    torch.set_num_threads(1)
    model, lock = Blind(), threading.Lock()
    clients = [InprocessClient(CountingSuite(ENVS)) for _ in range(2)]
    collector = RolloutCollector(
        clients,
        Policy(model, SAMPLING, shared=True),
        closeness,
        EpisodeSource(TASKS, (0,), 2 * ENVS),
        T,
        weights_lock=lock,
    )
    learner = PPOLearner(model, CONFIG, SAMPLING, ITERATIONS, 0, weights_lock=lock)
    stream = RolloutStream(collector, lambda: learner.version, max_staleness=3, threads=1)
    rewards, ages = [], []
    for _ in range(ITERATIONS):
        batch, stats = stream.take() if mode == "async" else collector.collect(learner.version)
        metrics = learner.update(batch, max_staleness=3 if mode == "async" else None)
        rewards.append(stats.mean_reward)
        ages.append(metrics.get("batch_age_mean", 0.0))
    stream.close()
    assert sum(rewards[:3]) / 3 < -0.6
    assert sum(rewards[-3:]) / 3 > -0.3
    assert (max(ages) > 0) == (mode == "async")
