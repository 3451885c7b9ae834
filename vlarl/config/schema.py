"""The schema of every config file: frozen dataclasses, no arithmetic, no defaults that do nothing.

YAML files under `configs/` are data for these classes; `vlarl.config.load` reads, checks and
freezes them. Letters as in the documentation of the mathematics: `S` denoising steps, `H` horizon,
`K` padded action channels, `T` decisions of a stream in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vlarl.config.cluster_schema import ClusterConfig
from vlarl.config.data_schema import CollectConfig, DataConfig
from vlarl.config.process_schema import EnvConfig, RolloutConfig, RuntimeConfig


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
    """`H_exec`: control steps executed of each chunk before the next observation. Fewer than are
    predicted make a sliding window: the rest of the chunk is predicted anew from what is seen then.
    So are waypoints executed (paper section 5.1.3)."""
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
    """part -> peak rate; parts are `vision`, `language`, `lora` (adapters, if the model has any),
    `expert`, `value`; absent means frozen.

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
    """`T`: decisions that every environment gives to a batch, unless `rollout.epochs` and
    `rollout.control_steps` say it in the paper's words."""
    epochs: int = 4
    minibatch: int = 256
    micro_batch: int = 256
    drop_last: bool = False
    """Whether the last short minibatch of an epoch is dropped."""
    clip_epsilon: float = 0.2
    behavior_weight_cap: float = 2.0
    """For `rollout.mode: async`: upper bound of the weight of a decision, the ratio of the policy
    at the start of the update to the one that made it (`vlarl.ppo.decoupled_surrogate`)."""
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
    micro_batch: int = 0
    """Samples that a process computes at a time, their gradients added up; 0: all of a batch. The
    step is that of the whole batch, in less memory."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights that train, which is written beside the
    last checkpoint; 0: none."""
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
    """Checkpoints to take parts from (paper Fig. 7b): two, or a backbone for a new expert."""

    backbone: str = ""
    """Whose backbone, tokenizer and image settings are taken; without `expert` its contract and
    action statistics too, with a random action expert and value head of `preset`."""
    expert: str = ""
    """Whose action expert, value head, contract and action statistics are taken."""
    contract: str = "checkpoint"
    """`checkpoint`: as above; `data`: of `backbone` and `expert` the weights alone are taken, while
    cameras, robot, horizon and action statistics are those of the data. Without `expert` it is
    random, of `preset`."""
    weights: str = ""
    """The stage before (`docs/stages.md`): `backbone` and `expert` of one checkpoint, with
    `contract: data`."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on linear layers of the backbone; in a checkpoint's `config.json` too."""

    rank: int = 0
    """0: no adapters, but for those that the checkpoint has."""
    alpha: int = 16
    """What an adapter adds is scaled by `alpha / rank`."""
    targets: tuple[str, ...] = ("language_model.layers.*",)
    """Patterns (`*`, `?`, `[...]`) of names within the backbone; every linear layer that one fits
    gets an adapter. The default is all of the language model's: attention, linear attention, MLP.
    `visual.blocks.*` is the vision tower's."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model, where its weights start, and how they are kept in memory."""

    preset: str = "tiny"
    checkpoint: str = ""
    """Folder or `tabletop-sft`; empty means random weights of the preset."""
    backbone: str = ""
    """Folder, or name on the hub, of a Qwen3.5 in transformers' format: the backbone's weights,
    tokenizer and image settings. Only the rest is random then."""
    state: str = "none"
    """How a new model is shown the robot's state (paper section 5.2.4): `none`, `vlm_prompt` (256
    bins for each dimension, in the prompt) or `dit` (one token of the action expert)."""
    init: InitConfig = field(default_factory=InitConfig)
    history: int = 0
    """Past frames of the first camera that a new model is shown, as a video; an even number. A
    checkpoint has its own."""
    history_hz: float = 2.0
    """Their rate; navigation videos have 2 Hz (paper section 3.2.4)."""
    dtype: str = "auto"
    """Number format of the weights: `float32`, `bfloat16`, or `auto`: as the checkpoint has them,
    new ones in float32."""
    attention: str = "sdpa"
    """Of the backbone: `sdpa`, `eager` or `flash_attention_2` (needs its library and a GPU)."""
    checkpoint_activations: bool = False
    """Compute activations a second time in the backward pass instead of keeping them: each layer of
    the backbone and each block of the action expert keeps its input alone."""
    compile: bool = False
    """Compile backbone and action expert at their first call, which takes minutes; needs a C++
    compiler. Acting and learning are compiled apart, so that ratios start near 1, not at it."""
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class LoggingConfig:
    """Beyond `metrics.jsonl`, which is always written."""

    wandb: bool = False
    tensorboard: bool = False
    prometheus: bool = False
    """`metrics.prom` in the run folder, for the textfile collector of node_exporter."""
    prometheus_port: int = 0
    """Where on this machine the same text can be scraped while the run goes on; 0: nowhere."""
    project: str = "vlarl"


@dataclass(frozen=True)
class RunConfig:
    """A whole run, resolved: what the run folder's `config.yaml` holds."""

    stage: str = "rl"
    """`t2a`, `cpt`, `sft` or `rl`: the rows of `vlarl.stages`."""
    name: str = ""
    """Folder name under `output`; empty means stage, suite and date."""
    output: str = "runs"
    seed: int = 0
    resume: str = "never"
    """`never` or `auto`."""
    checkpoint_every: int = 10
    keep_checkpoints: int = 2
    """The newest ones."""
    keep_checkpoints_every: int = 0
    """Also those whose step is a multiple of this, for good; 0: only the newest."""
    profile: bool = False
    """Whether the second iteration is written down as a Chrome trace, `profile.json` in the run
    folder."""
    model: ModelConfig = field(default_factory=ModelConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    @property
    def decisions_per_stream(self) -> int:
        """`T`: rollout epochs x whole chunks of each, or what `ppo` says."""
        if self.rollout.epochs:
            chunks = self.rollout.control_steps // self.sampling.execute_steps
            return self.rollout.epochs * chunks
        return self.ppo.decisions_per_stream

    @property
    def decisions_per_iteration(self) -> int:
        """`N * T` of one node, unless the servers are others'."""
        return self.env.environments * self.decisions_per_stream
