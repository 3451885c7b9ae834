"""The computed memory of a training step is what real tensors take."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
import torch
from tiny_model import make_model
from torch.profiler import ProfilerActivity, profile
from two_processes import together

from actors import cli
from learners.memory import JOBS, LORA_RANK, Storages, footprint
from learners.optimizer import build_optimizer
from learners.sharding import local, shard
from vlarl.config.schema import LoraConfig, ModelConfig, OptimizerConfig

SMALL = {"batch": 2, "decisions": 8, "image_size": 64}
SETTINGS = {
    "float32": ModelConfig(),
    "bfloat16": ModelConfig(dtype="bfloat16", checkpoint_activations=True),
}


@pytest.mark.parametrize("model", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("job", JOBS)
def test_fake_tensors_take_as_much_as_real_ones(job, model):
    fake, real = (footprint("tiny", job, model, **SMALL, fake=fake) for fake in (True, False))
    for name in ("weights", "masters", "optimizer", "gradients", "handed"):
        assert getattr(fake, name) == getattr(real, name), name
    assert fake.activations == pytest.approx(real.activations, rel=0.01)
    assert fake.peak == pytest.approx(real.peak, rel=0.01)


@pytest.mark.parametrize("job", JOBS)
def test_what_stays_is_counted_from_the_parameters(job):
    lora = LoraConfig(rank=16) if job == "lora" else LoraConfig()
    model = make_model("tiny", ModelConfig(dtype="bfloat16", lora=lora))
    rates = {*JOBS[job], "expert_biases"}
    trained = [p for part, ps in model.parts().items() if part in rates for p in ps]
    numbers = sum(p.numel() for p in trained)
    halves = sum(p.numel() for p in trained if p.dtype == torch.bfloat16)
    found = footprint("tiny", job, SETTINGS["bfloat16"], **SMALL)
    assert found.weights == sum(p.nbytes for p in model.parameters())
    assert found.masters == 4 * halves
    # Two moments in float32, and a count of steps for each tensor.
    assert found.optimizer == 8 * numbers + 4 * len(trained)
    assert 0 < found.gradients <= 4 * numbers - 2 * halves


@pytest.mark.parametrize("model", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("job", ["sft", "rl"])
def test_the_peak_is_near_what_torchs_own_allocator_gave_out(job, model):
    """It gives out a little more: what kernels take for themselves, much for a model so small."""
    found = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        found.append(footprint("tiny", job, model, **SMALL, fake=False))
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    assert 0.98 < most / found[0].peak < 1.3


def test_a_storage_is_counted_once_and_forgotten_with_its_last_tensor():
    with Storages(fake=False) as storages:
        first = torch.zeros(1000)
        view = first.view(10, 100)[2:]
        assert storages.present == 4000
        del first
        assert storages.present == 4000
        del view
        assert storages.present == 0
        assert storages.peak == 4000


def test_the_command_prints_every_job_of_a_preset(capsys):
    words = ["info", "memory", "tiny-pooled", "batch=2", "decisions=8", "--json"]
    assert cli.run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["bytes"]["tiny-pooled"]) == set(JOBS)
    assert found["bytes"]["tiny-pooled"]["sft"]["peak"] > 0
    assert cli.run([*words[:3], "job=rl", "learners=4"]) == 0
    assert "of each of 4 learners" in capsys.readouterr().out
    for wrong, message in (
        ("dtype=float16", "no such choice"),
        ("job=ppo", "no such choice"),
        ("batch=0", "at least 1"),
        ("steps=2", "no such setting"),
        ("learners=0", "at least 1"),
    ):
        assert cli.run(["info", "memory", "tiny", wrong]) == 2
        assert message in capsys.readouterr().err


def held(_rank: int, job: str, dtype: str) -> dict[str, int]:
    """Bytes of the storages that this process has of a divided model, and of what trains it."""
    lora = LoraConfig(rank=LORA_RANK) if job == "lora" else LoraConfig()
    model = make_model("tiny", ModelConfig(dtype=dtype, lora=lora))
    shard(model)
    rates = OptimizerConfig(learning_rates=JOBS[job])
    optimizer, _ = build_optimizer(model.parts(), rates, 1)
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    storages: dict[int, str] = {}
    taken = dict.fromkeys(("weights", "gradients", "masters", "optimizer"), 0)

    def count(name: str, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            storage = local(tensor.detach()).untyped_storage()
            if storage.data_ptr() not in storages:
                storages[storage.data_ptr()] = name
                taken[name] += storage.nbytes()

    count("weights", model.parameters())
    count("gradients", (p.grad for p in trained))
    # That of a divided float32 weight is the part itself.
    count("masters", optimizer.masters)
    states = optimizer.inner.state.values()
    count("optimizer", (value for state in states for value in state.values()))
    return taken


CASES = [("sft", "float32"), ("lora", "bfloat16"), ("rl", "bfloat16")]


def held_each(rank: int) -> list[dict[str, int]]:
    return [held(rank, *case) for case in CASES]


@pytest.mark.soak
def test_two_processes_have_as_much_of_a_divided_model_as_is_computed():
    for case, first, second in zip(CASES, *together(held_each), strict=True):
        job, dtype = case
        found = footprint("tiny", job, ModelConfig(dtype=dtype), **SMALL, learners=2)
        # FSDP pads the weights of the last process to those of the first.
        assert found.weights == first["weights"] == second["weights"]
        for name in ("masters", "optimizer"):
            assert getattr(found, name) == first[name] >= second[name], (case, name)
        # Some weights never get one, and here all have.
        assert 0 < found.gradients <= first["gradients"]
        whole = footprint("tiny", job, ModelConfig(dtype=dtype), **SMALL)
        for name in ("weights", "optimizer", "gradients"):
            assert 0.5 <= getattr(found, name) / getattr(whole, name) < 0.75, (case, name)
        assert whole.gathered == 0 < found.gathered < 2 * whole.weights
        assert found.peak < whole.peak + found.gathered


def test_many_learners_take_what_is_not_divided_and_a_gathered_layer():
    few, many = (
        footprint("tiny", "sft", SETTINGS["bfloat16"], **SMALL, learners=n) for n in (2, 10**6)
    )
    assert few.gathered == many.gathered
    assert few.activations == many.activations
    # The rest of a divided weight is one row.
    assert many.weights < 0.2 * few.weights
    assert many.gathered < many.peak < few.peak
