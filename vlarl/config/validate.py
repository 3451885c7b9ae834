"""What the values of a config mean together: every rule a generator of problems.

A rule yields `(key, problem, remedy)`; the first problem found becomes one `ConfigError` with the
key's value and where it was set. Rules look at the config alone: what needs a simulator, a
checkpoint or the machine (task names, horizon, memory) is checked where that is known.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping

from vlarl.config.checks import (
    above_zero,
    at_least,
    choice,
    fraction,
    sections_without_effect,
    value_at,
    without_effect,
)
from vlarl.config.cluster_rules import cluster_rules
from vlarl.config.conversation_rules import conversation_rules
from vlarl.config.dataset_rules import dataset_rules
from vlarl.config.learner_rules import learner_rules
from vlarl.config.logging_rules import logging_rules
from vlarl.config.lora_rules import lora_rules
from vlarl.config.mixture_rules import mixture_rules
from vlarl.config.presets import preset_path
from vlarl.config.problem import Problem
from vlarl.config.rollout_rules import rollout_rules
from vlarl.config.sampling_rules import exploration_rules, sampling_rules
from vlarl.config.schema import OptimizerConfig, RunConfig
from vlarl.config.stage_rules import stage_rules
from vlarl.config.suite_rules import suite_rules
from vlarl.contract import STATE_MODES
from vlarl.errors import ConfigError
from vlarl.stages import SUPERVISED

_BACKBONE = {"vision", "language", "lora"}
_UNUSED = {
    "rl": ("supervised",),
    "t2a": (
        *("reward", "ppo", "rollout", "env", "sampling", "evaluation"),
        *("supervised.collect", "supervised.localization"),
    ),
    "cpt": ("reward", "ppo", "rollout"),
    "sft": ("reward", "ppo", "rollout"),
    "eval": ("reward", "ppo", "rollout", "supervised"),
}
"""Stage -> sections of the config that do nothing there."""

PARTS = ("vision", "language", "expert", "expert_biases", "value", "lora")


def validate(
    config: RunConfig, origin: Mapping[str, str] | None = None, default_origin: str = "config"
) -> None:
    """Refuse a config that cannot be run or that holds a setting without effect.

    Args:
        config: what to check.
        origin: dotted key -> the file or command line it came from, for the message.
        default_origin: named for keys that `origin` does not hold.

    Raises:
        ConfigError: naming the source, key, value and remedy of the first problem.
    """
    for rule in RULES:
        for key, problem, remedy in rule(config):
            source = _source(origin or {}, key, default_origin)
            value = value_at(config, key)
            raise ConfigError(f"{source}: {key} = {value!r}: {problem}. {remedy}")


def check_execute_steps(config: RunConfig, horizon: int, checkpoint: str) -> None:
    """Refuse to execute more of a chunk than the checkpoint's model predicts.

    Raises:
        ConfigError: if `sampling.execute_steps` is above `horizon` (`H_task` of the contract).
    """
    steps = config.sampling.execute_steps
    if steps > horizon:
        raise ConfigError(
            f"sampling.execute_steps = {steps}: checkpoint {checkpoint} predicts {horizon} steps. "
            f"Use sampling.execute_steps={horizon} or less."
        )


def _source(origin: Mapping[str, str], key: str, default: str) -> str:
    """Where the key, or the free mapping that holds it, was set."""
    while key and key not in origin:
        key = key.rpartition(".")[0]
    return origin.get(key, default)


def _run(config: RunConfig) -> Iterator[Problem]:
    yield from choice(config, "stage", tuple(_UNUSED))
    yield from choice(config, "resume", ("never", "auto"))
    yield from at_least(config, 0, ["seed"])
    yield from at_least(config, 1, ["checkpoint_every", "keep_checkpoints"])
    yield from _kept(config)
    init = ["model.init.backbone", "model.init.expert"]
    history = ["model.history", "model.history_hz"]
    if config.model.checkpoint:
        unused = ["model.preset", "model.backbone", "model.state", *init, *history]
        yield from without_effect(config, unused, "model.checkpoint")
    if config.model.init.expert and not config.model.init.backbone:
        remedy = f"Name a checkpoint: {init[0]}=..."
        yield Problem(init[0], "is missing beside model.init.expert", remedy)
    of_data = config.model.init.contract == "data"
    if config.model.init.backbone:
        unused = ["model.backbone", *([] if of_data else history)]
        yield from without_effect(config, unused, "model.init")
    if config.model.init.expert:
        yield from without_effect(config, ["model.preset"], "model.init.expert")
    yield from _history(config)
    yield from choice(config, "model.init.contract", ("checkpoint", "data"))
    yield from choice(config, "model.state", STATE_MODES)
    if config.model.init.backbone and not of_data:
        yield from without_effect(config, ["model.state"], "model.init, which decides it")
    if config.stage not in ("cpt", "sft"):
        reason = f"stage={config.stage}: the checkpoint, made by `vlarl sft`, decides it"
        yield from without_effect(config, ["model.state"], reason)
    try:
        preset_path(config.model.preset)
    except ConfigError as error:
        yield Problem("model.preset", "names no preset", f"{error}.".replace("..", "."))
    if config.name in (".", "..") or "/" in config.name:
        yield Problem("name", "is not a folder name", "Put the path into `output`.")
    if not config.output:
        yield Problem("output", "is empty", "Name a folder, such as output=runs.")
    if config.resume == "auto" and not config.name:
        yield Problem("resume", "needs a run to continue", "Name it: name=NAME.")
    yield from choice(config, "model.dtype", ("auto", "float32", "bfloat16"))
    yield from choice(config, "model.attention", ("sdpa", "eager", "flash_attention_2"))
    if config.model.attention == "flash_attention_2" and config.model.dtype != "bfloat16":
        yield Problem("model.attention", "computes in bfloat16 alone", "Add model.dtype=bfloat16.")
    yield from _held_out(config)
    for section in _UNUSED.get(config.stage, ()):
        yield from sections_without_effect(config, section, f"stage={config.stage}")


def _kept(config: RunConfig) -> Iterator[Problem]:
    """Only steps that are saved can be kept."""
    key, of_rl = "keep_checkpoints_every", config.stage == "rl"
    yield from at_least(config, 0, [key])
    every = config.checkpoint_every if of_rl else config.supervised.save_every
    if config.keep_checkpoints_every % every:
        saved = "checkpoint_every" if of_rl else "supervised.save_every"
        yield Problem(key, f"is no multiple of {saved}={every}", f"Try {key}={every}.")


def _history(config: RunConfig) -> Iterator[Problem]:
    """Past frames: a video's patches hold two of them."""
    yield from at_least(config, 0, ["model.history"])
    yield from above_zero(config, ["model.history_hz"])
    frames = config.model.history
    if frames % 2:
        yield Problem("model.history", "is odd: frames go in pairs", f"Use {frames + 1}.")
    if not frames:
        yield from without_effect(config, ["model.history_hz"], "model.history=0")


def _held_out(config: RunConfig) -> Iterator[Problem]:
    """Initial states of training are numbered from `seed` on, held-out ones from another."""
    default = RunConfig().evaluation.seed
    if config.evaluation.seed != default and config.seed >= config.evaluation.seed:
        problem = f"is among the initial states of training, which start at {config.seed}"
        yield Problem("evaluation.seed", problem, f"Use {default} or more.")
    elif config.seed >= config.evaluation.seed:
        problem = f"reaches the held-out initial states, which start at {config.evaluation.seed}"
        yield Problem("seed", problem, "Use a smaller seed.")


def _env(config: RunConfig) -> Iterator[Problem]:
    yield from choice(config, "env.mode", ("spawn", "connect", "inprocess"))
    yield from at_least(config, 0, ["env.restarts"])
    yield from above_zero(config, ["env.deadline_seconds"])
    if config.env.mode != "connect":
        yield from without_effect(config, ["env.key_file"], f"env.mode={config.env.mode}")
    if config.stage in SUPERVISED:
        yield from without_effect(config, ["env.embodiment"], f"stage={config.stage}")
    if config.env.mode == "inprocess" and config.runtime.kind == "ray" and config.stage == "rl":
        yield Problem(
            "env.mode",
            "shares a process with the policy, which with runtime.kind=ray is an actor's",
            "Use runtime.kind=inprocess, or env.mode=spawn.",
        )


def _optimizer(config: RunConfig, prefix: str) -> Iterator[Problem]:
    optimizer: OptimizerConfig = value_at(config, prefix)
    if not optimizer.learning_rates:
        yield Problem(f"{prefix}.learning_rates", "trains nothing", "Try {expert: 1e-5}.")
    for part, rate in optimizer.learning_rates.items():
        key = f"{prefix}.learning_rates.{part}"
        if part not in PARTS:
            close = difflib.get_close_matches(part, PARTS, n=1) or [", ".join(PARTS)]
            yield Problem(key, "no such part of the model", f"Did you mean {close[0]}?")
        if not rate > 0:
            yield Problem(key, "must be above zero", "Leave the part out to freeze it.")
    if not all(0 <= beta < 1 for beta in optimizer.betas):
        yield Problem(f"{prefix}.betas", "must lie in [0, 1)", "The default is [0.9, 0.95].")
    yield from at_least(config, 0, [f"{prefix}.weight_decay", f"{prefix}.warmup_steps"])
    yield from fraction(config, [f"{prefix}.final_fraction"])
    yield from above_zero(config, [f"{prefix}.max_grad_norm"])


def _ppo(config: RunConfig) -> Iterator[Problem]:
    counts = ("iterations", "decisions_per_stream", "epochs", "minibatch", "micro_batch")
    yield from at_least(config, 1, [f"ppo.{key}" for key in counts])
    yield from above_zero(config, ["ppo.clip_epsilon", "ppo.value_clip", "ppo.gamma"])
    yield from fraction(config, ["ppo.gamma", "ppo.gae_lambda"])
    nonnegative = ("value_coefficient", "target_kl", "value_warmup_iterations")
    yield from at_least(config, 0, [f"ppo.{key}" for key in nonnegative])
    ppo = config.ppo
    if ppo.minibatch % ppo.micro_batch:
        yield Problem(
            "ppo.minibatch",
            f"is not a multiple of ppo.micro_batch={ppo.micro_batch}",
            f"Use ppo.micro_batch={ppo.minibatch}, or another divisor.",
        )
    if config.env.mode != "connect":
        decisions = config.decisions_per_iteration
        if config.stage == "rl" and ppo.minibatch > decisions:
            yield Problem(
                "ppo.minibatch",
                f"is more than the {decisions} decisions of a batch",
                f"Use {decisions} or less, or more environments or decisions of each.",
            )
    yield from _optimizer(config, "ppo.optimizer")


def _supervised(config: RunConfig) -> Iterator[Problem]:
    prefix = "supervised"
    yield from choice(config, f"{prefix}.flow.tau_distribution", ("beta", "logit_normal"))
    counts = ("steps", "batch_size", "flow.repeats", "log_every", "save_every", "collect.episodes")
    yield from at_least(config, 1, [f"{prefix}.{key}" for key in counts])
    nonnegative = (
        "grounding_batch_size",
        "expert_only_steps",
        "action_weight",
        "vision_language_weight",
        "eval_every",
        "data.grounding_images",
        "data.workers",
        "collect.waypoint_noise",
        "collect.action_noise",
        "collect.clumsy_steps",
        "collect.max_steps",
        "collect.seed",
    )
    yield from at_least(config, 0, [f"{prefix}.{key}" for key in nonnegative])
    positive = ("flow.alpha", "flow.beta", "collect.slowest_pace", "data.memory_gigabytes")
    yield from above_zero(config, [f"{prefix}.{key}" for key in positive])
    yield from fraction(config, [f"{prefix}.collect.slowest_pace", f"{prefix}.data.skip_limit"])
    stage = config.supervised
    if stage.flow.tau_distribution == "logit_normal":
        keys = [f"{prefix}.flow.alpha", f"{prefix}.flow.beta"]
        yield from without_effect(config, keys, "tau_distribution=logit_normal")
    if stage.data.path:
        yield from sections_without_effect(config, f"{prefix}.collect", "supervised.data.path set")
    yield from _hands(config)
    if stage.grounding_batch_size and not stage.data.grounding_images:
        key = f"{prefix}.data.grounding_images"
        yield Problem(key, "is needed by grounding_batch_size", f"Try {key}=20000.")
    if stage.data.grounding_images and not (stage.grounding_batch_size or stage.localization.steps):
        key = f"{prefix}.grounding_batch_size"
        yield Problem(key, "leaves data.grounding_images without effect", f"Try {key}=64.")
    if stage.expert_only_steps >= stage.steps and config.stage in SUPERVISED:
        remedy = "Use fewer, or leave vision and language out of optimizer.learning_rates."
        yield Problem(f"{prefix}.expert_only_steps", "is not below steps", remedy)
    if stage.expert_only_steps and not _BACKBONE & stage.optimizer.learning_rates.keys():
        yield Problem(
            f"{prefix}.expert_only_steps",
            "has no effect: the backbone has no learning rate anyway",
            "Remove it, or give optimizer.learning_rates for vision or language.",
        )
    if stage.optimizer.warmup_steps >= stage.steps and config.stage in SUPERVISED:
        yield Problem(f"{prefix}.optimizer.warmup_steps", "is not below steps", "Shorten it.")
    yield from _optimizer(config, f"{prefix}.optimizer")


def _hands(config: RunConfig) -> Iterator[Problem]:
    """Recorded hands: nothing simulates them."""
    stage = config.supervised
    if not stage.data.eigengrasps:
        return
    if not stage.data.path:
        key = "supervised.data.eigengrasps"
        yield Problem(key, "needs recorded hands", "Name them: supervised.data.path=DATASET.")
    yield from without_effect(config, ["model.state"], "supervised.data.eigengrasps")
    for key in ("supervised.eval_every", "supervised.data.grounding_images"):
        if value_at(config, key):
            yield Problem(key, "needs a suite, and none has human hands", f"Set {key}=0.")


def _rest(config: RunConfig) -> Iterator[Problem]:
    if config.reward.name == "sparse_success":
        yield from without_effect(config, ["reward.parameters"], "reward.name=sparse_success")
    elif ":" not in config.reward.name:
        remedy = "Use sparse_success, or package.module:callable for your own."
        yield Problem("reward.name", "no such reward function", remedy)
    yield from at_least(config, 1, ["evaluation.episodes"])
    yield from at_least(config, 0, ["evaluation.every", "evaluation.videos", "evaluation.seed"])
    yield from choice(config, "runtime.kind", ("ray", "inprocess"))
    yield from _device(config)
    yield from at_least(config, 1, ["runtime.threads"])
    yield from at_least(config, 0, ["runtime.restarts"])
    yield from at_least(config, 80, ["runtime.object_store_mb"])
    if config.runtime.kind == "inprocess":
        keys = ["runtime.object_store_mb", "rollout.workers", "rollout.threads"]
        keys += ["runtime.restarts"]
        yield from without_effect(config, keys, "runtime.kind=inprocess")


def _device(config: RunConfig) -> Iterator[Problem]:
    kind, colon, number = config.runtime.device.partition(":")
    if colon and (kind != "cuda" or not number.isdigit()):
        yield Problem("runtime.device", "no such device", "Try runtime.device=cuda:0.")
    elif not colon:
        yield from choice(config, "runtime.device", ("auto", "cpu", "cuda"))
    elif config.runtime.kind == "ray" and config.stage == "rl":
        remedy = "Use runtime.device=cuda, or runtime.kind=inprocess."
        yield Problem("runtime.device", "is Ray's to choose with runtime.kind=ray", remedy)
    if kind == "cpu":
        yield from without_effect(config, ["runtime.cuda_graphs"], "runtime.device=cpu")


RULES: tuple[Callable[[RunConfig], Iterator[Problem]], ...] = (
    _run,
    lora_rules,
    _env,
    suite_rules,
    sampling_rules,
    exploration_rules,
    rollout_rules,
    cluster_rules,
    _ppo,
    _supervised,
    stage_rules,
    conversation_rules,
    mixture_rules,
    dataset_rules,
    logging_rules,
    learner_rules,
    _rest,
)
