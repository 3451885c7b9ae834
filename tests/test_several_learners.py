"""Two PPO learners take the steps of one (gloo, real processes), the model divided or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_model import rollout
from tiny_model import make_model, move_adapters, observed
from torch.distributed.tensor import DTensor
from two_processes import together

from actors.segment import joined
from learners.ppo import PPOLearner
from learners.sharding import gathered_state, shard
from learners.shares import Peers
from vlarl.config.schema import (
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    PPOConfig,
    SamplingConfig,
)
from vlarl.model.checkpoint import load
from vlarl.policy import Policy
from vlarl.training_state import read_state, write_state

SAMPLING = SamplingConfig(denoising_steps=4, execute_steps=5)
PLAIN = ModelConfig()
LORA = ModelConfig(lora=LoraConfig(rank=2, alpha=4, targets=("language_model.*.q_proj",)))
RATES = {
    "expert": {"expert": 1e-3, "value": 1e-2},
    "biases": {"expert_biases": 1e-3, "value": 1e-2},
    "all": {"vision": 1e-3, "language": 1e-3, "expert": 1e-3, "value": 1e-2},
    "lora": {"lora": 1e-3, "expert": 1e-3, "value": 1e-2},
}


@dataclass(frozen=True)
class Job:
    """Some updates of PPO."""

    rates: str
    full: bool = False
    model: ModelConfig = PLAIN
    minibatch: int = 5
    micro_batch: int = 2
    target_kl: float = 0.0
    preset: str = "tiny"
    updates: int = 1
    stale: bool = False
    """Whether the batch is of two versions of the weights, neither of which learns."""
    start: str = ""
    """Folder of `keep` to go on from."""
    keep: str = ""
    """Folder to leave weights and training state in."""

    @property
    def ppo(self) -> PPOConfig:
        return PPOConfig(
            epochs=2,
            minibatch=self.minibatch,
            micro_batch=self.micro_batch,
            target_kl=self.target_kl,
            value_warmup_iterations=0,
            optimizer=OptimizerConfig(learning_rates=RATES[self.rates]),
        )


def decisions(model: Any, keep: str) -> Any:
    """A batch of 12 decisions."""
    generator = torch.Generator().manual_seed(3)
    see = lambda streams, time: replace(  # noqa: E731
        observed(streams, seed=time), elapsed=np.full(streams, time / 8, np.float32)
    )
    return rollout(Policy(model, SAMPLING), 3, 4, generator, keep, observe=see)


def segments(job: Job, keep: str) -> Any:
    """What a rollout that goes on handed over: 12 decisions of an older version, 12 of a newer."""
    found = []
    for version, moved in enumerate((0.02, 0.01)):
        model = make_model(job.preset, job.model)
        generator = torch.Generator().manual_seed(version)
        with torch.no_grad():
            for weight in (*model.expert.parameters(), *model.value_head.parameters()):
                weight.add_(moved * torch.randn(weight.shape, generator=generator))
        found.append(decisions(model, keep))
        found[-1]["version"] += version
    return joined(found)


def learn(_rank: int, job: Job) -> dict[str, Any]:
    """Metrics of each update and the weights after them."""
    torch.set_num_threads(1)
    model = make_model(job.preset, job.model)
    if job.model.lora.rank:
        move_adapters(model)
    trains_backbone = job.rates in ("all", "lora")
    keep = "inputs" if trains_backbone else "context"
    batch = segments(job, keep) if job.stale else decisions(model, keep)
    if job.start:
        model = load(job.start)
    if job.full and Peers.joined().world > 1:
        shard(model)
    learner = PPOLearner(model, job.ppo, SAMPLING, 10, seed=0)
    if job.start:
        learner.load_state_dict(read_state(Path(job.start)))
    # The older half is a version behind at the first update, and over age at the second.
    learner.version += job.stale
    staleness = 1 if job.stale else None
    metrics = [learner.update(batch, max_staleness=staleness) for _ in range(job.updates)]
    tensors, state = gathered_state(model), learner.state_dict()
    if job.keep and Peers.joined().leads:
        model.save_pretrained(job.keep, state=tensors)
        write_state(state, Path(job.keep))
    parts = sum(isinstance(p, DTensor) for p in model.parameters())
    weights = {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    return {"metrics": metrics, "weights": weights, "parts": parts}


def compare(one: dict[str, Any], two: list[dict[str, Any]], job: Job, tight: float) -> None:
    """Metrics to a relative 1e-4, weights on average to `tight`; a step is about 1e-3."""
    for first, second, same in zip(
        one["metrics"], two[0]["metrics"], two[1]["metrics"], strict=True
    ):
        assert second == same
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)
    moved = 0
    before = gathered_state(make_model(job.preset, job.model))
    for name, weight in one["weights"].items():
        gap = np.abs(two[0]["weights"][name] - weight)
        moved += bool((weight != before[name].numpy()).any())
        assert gap.mean() < tight, name
    assert moved > 1
    assert (two[0]["parts"] > 0) == job.full


JOBS = {
    "expert": Job("expert"),
    "expert, divided": Job("expert", full=True, preset="tiny-pooled"),
    "biases, divided": Job("biases", full=True),
    "all": Job("all"),
    "all, divided, checkpointed": Job(
        "all", full=True, model=ModelConfig(checkpoint_activations=True)
    ),
    "lora, divided": Job("lora", full=True, model=LORA),
}


LOW = Job("expert", full=True, model=ModelConfig(dtype="bfloat16"), minibatch=6)
STOPPED = {"one": Job("all", target_kl=1e-3, updates=2)}
STOPPED["divided"] = replace(STOPPED["one"], full=True)


STALE = {
    "expert": Job("expert", stale=True, updates=2),
    "all, divided": Job("all", full=True, stale=True, updates=2),
}


def learn_each(rank: int, jobs: list[Job]) -> list[dict[str, Any]]:
    return [learn(rank, job) for job in jobs]


@pytest.fixture(scope="module")
def found() -> dict[Job, list[dict[str, Any]]]:
    """Job -> what two processes made of it; starting processes takes longer than all else."""
    jobs = [*JOBS.values(), LOW, *STOPPED.values(), *STALE.values()]
    both = together(learn_each, jobs)
    return {job: [first, second] for job, first, second in zip(jobs, *both, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_two_learners_take_the_steps_of_one(found, job):
    """Minibatches of 5 and 2 rows, in twos: the second process runs out of rows."""
    compare(learn(0, job), found[job], job, tight=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("job", STALE.values(), ids=STALE)
def test_two_learners_learn_as_one_from_segments_of_other_weights(found, job):
    """`rollout.mode: async`: the same rows are over age, with the same weights and clip ranges."""
    one = learn(0, job)
    first, second = one["metrics"]
    assert (first["dropped_over_age"], second["dropped_over_age"]) == (0, 12)
    assert first["batch_age_mean"] == 0.5
    assert first["behavior_kl"] > 1e-4
    compare(one, found[job], job, tight=1e-6)


@pytest.mark.slow
def test_two_learners_with_bfloat16_weights_step_float32_masters_of_their_parts(found):
    one, two = learn(0, LOW), found[LOW]
    assert two[0]["metrics"] == two[1]["metrics"]
    for name in ("policy_loss", "value_loss", "approximate_kl", "grad_norm/expert"):
        assert two[0]["metrics"][0][name] == pytest.approx(one["metrics"][0][name], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("job", STOPPED.values(), ids=STOPPED)
def test_the_kl_of_all_rows_stops_all_learners_at_the_same_minibatch(found, job):
    one = learn(0, job)
    assert any(row["epochs_run"] < 2 for row in one["metrics"])
    assert [row["epochs_run"] for row in found[job][1]["metrics"]] == [
        row["epochs_run"] for row in one["metrics"]
    ]
    compare(one, found[job], job, tight=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["whole", "divided"])
def test_what_two_learners_saved_one_goes_on_from_and_the_other_way(tmp_path, full):
    job = Job("all", full=full)
    whole = learn(0, replace(job, updates=2))
    kept = {name: str(tmp_path / name) for name in ("one", "two")}
    learn(0, replace(job, keep=kept["one"]))
    _, continued = zip(
        *together(learn_each, [replace(job, keep=kept["two"]), replace(job, start=kept["one"])]),
        strict=True,
    )
    alone = learn(0, replace(job, start=kept["two"]))
    for name, weight in whole["weights"].items():
        for resumed in (alone, continued[0]):
            assert np.abs(resumed["weights"][name] - weight).mean() < 1e-5, name
    for resumed in (alone, continued[0]):
        assert resumed["metrics"][0] == pytest.approx(whole["metrics"][1], rel=1e-3, abs=1e-5)
