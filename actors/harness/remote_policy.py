"""Another's policy, behind openpi's protocol, as an evaluation sees one of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.harness.action_units import ActionUnits
from actors.harness.observation_keys import ObservationKeys
from actors.harness.openpi_client import OpenpiClient
from vlarl.contract import Contract
from vlarl.errors import CheckpointError, PolicyServerError
from vlarl.observations import Observations
from vlarl.policy import Decisions
from vlarl.types import EnvSpec

OURS = "vlarl"
"""Key of the metadata, and of a message, for what only policies of this project understand."""


class RemotePolicy:
    """Implements `vlarl.policy.EvaluatedPolicy`.

    A server of this project's takes the noise of each decision, so that it decides as the same
    checkpoint does here; others draw their own.

    Args:
        client: of the server.
        spec: what the environments simulate.
        keys: what the server calls what it is shown.
        execute_steps: of each chunk, at most; one that is shorter is executed whole.
        units: of the actions that it answers, see `ActionUnits`.

    Raises:
        CheckpointError: if the server says that its checkpoint does not fit the environments.
    """

    past_frames = None

    def __init__(
        self,
        client: OpenpiClient,
        spec: EnvSpec,
        keys: ObservationKeys,
        execute_steps: int,
        units: str = "simulator",
    ) -> None:
        self._client = client
        self._channels = len(spec.channels)
        self._keys = keys
        self._units = ActionUnits(units, spec.channels)
        self._execute_steps = execute_steps
        self.noise_shape = (0, 0)
        """`H, K` of what the server takes; empty: it takes none."""
        ours = client.metadata.get(OURS)
        if isinstance(ours, dict):
            self._check_ours(ours, spec)

    def act(
        self, observations: Observations, generator: None, explore: bool, *, noise: Tensor
    ) -> Decisions:
        """Ask for each of `n` observations in turn; see `Policy.act`. Of values, it knows none.

        Raises:
            PolicyServerError: for a server that fails, or answers no action of these environments.
        """
        assert not explore, "another's policy is only evaluated"
        chunks = []
        for row in range(len(observations)):
            message = self._keys.message(observations, row)
            if all(self.noise_shape):
                message[OURS] = {"noise": noise[row].numpy()}
            chunks.append(self._chunk(self._client.infer(message)))
        lengths = sorted({len(chunk) for chunk in chunks})
        if len(lengths) > 1:
            raise self._wrong(f"chunks of {lengths[0]} and of {lengths[-1]} actions")
        unknown = torch.full((len(chunks),), torch.nan)
        return Decisions(actions=np.stack(chunks), value=unknown, chunk=None)

    def _chunk(self, answer: dict[str, Any]) -> NDArray[np.float32]:
        """[h, c] of one answer."""
        actions = answer.get("actions")
        if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu":
            held = ", ".join(sorted(answer)) or "nothing"
            raise self._wrong(f"no array of numbers as 'actions'; it holds {held}")
        if actions.ndim == 1:
            actions = actions[None]
        if actions.ndim != 2 or not len(actions) or actions.shape[1] != self._channels:
            raise self._wrong(
                f"actions of shape {list(actions.shape)}; the environments take "
                f"[steps, {self._channels}]"
            )
        chunk = actions[: self._execute_steps].astype(np.float32)
        if not np.isfinite(chunk).all():
            raise self._wrong("actions with NaN or infinity")
        return self._units.received(chunk)

    def _wrong(self, what: str) -> PolicyServerError:
        return PolicyServerError(
            f"the policy server {self._client.address} answered {what}. "
            "Is it a policy for these environments?"
        )

    def _check_ours(self, ours: dict[str, Any], spec: EnvSpec) -> None:
        try:
            contract = Contract.from_dict(ours["contract"])
            height, width = ours["noise"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the policy server {self._client.address} is of another version of vlarl "
                f"({error}): install the same release on both sides"
            ) from error
        contract.check(spec)
        self.noise_shape = (int(height), int(width))
