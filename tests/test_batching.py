"""Ready environments joined for one call of the policy: who, when, and that nobody notices."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from test_rollout import ENVS, T, inprocess_clients, make_collector

from actors.batching import Batching, choose
from actors.lane import Phase
from actors.rollout_worker import batching_of
from vlarl.config.process_schema import RolloutConfig
from vlarl.config.schema import RunConfig, SamplingConfig
from vlarl.errors import ConfigError
from vlarl.noise import integers, normal
from vlarl.observations import Observations
from vlarl.policy import Policy


def lane(size, phase=Phase.READY, since=0.0, policy=None):
    return SimpleNamespace(streams=np.arange(size), phase=phase, ready_since=since, policy=policy)


def test_without_a_bound_the_lane_that_waits_longest_is_alone():
    lanes = [lane(4, since=2.0), lane(4, since=1.0), lane(4, Phase.STEPPING)]
    assert choose(lanes, Batching(), 5.0) == ([lanes[1]], 0.0)


def test_lanes_are_joined_while_they_fit_oldest_first():
    lanes = [lane(4, since=3.0), lane(5, since=1.0), lane(4, since=2.0), lane(1, since=4.0)]
    chosen, left = choose(lanes, Batching(10, 60.0), 5.0)
    assert chosen == [lanes[1], lanes[2], lanes[3]]
    assert left == 0.0


def test_lanes_of_other_policies_are_neither_joined_nor_waited_for():
    lanes = [lane(2, since=1.0, policy="a"), lane(2, since=2.0, policy="b"),
             lane(2, since=3.0, policy="a")]  # fmt: skip
    assert choose(lanes, Batching(10, 60.0), 100.0)[0] == [lanes[0], lanes[2]]
    lanes[2].phase, lanes[1].phase = Phase.IDLE, Phase.STEPPING
    assert choose(lanes, Batching(10, 60.0), 5.0) == ([lanes[0]], 0.0)


def test_a_ready_lane_waits_for_others_until_its_deadline():
    lanes = [lane(4, since=10.0), lane(4, Phase.STEPPING)]
    assert choose(lanes, Batching(8, 0.5), 10.125) == ([], 0.375)
    assert choose(lanes, Batching(8, 0.5), 10.5) == ([lanes[0]], 0.0)
    # Who would not fit, or asks for nothing, is not waited for.
    for other in (lane(5, Phase.STEPPING), lane(4, Phase.IDLE)):
        assert choose([lanes[0], other], Batching(8, 0.5), 10.125) == ([lanes[0]], 0.0)


def test_where_nobody_is_ready_there_is_no_deadline():
    lanes = [lane(4, Phase.STEPPING), lane(4, Phase.RESETTING)]
    for batching in (Batching(), Batching(8, 0.5)):
        assert choose(lanes, batching, 1.0) == ([], float("inf"))


def test_joined_servers_give_the_very_batch_that_they_give_apart():
    """The counting reward has proved every transition to be a true one."""
    apart = make_collector(inprocess_clients())
    together = make_collector(inprocess_clients(), batching=Batching(2 * ENVS, 1.0))
    for _ in range(2):
        (expected, alone), (found, joined) = apart.collect(), together.collect()
        assert (expected == found).all()
        assert alone.policy_calls == 2 * T
        assert joined.policy_calls == T
        assert joined.metrics()["batch_fill"] == 1.0
        assert "batch_fill" not in alone.metrics()


def test_servers_started_elsewhere_that_do_not_fit_together_are_refused():
    config = RunConfig(rollout=RolloutConfig(batch_environments=6))
    sizes = [SimpleNamespace(num_envs=size) for size in (3, 5, 4)]
    with pytest.raises(ConfigError, match=r"rollout\.batch_environments = 6.*3, 4, 5.*Use 7"):
        batching_of(config, SimpleNamespace(clients=sizes))
    assert batching_of(config, SimpleNamespace(clients=sizes[:1])).environments == 6


def generators():
    return [torch.Generator().manual_seed(seed) for seed in (1, 2)]


def test_numbers_drawn_together_are_those_drawn_apart():
    one, two = generators()
    expected = [normal((3, 2), one), normal((4, 2), two)], [integers(0, 9, 3, one)]
    parts = list(zip(generators(), (3, 4), strict=True))
    assert torch.equal(normal((7, 2), parts), torch.cat(expected[0]))
    assert torch.equal(integers(0, 9, 7, parts)[:3], expected[1][0])
    assert integers(2, 3, 50, one).unique().tolist() == [2, 3]


def test_a_policy_decides_for_joined_environments_as_for_each():
    policy = Policy(FakeModel(), SamplingConfig(execute_steps=1))
    images = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    whole = Observations({"ego": images}, ["go"] * 7)
    apart = [
        policy.act(whole.part(rows), generator, explore=True)
        for rows, generator in zip((slice(3), slice(3, 7)), generators(), strict=True)
    ]
    parts = list(zip(generators(), (3, 4), strict=True))
    together = policy.act(whole, parts, explore=True)
    torch.testing.assert_close(torch.cat([each.chunk for each in apart]), together.chunk)
    assert torch.equal(torch.cat([each.chunk["step"] for each in apart]), together.chunk["step"])


@pytest.mark.parametrize("optional", [True, False])
def test_joining_observations_undoes_parting_them(optional):
    columns = {"elapsed": np.arange(5, dtype=np.float32), "state": np.eye(5, dtype=np.float32)}
    images = {"ego": np.arange(20).reshape(5, 4), "wrist": np.arange(5)[:, None]}
    whole = Observations(images, list("abcde"), **(columns if optional else {}))
    again = Observations.joined([whole.part(slice(2)), whole.part(slice(2, 5))])
    assert list(again.instructions) == list("abcde")
    assert again.history is None
    for name, image in images.items():
        assert np.array_equal(again.images[name], image)
    for name, column in columns.items():
        found = getattr(again, name)
        assert np.array_equal(found, column) if optional else found is None
