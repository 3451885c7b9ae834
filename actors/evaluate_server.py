"""Evaluates another's policy, behind a websocket, on env servers of ours: `vlarl eval ws://...`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from actors.env_host import EnvAccess, EnvHost
from actors.evaluate_checkpoint import reported
from actors.evaluation import EvaluationRequest, evaluate
from actors.harness.observation_keys import ObservationKeys
from actors.harness.openpi_client import OpenpiClient
from actors.harness.remote_policy import RemotePolicy
from vlarl.config.schema import RunConfig
from vlarl.errors import UserError
from vlarl.progress import Progress


@dataclass(frozen=True)
class ServerSettings:
    """How to speak to a policy server; the command line's `ws.*`."""

    observation: str = "openpi"
    """A preset of `ObservationKeys`, or a mapping in YAML."""
    actions: str = "simulator"
    """Units of its actions, of `ActionUnits`."""
    deadline_seconds: float = 120.0
    """For each answer."""


def evaluate_server(address: str, config: RunConfig, settings: ServerSettings) -> dict[str, Any]:
    """Evaluation on `config.evaluation`'s held-out initial states.

    Args:
        address: `ws://HOST:PORT` of an openpi policy server.
        config: its env and evaluation sections count, and `sampling.execute_steps`.
        settings: of the connection.

    Returns:
        The summary of `vlarl.evaluation.results`.

    Raises:
        UserError: if no policy server answers, or for an unknown suite or task, or what the
            environments cannot show.
        PolicyServerError: if the server fails later.
    """
    keys = ObservationKeys.parse(settings.observation, "ws.observation")
    if config.env.suites:
        raise UserError("env.suites: a policy server is evaluated in one suite. Name suite=.")
    client = OpenpiClient(address, settings.deadline_seconds)
    host = None
    try:
        episodes = config.evaluation.episodes
        env = config.env
        # Idle environments are shown to a policy too, and a server is asked about each by itself.
        share = max(1, -(-episodes // env.servers))
        if env.mode != "connect" and env.envs_per_server > share:
            env = dataclasses.replace(env, envs_per_server=share)
        host = None if env.mode == "inprocess" else EnvHost(env)
        access = EnvAccess(env, host)
        spec = access.clients[0].spec
        keys = keys.of_cameras([camera.name for camera in spec.cameras], "ws.observation")
        policy = RemotePolicy(client, spec, keys, config.sampling.execute_steps, settings.actions)
        request = EvaluationRequest(episodes, config.evaluation.seed, env.tasks)
        with Progress("evaluate", episodes, "episodes") as progress:
            result = evaluate(
                policy,
                access.clients,
                request,
                restart=access.restart,
                max_restarts=env.restarts,
                progress=reported(progress),
            )
        access.close()
    finally:
        client.close()
        if host is not None:
            host.close()
    return result.summary
