"""The computed memory of a training step is what real tensors take."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_model import make_model
from torch.profiler import ProfilerActivity, profile

from actors import cli
from learners.memory import JOBS, Storages, footprint
from vlarl.config.schema import LoraConfig, ModelConfig

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
    for wrong, message in (
        ("dtype=float16", "no such choice"),
        ("job=ppo", "no such choice"),
        ("batch=0", "at least 1"),
        ("steps=2", "no such setting"),
    ):
        assert cli.run(["info", "memory", "tiny", wrong]) == 2
        assert message in capsys.readouterr().err
