"""Acts: the collector, evaluation and reward of one worker, around one model.

A plain class. It shares the learner's model when both live in one process; a worker of its own
process gets its weights as a `WeightsUpdate`. With `rollout.mode: async` its rollout goes on in a
thread, between the batches that are asked for, until an evaluation or a checkpoint pauses it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import nn

from actors.batching import Batching
from actors.env_host import EnvAccess
from actors.episodes import EpisodeSource
from actors.evaluation import EvalResult, EvaluationRequest, evaluate
from actors.fair_lock import FairLock
from actors.player import Progress
from actors.process_stats import ServerCounters, process_use
from actors.rollout import RolloutCollector
from actors.rollout_stats import RolloutStats
from actors.stream import RolloutStream
from actors.task_allocation import TaskAllocation
from actors.weights import Bytes, WeightsUpdate, apply_weights
from vlarl.config.embodiments import load_embodiment
from vlarl.config.schema import RunConfig
from vlarl.config.validate import check_execute_steps
from vlarl.embodiment import UNNAMED, embodiment_name, embodiment_of, layout_of
from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.device import resolved
from vlarl.model.graphs import VelocityGraphs, capture_on
from vlarl.model.presets import build, channel_bounds_codec, new_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import configured, given_backbone, given_model, with_embodiment
from vlarl.policy import Policy
from vlarl.rewards import load_reward
from vlarl.timeline import Timeline
from vlarl.types import EnvSpec

logger = logging.getLogger(__name__)


class RolloutWorker:
    """One policy on the clients of one `EnvAccess`.

    Args:
        config: of the run.
        model: acts with whatever weights it holds.
        access: to env servers; closed with the worker.
        number: of the worker among several; each draws its own episodes and noise.
        timeline: of the process; None makes one of its own.
        version: of the model's weights, where a learner of this process changes them; None: they
            are what `set_weights` says.

    Attributes:
        weights_lock: held while the policy is called; a learner of this process holds it while it
            changes weights.

    Raises:
        CheckpointError: if the model's contract does not fit the environments.
        UserError: for a mistake in the reward.
    """

    def __init__(
        self,
        config: RunConfig,
        model: QwenVLA,
        access: EnvAccess,
        number: int = 0,
        timeline: Timeline | None = None,
        version: Callable[[], int] | None = None,
    ) -> None:
        self.timeline = timeline or Timeline(f"worker {number}")
        self._counters = ServerCounters()
        self._config = config
        self._model = model
        self._access = access
        self._published = 0
        self.weights_lock = FairLock()
        for client in access.clients:
            model.contract.check(client.spec)
        self.spec = access.clients[0].spec
        place = model.contract.place_of(self.spec.embodiment)
        horizon = model.contract.horizons[place]
        check_execute_steps(config, horizon, config.model.checkpoint or "(none)")
        in_turn = config.rollout.mode == "sync"
        shared = version is not None and not in_turn
        if shared:
            refuse_mode_dependence(model)
        self._policy = policy_of(model, config, place, shared)
        _check_tasks(config, self.spec)
        streams = sum(client.num_envs for client in access.clients)
        tasks = config.env.tasks or self.spec.tasks
        allocation = None
        if config.env.allocation.kind != "uniform":
            allocation = TaskAllocation(config.env.allocation, tasks, streams)
        self._collector = RolloutCollector(
            access.clients,
            self._policy,
            load_reward(config.reward),
            EpisodeSource(tasks, (config.seed, number), streams, allocation=allocation),
            config.decisions_per_stream,
            keep="inputs" if trains_backbone(config) else "context",
            seed=(config.seed, number),
            restart=access.restart,
            max_restarts=config.env.restarts,
            bootstrap_time_limit=config.ppo.bootstrap_time_limit,
            batching=batching_of(config, access),
            weights_lock=self.weights_lock,
            timeline=self.timeline,
        )
        rollout = config.rollout
        self._version = version or (lambda: self._published)
        self._stream = (
            None
            if in_turn
            else RolloutStream(
                self._collector, self._version, rollout.max_staleness, rollout.threads
            )
        )

    def set_weights(
        self, update: WeightsUpdate, get: Callable[[Sequence[Any]], Sequence[Bytes]]
    ) -> None:
        """Act with these weights from the next decision on; see `apply_weights`."""
        with self.weights_lock:
            apply_weights(self._model, update, get)
            self._published = update.version

    def collect(self) -> tuple[TensorDict, RolloutStats]:
        """The decisions of one iteration; with `rollout.mode: async`, what has come of them."""
        if self._stream is not None:
            return self._stream.take()
        with _threads(self._config.rollout.threads):
            return self._collector.collect(self._version())

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """Deterministic evaluation on the training environments, between two decisions."""
        self.pause()
        with _threads(self._config.rollout.threads):
            result = self._collector.lend(
                lambda clients: evaluate(
                    self._policy,
                    clients,
                    request,
                    restart=self._collector.restart,
                    max_restarts=self._config.env.restarts,
                    progress=progress,
                )
            )
        # What servers did for it is no part of the next window's.
        self.servers_use()
        return result

    def servers_use(self) -> dict[str, float]:
        """What the env servers did and use, see `ServerCounters`; between two windows.

        Nothing where rollout goes on all the time: its thread alone may speak to servers.
        """
        if self._stream is not None:
            return {}
        return self._counters.ask(self._collector.unoccupied())

    def use(self) -> dict[str, float]:
        """`servers_use`, and that of this process, if it is the worker's own."""
        return {**process_use("worker", self._model.device), **self.servers_use()}

    def state_dict(self) -> dict[str, Any]:
        """What the next window depends on, besides the weights.

        Windows that have begun, and decisions that wait to be learned from, are not part of it.
        """
        self.pause()
        return self._collector.state_dict()

    def position(self) -> dict[str, Any]:
        """The state without the running episodes: for whoever takes this worker's place."""
        return self._collector.position()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, before the first window."""
        self._collector.load_state_dict(state)
        if any(state["counters"]) and not any(len(lane["environments"]) for lane in state["lanes"]):
            logger.warning("no running episodes were kept: each environment begins its next one")

    def pause(self) -> None:
        """Rest until the next `collect`; nothing to do where rollout and learning take turns."""
        if self._stream is not None:
            self._stream.pause()

    def close(self) -> None:
        """Stop, and disconnect from the servers; safe to call twice."""
        if self._stream is not None:
            self._stream.close()
        self._access.close()


def policy_of(model: QwenVLA, config: RunConfig, place: int, shared: bool = False) -> Policy:
    """The policy of the contract's embodiment at `place`; on a GPU by CUDA graphs, if wanted.

    `shared`: a learner trains the same model in another thread. Then there are no graphs: nothing
    else may use the GPU while one is captured.
    """
    graphs = None
    # Projections other than the default ask on the way which embodiments a batch holds; a compiled
    # expert may compile again.
    fixed = model.expert_config.projection == "zero_pad" and not config.model.compile
    wanted = config.runtime.cuda_graphs and not shared
    if wanted and fixed and model.device.type == "cuda":
        graphs = VelocityGraphs(model.velocity, capture_on(model.device))
    return Policy(model, config.sampling, place, graphs, shared)


def refuse_mode_dependence(model: nn.Module) -> None:
    """Refuse a model that computes other numbers in training mode than in evaluation mode.

    Where one thread trains it and another acts with it, it is in the mode of whoever came last.

    Raises:
        CheckpointError: naming the layer.
    """
    for name, module in model.named_modules():
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        dropout = getattr(module, "attention_dropout", 0.0) or 0.0
        if isinstance(module, nn.modules.dropout._DropoutNd):
            dropout = module.p
        if batch_norm or dropout:
            raise CheckpointError(
                f"{name} ({type(module).__name__}) differs between training and evaluation, "
                "and with rollout.mode=async both happen at once. Use a checkpoint without dropout "
                "or batch normalization, rollout.workers=2, or rollout.mode=sync."
            )


def batching_of(config: RunConfig, access: EnvAccess) -> Batching:
    """How this worker's servers share calls of the policy.

    Raises:
        ConfigError: if no two of them fit: servers started elsewhere have the size they have.
    """
    bound = config.rollout.batch_environments
    sizes = sorted(client.num_envs for client in access.clients)
    if bound and sum(sizes[:2]) > bound:
        raise ConfigError(
            f"rollout.batch_environments = {bound}: joins no two env servers; they have "
            f"{', '.join(map(str, sizes))} environments. Use {sum(sizes[:2])} or more, or 0."
        )
    return Batching(bound, config.rollout.batch_deadline_seconds)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch threads while acting: the other cores are simulating at the same time.

    More threads than free cores make each small matrix product wait for the slowest of them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trains_backbone(config: RunConfig) -> bool:
    """Whether the learner recomputes the backbone, so that its inputs must be kept."""
    return bool({"vision", "language", "lora"} & config.ppo.optimizer.learning_rates.keys())


def _check_tasks(config: RunConfig, spec: EnvSpec) -> None:
    """Servers that were started elsewhere have the tasks they were given there."""
    for task in config.env.tasks:
        if task not in spec.tasks:
            raise ConfigError(
                f"env.tasks = {list(config.env.tasks)}: {task!r} is no task of the environments; "
                f"they have {', '.join(spec.tasks)}"
            )


def load_model(config: RunConfig, spec: EnvSpec, checkpoint: Path | None = None) -> QwenVLA:
    """The run's own checkpoint if it continues, else the configured one, else random weights.

    Random weights are drawn from `config.seed`, the same on each device, and fit `spec`. Where
    `spec` is of another robot than the checkpoint's, with the same channels, the prompt names that
    one, with a warning.

    Raises:
        CheckpointError: for a checkpoint that is missing or damaged.
        ConfigError: for an embodiment that cannot be read, a device that is not there, or settings
            of the model that it or this machine cannot follow.
    """
    device = resolved(config.runtime.device)
    model = given_model(config.model, checkpoint, config.seed, device)
    if model is not None:
        return _for_robot(model, spec)
    pretrained = given_backbone(config.model)
    unnamed = spec.embodiment == UNNAMED
    embodiment = embodiment_of(spec) if unnamed else load_embodiment(spec.embodiment)
    # Environments that do not say what to do are told their own name.
    said = str(config.env.options.get("instruction") or spec.tasks[0])
    contract = new_contract(
        spec.cameras,
        embodiment,
        pretrained,
        instructions=[said] if unnamed else (),
        history=config.model.history,
        history_hz=config.model.history_hz,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        codec = channel_bounds_codec(contract)
        model = build(config.model.preset, contract, codec, pretrained)
        return configured(model, config.model).to(device)


def _for_robot(model: QwenVLA, spec: EnvSpec) -> QwenVLA:
    """The model with the environments' robot in its prompt, if only the prompt tells them apart.

    What else differs is for `Contract.check` to say.

    Raises:
        CheckpointError: if the environments' channels are the checkpoint's, but not the robot's.
    """
    ours = model.contract.embodiment
    names = [embodiment.name for embodiment in model.contract.embodiments]
    if spec.embodiment == UNNAMED or embodiment_name(spec.embodiment) in names:
        return model
    robot = load_embodiment(spec.embodiment)
    if robot.layout != ours.layout:
        if layout_of(spec.channels) == ours.layout:
            raise CheckpointError(
                f"embodiment {robot.name}: its {len(robot.channels)} action channels "
                f"({robot.channels[0].name}, ...) are not those of the checkpoint and the "
                f"environments ({', '.join(channel.name for channel in ours.channels)}). Name a "
                "robot that has them"
            )
        return model
    logger.warning(
        "the checkpoint never saw the robot %s: it was trained as %s. The prompt will name %s all "
        "the same. The action channels are alike, so the weights stay as they are, and so do the "
        "action statistics: no action beyond those of %s is ever made. Success may be low.",
        robot.name,
        ours.name,
        robot.robot_tag,
        ours.name,
    )
    return with_embodiment(model, robot)
