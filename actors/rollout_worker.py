"""Acts: the collector, evaluation and reward of one worker, around one model.

A plain class. It shares the learner's model when both live in one process; a worker of its own
process gets its weights as a `WeightsUpdate`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from actors.env_host import EnvAccess
from actors.episodes import EpisodeSource
from actors.evaluation import EvalResult, EvaluationRequest, evaluate
from actors.player import Progress
from actors.rollout import RolloutCollector
from actors.rollout_stats import RolloutStats
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
from vlarl.types import EnvSpec

logger = logging.getLogger(__name__)


class RolloutWorker:
    """One policy on the clients of one `EnvAccess`.

    Args:
        config: of the run.
        model: acts with whatever weights it holds.
        access: to env servers; closed with the worker.
        number: of the worker among several; each draws its own episodes and noise.

    Raises:
        CheckpointError: if the model's contract does not fit the environments.
        UserError: for a mistake in the reward.
    """

    def __init__(
        self, config: RunConfig, model: QwenVLA, access: EnvAccess, number: int = 0
    ) -> None:
        self._config = config
        self._model = model
        self._access = access
        self._version = 0
        for client in access.clients:
            model.contract.check(client.spec)
        self.spec = access.clients[0].spec
        place = model.contract.place_of(self.spec.embodiment)
        horizon = model.contract.horizons[place]
        check_execute_steps(config, horizon, config.model.checkpoint or "(none)")
        self._policy = policy_of(model, config, place)
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
        )

    def set_weights(
        self, update: WeightsUpdate, get: Callable[[Sequence[Any]], Sequence[Bytes]]
    ) -> None:
        """Act with these weights from the next window on; see `apply_weights`."""
        apply_weights(self._model, update, get)
        self._version = update.version

    def collect(self, version: int | None = None) -> tuple[TensorDict, RolloutStats]:
        """One window; `version` where the model is shared and its weights moved by themselves."""
        with _threads(self._config.rollout.threads):
            return self._collector.collect(self._version if version is None else version)

    def evaluate(self, request: EvaluationRequest, progress: Progress | None = None) -> EvalResult:
        """Deterministic evaluation on the training environments, between two windows."""
        with _threads(self._config.rollout.threads):
            return self._collector.lend(
                lambda clients: evaluate(
                    self._policy,
                    clients,
                    request,
                    restart=self._collector.restart,
                    max_restarts=self._config.env.restarts,
                    progress=progress,
                )
            )

    def state_dict(self) -> dict[str, Any]:
        """What the next window depends on, besides the weights."""
        return self._collector.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, before the first window."""
        self._collector.load_state_dict(state)

    def close(self) -> None:
        """Disconnect from the servers; safe to call twice."""
        self._access.close()


def policy_of(model: QwenVLA, config: RunConfig, place: int) -> Policy:
    """The policy of the contract's embodiment at `place`; on a GPU by CUDA graphs, if wanted."""
    graphs = None
    # Projections other than the default ask on the way which embodiments a batch holds; a compiled
    # expert may compile again.
    fixed = model.expert_config.projection == "zero_pad" and not config.model.compile
    if config.runtime.cuda_graphs and fixed and model.device.type == "cuda":
        graphs = VelocityGraphs(model.velocity, capture_on(model.device))
    return Policy(model, config.sampling, place, graphs)


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
