"""The schema of every config file: frozen dataclasses, no arithmetic, no defaults that do nothing.

YAML files under `configs/` are data for these classes; `vlarl.config.load` reads, checks and
freezes them. Letters as in the documentation of the mathematics: `S` denoising steps, `H` horizon,
`K` padded action channels, `T` decisions of a stream in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EnvConfig:
    """Where episodes come from."""

    suite: str = "tabletop"
    """`tabletop`, `counting`, or `gym:ID` for any Gymnasium environment with images."""
    tasks: tuple[str, ...] = ()
    """Task names; empty means every task of the suite."""
    servers: int = 2
    """Env server processes on each node."""
    envs_per_server: int = 16
    mode: str = "spawn"
    """`spawn` (child processes), `connect` (addresses below) or `inprocess` (debugging)."""
    addresses: tuple[str, ...] = ()
    """`tcp://HOST:PORT` of running servers, for `mode: connect`."""
    deadline_seconds: float = 60.0
    """A server that does not answer for this long is restarted."""
    restarts: int = 3
    """How often one server may be restarted within a run before the run gives up."""
    image_size: int = 64
    max_steps: int = 0
    """Control steps of an episode; 0 means the suite's own limit."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the suite's constructor."""


@dataclass(frozen=True)
class ExplorationConfig:
    """How the sampler becomes a stochastic policy with a density (paper section 4.2)."""

    kind: str = "flow_sde"
    """`flow_sde`, `flow_cps` or `flow_noise`."""
    noise_level: float = 0.5
    """`a` of `sigma(tau) = a * sqrt(tau / (1 - tau))`."""
    noise_at: str = "one"
    """`one`: a single stochastic step per sample; `all`: every step (the paper's)."""
    logprob_at: str = "one"
    """`one` or `all`; `all` needs `noise_at: all`."""
    logprob_steps: str = "chunk"
    """`chunk` or `executed`: only the steps that are carried out. The others reach the simulator
    by nothing but later denoising, so that they bring more variance than signal."""
    correlation: float = 0.0
    """Of the exploration noise of neighboring control steps, in [0, 1). The noise of a single step
    hardly moves the hand; noise that persists over a chunk tries something."""
    logprob_reduction: str = "sum"
    """`sum` (chunk density) or `mean` (tempered)."""
    first_step: int = 0
    """Smallest denoising index that may be stochastic."""
    last_step: int = -1
    """Largest such index; -1 means `S - 1`."""
    std_low: float = 0.05
    """`flow_noise` only: lower bound of the learned standard deviation."""
    std_high: float = 0.5
    """`flow_noise` only: upper bound."""


@dataclass(frozen=True)
class SamplingConfig:
    """Denoising and execution."""

    denoising_steps: int = 4
    execute_steps: int = 8
    """`H_exec`: control steps executed of each chunk before the next observation."""
    rollout_temperature: float = 1.0
    """Of the exploration noise, and of the noise that denoising starts from."""
    rollout_start_temperature: float | None = None
    """Of the latter alone. It decides as much about an action as the exploration noise does, but is
    scored by nothing: lower, it leaves less of a return to chance."""
    eval_temperature: float = 0.6
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a learning rate for each named part; rates decay by a cosine."""

    learning_rates: dict[str, float] = field(default_factory=dict)
    """part -> peak rate; parts are `vision`, `language`, `expert`, `value`; absent means frozen.

    `expert_biases`, what the last layers of the expert add to every chunk whatever they see, is
    trained with `expert` or, given a rate of its own, without it. A few episodes say much about
    these few numbers, and next to nothing about a million weights (`vlarl bench gradient`)."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup_steps: int = 0
    final_fraction: float = 0.1
    """Rate at the end of the cosine, as a fraction of the peak."""
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class RewardConfig:
    """`sparse_success`, or `package.module:callable` with typed parameters."""

    name: str = "sparse_success"
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PPOConfig:
    """PPO with GAE on action chunks (paper section 4.2, eq. 6 and 7)."""

    iterations: int = 100
    decisions_per_stream: int = 16
    """`T`: decisions that every environment gives to a batch."""
    epochs: int = 4
    minibatch: int = 256
    micro_batch: int = 256
    drop_last: bool = False
    """Whether the last short minibatch of an epoch is dropped."""
    clip_epsilon: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 1.0
    gamma: float = 0.99
    gae_lambda: float = 0.95
    bootstrap_time_limit: bool = False
    normalize_advantages: bool = True
    target_kl: float = 0.05
    """An epoch ends early when approximate KL passes this; 0 switches it off."""
    value_warmup_iterations: int = 1
    """First iterations that train the value head alone."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rates={"expert": 1e-5, "value": 1e-3})
    )


@dataclass(frozen=True)
class RolloutConfig:
    """Who acts, on what."""

    workers: int = 1
    threads: int = 1
    """Torch threads while acting."""


@dataclass(frozen=True)
class EvalConfig:
    """Deterministic evaluation: fixed initial states, fixed noise, fixed slots."""

    episodes: int = 256
    """In all, spread evenly over the tasks."""
    seed: int = 1_000_000
    """First seed of the held-out initial states; training draws below it."""
    every: int = 0
    """Iterations between evaluations while training; 0: only before and after."""
    videos: int = 4


@dataclass(frozen=True)
class FlowConfig:
    """Flow-matching loss of a supervised stage (paper section 2.5)."""

    tau_distribution: str = "beta"
    """`beta` or `logit_normal`."""
    alpha: float = 1.0
    beta: float = 1.5
    repeats: int = 4
    """Draws of `(tau, y1)` for each backbone forward."""


@dataclass(frozen=True)
class DataConfig:
    """Supervised data: a LeRobot dataset and, beside it, grounding samples."""

    path: str = ""
    """Dataset folder; empty means: collect it first, as `collect` says."""
    grounding_images: int = 0
    """Rendered scenes with "where is the ..." labels, made before training from the suite."""
    objects_per_answer: int = 1
    """Objects that one grounding answer places."""
    conversations: str = ""
    """File of vision-language samples (`docs/vision_language.md`); empty: none."""
    conversation_tokens: int = 1024
    """Longest conversation, its images included; a longer one is an error before training."""
    image_tokens: int = 256
    """Of one image of a conversation, at most: bigger ones are scaled down."""


@dataclass(frozen=True)
class CollectConfig:
    """Demonstrations by the scripted expert."""

    episodes: int = 400
    waypoint_noise: float = 0.0
    """Standard deviation in meters of the persistent offset of each grasp and place attempt."""
    action_noise: float = 0.0
    clumsy_steps: int = 0
    """Half of the episodes begin with up to so many control steps of clumsy work, not recorded, so
    that the demonstrations show how to recover from mishaps."""
    slowest_pace: float = 1.0
    """Demonstrators take their time: each episode's speed is drawn between this share of the arm's
    and all of it."""
    max_steps: int = 0
    """Control steps that an episode may take; 0 means the suite's own limit."""
    keep_failures: bool = False
    seed: int = 0


@dataclass(frozen=True)
class LocalizationConfig:
    """Teaching random vision weights to see, before the stage proper; needs grounding scenes.

    A pretrained backbone needs none of it.
    """

    steps: int = 0
    """0 skips it."""
    batch_size: int = 32
    learning_rate: float = 2e-3
    binding_steps: int = 0
    """Then, teaching random language weights to bind the names in the instructions to places."""
    binding_batch_size: int = 64
    binding_learning_rate: float = 1e-3


@dataclass(frozen=True)
class SupervisedConfig:
    """One row of the stage table: which parts train, with which losses, for how long."""

    steps: int = 10_000
    batch_size: int = 64
    grounding_batch_size: int = 0
    conversation_batch_size: int = 0
    """Samples of `data.conversations` in each step."""
    expert_only_steps: int = 0
    """First steps, in which the action expert learns alone: gradients through a random expert would
    wash out of the backbone what it has learned about scenes and words."""
    action_weight: float = 1.0
    vision_language_weight: float = 0.1
    flow: FlowConfig = field(default_factory=FlowConfig)
    data: DataConfig = field(default_factory=DataConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    localization: LocalizationConfig = field(default_factory=LocalizationConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rates={"vision": 1e-3, "language": 1e-3, "expert": 1e-3}, warmup_steps=200
        )
    )
    context_gigabytes: float = 8.0
    """A backbone that does not train sees each frame once, before the first step, if what it says
    of all of them takes no more memory than this; else anew in every step."""
    log_every: int = 50
    save_every: int = 1000
    eval_every: int = 0


@dataclass(frozen=True)
class InitConfig:
    """Two whole checkpoints to combine (paper Fig. 7b); both or neither."""

    backbone: str = ""
    """Whose backbone, tokenizer and image settings are taken."""
    expert: str = ""
    """Whose action expert, value head, contract and action statistics are taken."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and where its weights start."""

    preset: str = "tiny"
    checkpoint: str = ""
    """Folder or `tabletop-sft`; empty means random weights of the preset."""
    backbone: str = ""
    """Folder, or name on the hub, of a Qwen3.5 in transformers' format: the backbone's weights,
    tokenizer and image settings. Only the rest is random then."""
    init: InitConfig = field(default_factory=InitConfig)


@dataclass(frozen=True)
class RuntimeConfig:
    """Processes of the run."""

    kind: str = "ray"
    """`ray` or `inprocess` (the same classes without Ray, for debugging)."""
    address: str = "local"
    """Ray address; `local` starts a private instance."""
    threads: int = 2
    """Torch threads of the process that learns."""
    object_store_mb: int = 100


@dataclass(frozen=True)
class LoggingConfig:
    """Beyond `metrics.jsonl`, which is always written."""

    wandb: bool = False
    tensorboard: bool = False
    project: str = "vlarl"


@dataclass(frozen=True)
class RunConfig:
    """A whole run, resolved: what the run folder's `config.yaml` holds."""

    stage: str = "rl"
    """`rl` or `sft`."""
    name: str = ""
    """Folder name under `output`; empty means stage, suite and date."""
    output: str = "runs"
    seed: int = 0
    resume: str = "never"
    """`never` or `auto`."""
    checkpoint_every: int = 10
    keep_checkpoints: int = 2
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
