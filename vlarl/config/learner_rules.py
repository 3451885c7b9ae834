"""Rules of the processes that learn: how many, and what they divide among themselves."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.config.checks import at_least, choice, without_effect
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig
from vlarl.stages import SUPERVISED

SHARDS, OFFLOADS = ("none", "full"), ("none", "optimizer")
_SHARD, _OFFLOAD, _LEARNERS = "runtime.shard", "runtime.offload", "runtime.learners"


def learner_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of `runtime.learners`, `runtime.shard` and `runtime.offload`."""
    yield from choice(config, _SHARD, SHARDS)
    yield from choice(config, _OFFLOAD, OFFLOADS)
    yield from at_least(config, 1, [_LEARNERS])
    runtime = config.runtime
    if config.stage == "eval":
        keys = [_LEARNERS, _SHARD, _OFFLOAD]
        yield from without_effect(config, keys, "stage=eval")
    if config.stage in SUPERVISED:
        reason = f"stage={config.stage}, whose processes torchrun starts"
        yield from without_effect(config, [_LEARNERS], reason)
    if runtime.kind == "inprocess":
        yield from without_effect(config, [_LEARNERS], "runtime.kind=inprocess")
    if config.stage == "rl" and runtime.learners == 1:
        yield from without_effect(config, [_SHARD], "runtime.learners=1")
    if config.stage == "rl" and runtime.learners > config.ppo.minibatch:
        yield Problem(
            _LEARNERS,
            f"leaves some without a row of ppo.minibatch={config.ppo.minibatch}",
            f"Use {config.ppo.minibatch} or fewer, or a larger minibatch.",
        )
    gpus = config.cluster.learner.gpus
    if runtime.learners > 1 and gpus is not None and 0 < gpus <= 0.5:
        yield Problem(
            "cluster.learner.gpus",
            f"lets two of {_LEARNERS}={runtime.learners} share a GPU, and each needs its own",
            "Use more than 0.5, or null.",
        )
    if runtime.device == "cpu":
        yield from without_effect(config, [_OFFLOAD], "runtime.device=cpu")
    if runtime.shard == "full":
        yield from _divided(config)


def _divided(config: RunConfig) -> Iterator[Problem]:
    """What a divided model cannot do: all of its processes must run the same layers in turn."""
    if config.model.compile:
        remedy = f"Set model.compile=false or {_SHARD}=none."
        yield Problem("model.compile", f"needs whole layers, {_SHARD}=full has none", remedy)
    if config.stage not in SUPERVISED:
        return
    stage = config.supervised
    for key, given in (
        ("supervised.data.mixture", bool(stage.data.mixture)),
        ("supervised.conversation_batch_size", stage.conversation_batch_size > 0),
    ):
        if given:
            problem = "may give one process pictures and another none, which a divided model cannot"
            yield Problem(key, problem, f"Use {_SHARD}=none.")
    if stage.eval_every:
        yield Problem(
            "supervised.eval_every",
            f"asks the first process for what {_SHARD}=full divides among all",
            "Set supervised.eval_every=0, and evaluate the checkpoints: vlarl eval CHECKPOINT.",
        )
