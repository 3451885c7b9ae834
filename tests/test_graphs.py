"""Captured velocities: buffers and shapes, with a stand-in for CUDA's capture and replay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from vlarl.config.load import load_config
from vlarl.config.schema import SamplingConfig
from vlarl.errors import ConfigError
from vlarl.model.graphs import VelocityGraphs
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.policy import Policy


class Recorded:
    """As CUDA does: later runs use the tensors of the first, and write into its result."""

    def __init__(self) -> None:
        self.captures, self.replays = 0, 0

    def __call__(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.captures += 1
        result = work()

        def again() -> Tensor:
            self.replays += 1
            return result.copy_(work())

        return again


def context_of(batch: int, seed: int = 0, tokens: int = 3) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, tokens, 4, generator=generator)
    nested = TensorDict({"cosine": torch.randn(batch, 2, generator=generator)}, batch_size=[batch])
    return TensorDict({"hidden": hidden, "shared": nested}, batch_size=[batch])


def velocity(context: TensorDict, y: Tensor, tau: Tensor, mask: Tensor) -> Tensor:
    """Depends on all that it is given."""
    seen = context["hidden"].sum(dim=(1, 2)) + context["shared", "cosine"].sum(dim=1) + tau
    return (y + seen[:, None, None]) * mask


def chunk(batch: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 2, 5, generator=torch.Generator().manual_seed(seed))


def mask_of(batch: int, active: int = 4) -> Tensor:
    return (torch.arange(5) < active).expand(batch, 2, 5).contiguous()


def test_a_replay_is_of_the_context_and_the_chunk_that_are_given() -> None:
    capture = Recorded()
    graphs = VelocityGraphs(velocity, capture)
    for seed in range(3):
        context, mask = context_of(2, seed), mask_of(2, 3 + seed % 2)
        captured = graphs.of(context, mask)
        for step in range(2):
            y, tau = chunk(2, 10 * seed + step), torch.full((2,), 1 - 0.5 * step)
            assert torch.equal(captured(y, tau), velocity(context, y, tau, mask))
    assert (capture.captures, capture.replays) == (1, 6)


def test_neither_results_nor_what_was_given_are_written_to() -> None:
    context, mask, y, tau = context_of(2), mask_of(2), chunk(2), torch.ones(2)
    graphs = VelocityGraphs(velocity, Recorded())
    first = graphs.of(context, mask)(y, tau)
    expected = velocity(context, y, tau, mask)
    graphs.of(context_of(2, 1), mask_of(2, 1))(chunk(2, 1), torch.zeros(2))
    assert torch.equal(first, expected)
    assert torch.equal(velocity(context, y, tau, mask), expected)


def test_each_set_of_shapes_has_a_graph_and_few_are_kept() -> None:
    capture = Recorded()
    graphs = VelocityGraphs(velocity, capture, kept=2)

    def use(batch: int, tokens: int = 3) -> int:
        captured = graphs.of(context_of(batch, tokens=tokens), mask_of(batch))
        captured(chunk(batch), torch.ones(batch))
        return capture.captures

    assert [use(1), use(2), use(1), use(2)] == [1, 2, 2, 2]
    # A third set makes room by the one unused for longest: that of 1.
    assert [use(2, tokens=4), use(2), use(1)] == [3, 3, 4]


@pytest.mark.parametrize("preset", ["tiny", "tiny-prefix", "tiny-pooled"])
@pytest.mark.parametrize("explore", [False, True])
def test_a_policy_acts_the_same_by_replay(preset: str, explore: bool) -> None:
    model, capture = random_model(preset), Recorded()
    sampling = SamplingConfig(denoising_steps=3, execute_steps=4)
    plain = Policy(model, sampling)
    replaying = Policy(model, sampling, graphs=VelocityGraphs(model.velocity, capture))
    for seed in range(2):
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        expected = plain.act(observed(2, seed), generators[0], explore)
        found = replaying.act(observed(2, seed), generators[1], explore)
        assert np.array_equal(found.actions, expected.actions)
        if explore:
            assert found.chunk is not None
            assert expected.chunk is not None
            assert torch.equal(found.chunk["log_prob"], expected.chunk["log_prob"])
    assert (capture.captures, capture.replays) == (1, 6)


def test_a_replay_sees_weights_that_were_changed_in_place() -> None:
    model = random_model("tiny")
    graphs = VelocityGraphs(model.velocity, Recorded())
    policies = [Policy(model, SamplingConfig(execute_steps=4), graphs=g) for g in (None, graphs)]
    acted = []
    for _ in range(2):
        for policy in policies:
            generator = torch.Generator().manual_seed(0)
            acted.append(policy.act(observed(1), generator, False).actions)
        with torch.no_grad():
            model.expert.action_in[0].weight.add_(0.1)
    assert np.array_equal(acted[0], acted[1])
    assert np.array_equal(acted[2], acted[3])
    assert not np.array_equal(acted[0], acted[2])


def test_graphs_are_the_gpus_alone() -> None:
    with pytest.raises(ConfigError, match="cuda_graphs = False: has no effect"):
        load_config("configs/rl/debug.yaml", ["runtime.device=cpu", "runtime.cuda_graphs=false"])


def random_model(preset: str) -> QwenVLA:
    torch.manual_seed(0)
    contract = tabletop_contract()
    model = build(preset, contract, channel_bounds_codec(contract))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def observed(n: int, seed: int = 0) -> Observations:
    random = np.random.default_rng(seed)
    cameras = ("ego", "cam_right_wrist")
    images = {name: random.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for name in cameras}
    return Observations(images, ["put the spoon on the towel"] * n)
