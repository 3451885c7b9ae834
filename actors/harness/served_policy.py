"""A checkpoint that answers others: messages in, action chunks in simulator units out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from actors.acting import policy_of
from actors.harness.action_units import ActionUnits
from actors.harness.observation_keys import ObservationKeys
from actors.player import decision_noise
from vlarl.config.schema import RunConfig
from vlarl.config.validate import check_execute_steps
from vlarl.contract import Contract
from vlarl.errors import CheckpointError
from vlarl.model.device import resolved
from vlarl.model.processor import PromptError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import given_model
from vlarl.observations import Observations
from vlarl.wire_limits import WireError


class ServedPolicy:
    """Decides for one observation at a time, by the ODE at evaluation temperature.

    Args:
        model: of the checkpoint.
        config: its sampling section and what it says of device and threads count.
        keys: what the messages call what they show.
        units: of the actions that it answers, see `ActionUnits`.
        embodiment: the one that is driven, of several; empty: the checkpoint's first.

    Attributes:
        contract: of the one embodiment that is driven.
        noise_shape: `H, K` of the noise of a decision.
        execute_steps: of each chunk, where the server executes it.

    Raises:
        UserError: for keys that lack what the checkpoint must be shown, an embodiment that it does
            not drive, or more steps to execute than it predicts.
    """

    def __init__(
        self,
        model: QwenVLA,
        config: RunConfig,
        keys: ObservationKeys,
        units: str = "simulator",
        embodiment: str = "",
    ) -> None:
        place = model.contract.place_of(embodiment) if embodiment else 0
        self.contract = _alone(model.contract, place)
        if not self.contract.cameras:
            raise CheckpointError(
                "the checkpoint was trained on text alone and sees no cameras. Train it on images "
                "first: vlarl cpt CONFIG.yaml model.init.weights=CHECKPOINT."
            )
        keys.covering(self.contract)
        self._units = ActionUnits(units, self.contract.embodiment.channels)
        check_execute_steps(config, self.contract.horizon, config.model.checkpoint or "(none)")
        self.execute_steps = config.sampling.execute_steps
        sampling = dataclasses.replace(config.sampling, execute_steps=self.contract.horizon)
        self._policy = policy_of(model, dataclasses.replace(config, sampling=sampling), place)
        self.noise_shape = self._policy.noise_shape
        self._keys = keys
        # All connections decide in one thread, one after the other.
        self._thread = ThreadPoolExecutor(
            1, "policy", initializer=torch.set_num_threads, initargs=(config.rollout.threads,)
        )

    @staticmethod
    def load(
        checkpoint: str,
        config: RunConfig,
        keys: ObservationKeys,
        units: str = "simulator",
        embodiment: str = "",
    ) -> ServedPolicy:
        """Of a checkpoint folder; see the class.

        Raises:
            CheckpointError: for one that is missing or damaged.
        """
        settings = dataclasses.replace(config.model, checkpoint=checkpoint)
        config = dataclasses.replace(config, model=settings)
        model = given_model(settings, device=resolved(config.runtime.device))
        assert model is not None
        return ServedPolicy(model, config, keys, units, embodiment)

    def read(self, message: Mapping[str, Any]) -> Observations:
        """The observation of a message.

        Raises:
            WireError: for what is missing or has another shape.
        """
        return self._keys.read(message, self.contract.cameras, self.contract.state_dim)

    def chunk(
        self, observations: Observations, noise: NDArray[np.float32] | None, at: tuple[int, int]
    ) -> NDArray[np.float32]:
        """[H_task, c] actions of one observation.

        Args:
            observations: one.
            noise: [H, K] to start from; None: that of `at`.
            at: seed of the episode and number of the decision in it.

        Raises:
            WireError: for noise of another shape, or an instruction that is too long.
        """
        if noise is None:
            noise = decision_noise(*at, self.noise_shape).numpy()
        given = getattr(noise, "shape", None)
        if given != self.noise_shape or noise.dtype != np.float32 or not np.isfinite(noise).all():
            raise WireError(f"noise must be finite float32 of shape {list(self.noise_shape)}")
        start = torch.from_numpy(noise)[None]
        decided = self._thread.submit(self._policy.act, observations, None, False, noise=start)
        try:
            return self._units.sent(decided.result().actions[0])
        except PromptError as error:
            raise WireError(f"the instruction is refused: {error}") from error

    def close(self) -> None:
        """Wait for the decision under way, and make no more."""
        self._thread.shutdown()


def _alone(contract: Contract, place: int) -> Contract:
    """The contract as if it knew no other embodiment."""
    return dataclasses.replace(
        contract,
        embodiment=contract.embodiments[place],
        horizon=contract.horizons[place],
        cameras=contract.cameras_of(place),
        further_embodiments=(),
        further_cameras=(),
    )
