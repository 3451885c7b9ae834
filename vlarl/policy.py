"""A model that acts: from images and instructions to action chunks in simulator units.

Everything runs without gradients and with the model in evaluation mode (unless it is `shared`), on
the model's device; what comes back is on the CPU. Environments, episodes and learning live
elsewhere.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor, nn

from vlarl.codec import ActionCodec
from vlarl.config.schema import SamplingConfig
from vlarl.contract import Contract
from vlarl.history import PastFrames
from vlarl.model.device import CPU, on
from vlarl.model.graphs import VelocityGraphs
from vlarl.noise import Generators, normal
from vlarl.observations import Observations
from vlarl.sampler import ExploredChunk, VelocityFunction, sample_explore, sample_ode


class PolicyModel(Protocol):
    """What acting and learning need of a model; `QwenVLA` is one."""

    codec: ActionCodec
    contract: Contract
    further_codecs: tuple[ActionCodec, ...]
    processor: Any
    exploration_log_std: nn.Parameter

    def encode(self, inputs: TensorDict) -> TensorDict:
        """The context of observations, batch size [B]."""
        ...

    def prepare(self, context: TensorDict) -> TensorDict:
        """The same context, ready for the many velocities of one sample."""
        ...

    def velocity(self, context: TensorDict, y: Tensor, tau: Tensor, action_mask: Tensor) -> Tensor:
        """[B, H, K] velocity of the chunks `y` at flow times `tau` [B]."""
        ...

    def value(self, context: TensorDict) -> Tensor:
        """[B] value, of the mean unmasked hidden state and the share of the episode that passed."""
        ...

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part."""
        ...

    def eval(self) -> Any:
        """Switch to evaluation mode."""
        ...

    def train(self) -> Any:
        """Switch to training mode."""
        ...


@dataclass(frozen=True)
class Decisions:
    """One decision of each of `n` environments."""

    actions: NDArray[np.float32]
    """[n, H_exec, c] in simulator units: what is executed."""
    value: Tensor
    """[n] float32"""
    chunk: ExploredChunk | None
    """What the learner scores; None without exploration."""
    context: TensorDict | None = None
    """Of `model.encode`, if it is to be kept."""
    inputs: TensorDict | None = None
    """Of the processor, if they are to be kept."""


class EvaluatedPolicy(Protocol):
    """What an evaluation asks of a policy, ours or another's; `Policy` is one."""

    @property
    def noise_shape(self) -> tuple[int, int]:
        """`H, K` of the noise that `act` is given."""
        ...

    @property
    def past_frames(self) -> PastFrames | None:
        """Which past frames observations must come with; None: none."""
        ...

    def act(
        self, observations: Observations, generator: None, explore: bool, *, noise: Tensor
    ) -> Decisions:
        """See `Policy.act`."""
        ...


class Policy:
    """Acts with whatever weights `model` holds at the time."""

    def __init__(
        self,
        model: PolicyModel,
        sampling: SamplingConfig,
        embodiment: int = 0,
        graphs: VelocityGraphs | None = None,
        shared: bool = False,
    ) -> None:
        """For one of the contract's embodiments (`Contract.place_of`).

        `graphs`, on a GPU, are of this model. `shared`: another thread may be training the very
        same model, so that its mode, which must then change no number, is left as it is.
        """
        self._model = model
        self._sampling = sampling
        self._embodiment = embodiment
        self._graphs = graphs
        self._shared = shared

    @property
    def noise_shape(self) -> tuple[int, int]:
        """`H, K` of one action tensor."""
        return self._model.codec.tensor_horizon, self._model.codec.channels

    @property
    def past_frames(self) -> PastFrames | None:
        """Which past frames observations must come with; None: none."""
        return self._model.contract.past_frames

    @torch.no_grad()
    def act(
        self,
        observations: Observations,
        generator: Generators | None,
        explore: bool,
        keep: str = "context",
        noise: Tensor | None = None,
    ) -> Decisions:
        """Decide for `n` environments in one batch.

        Args:
            observations: `n` of them.
            generator: draws the noise, on the CPU; one, or several with their numbers of rows; may
                be None if all of it is given.
            explore: sample with the exploration noise at rollout temperature, else solve the ODE at
                evaluation temperature.
            keep: `context` or `inputs`: what the learner will need; only when exploring.
            noise: [n, H, K] standard normal, where to start; the temperature is applied here.
        """
        assert keep in ("context", "inputs"), keep
        self._to_evaluation()
        sampling, codec = self._sampling, self._codec
        device = self._model.exploration_log_std.device
        inputs = self._inputs(observations)
        context = self._model.encode(inputs)
        prepared = self._model.prepare(context)
        mask = codec.mask(len(observations)).to(device)
        if noise is None:
            assert generator is not None, "without noise, give a generator"
            noise = normal(mask.shape, generator)

        noise, velocity, chunk = noise.to(device), self._velocity(prepared, mask), None
        if explore:
            assert generator is not None, "exploration needs a generator"
            chunk = self._explore(velocity, noise, mask, generator)
            action = chunk["action"]
        else:
            start = noise * sampling.eval_temperature
            action = sample_ode(velocity, start, mask, sampling.denoising_steps)
        return Decisions(
            actions=codec.decode(action)[:, : sampling.execute_steps],
            value=self._model.value(context).cpu(),
            chunk=None if chunk is None else on(CPU, chunk),
            context=on(CPU, context) if explore and keep == "context" else None,
            inputs=inputs if explore and keep == "inputs" else None,
        )

    @property
    def _codec(self) -> ActionCodec:
        model, place = self._model, self._embodiment
        return model.further_codecs[place - 1] if place else model.codec

    def _velocity(self, prepared: TensorDict, mask: Tensor) -> VelocityFunction:
        if self._graphs is not None:
            return self._graphs.of(prepared, mask)
        return lambda y, tau: self._model.velocity(prepared, y, tau, mask)

    def _explore(
        self,
        velocity: VelocityFunction,
        noise: Tensor,
        mask: Tensor,
        generator: Generators,
    ) -> ExploredChunk:
        """Denoise as `sampling` says a rollout does; `noise` [n, H, K] is standard normal."""
        sampling = self._sampling
        start = sampling.rollout_start_temperature
        scores_all = sampling.exploration.logprob_steps == "chunk"
        return sample_explore(
            velocity,
            noise * (sampling.rollout_temperature if start is None else start),
            mask,
            sampling.denoising_steps,
            sampling.exploration,
            sampling.rollout_temperature,
            generator,
            self._model.exploration_log_std,
            None if scores_all else sampling.execute_steps,
        )

    @torch.no_grad()
    def value(self, observations: Observations) -> Tensor:
        """[n] values of observations that are not acted on."""
        self._to_evaluation()
        return self._model.value(self._model.encode(self._inputs(observations))).cpu()

    def _to_evaluation(self) -> None:
        if not self._shared:
            self._model.eval()

    def _inputs(self, observations: Observations) -> TensorDict:
        if self._embodiment:
            own = np.full(len(observations), self._embodiment)
            observations = dataclasses.replace(observations, embodiment=own)
        inputs = self._model.processor(observations)
        elapsed = observations.elapsed
        unknown = torch.zeros(len(observations))
        inputs["elapsed"] = unknown if elapsed is None else torch.from_numpy(elapsed)
        return inputs
