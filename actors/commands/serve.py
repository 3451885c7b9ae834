"""`vlarl serve`: a checkpoint that answers other people's harnesses, by websocket."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from actors.commands.command import Command, Invocation, one_of, whole_number
from actors.commands.evaluate import config_of

if TYPE_CHECKING:
    from actors.harness.policy_server import Session
    from actors.harness.served_policy import ServedPolicy
    from vlarl.config.schema import RunConfig

OWN = ("protocol", "port", "host", "insecure", "seed", "observation", "actions", "embodiment")
"""Settings that are no keys of the config schema."""
USUAL = {"openpi": ("openpi", "simulator"), "vla-eval": ("libero", "normalized")}
"""Protocol -> the `observation` and `actions` that go with it."""


def run(invocation: Invocation) -> dict[str, Any]:
    """Serve until interrupted; prints `ready ADDRESS` once clients can connect."""
    settings = dict(invocation.settings)
    own = {key: settings.pop(key) for key in OWN if key in settings}
    protocol = one_of(own, "protocol", "openpi", tuple(USUAL))
    insecure = one_of(own, "insecure", "false", ("true", "false")) == "true"
    port, seed = whole_number(own, "port", 8000, 0), whole_number(own, "seed", 0, 0)
    host = own.get("host", "127.0.0.1")
    from actors.harness.policy_server import PolicyServer, check_host

    check_host(host, port, insecure)
    checkpoint, source, config = config_of(Invocation(invocation.arguments, settings))
    from actors.harness.action_units import UNITS
    from actors.harness.observation_keys import ObservationKeys
    from actors.harness.served_policy import ServedPolicy

    names, units = USUAL[protocol]
    units = one_of(own, "actions", units, UNITS)
    keys = ObservationKeys.parse(own.get("observation", names))
    policy = ServedPolicy.load(checkpoint, config, keys, units, own.get("embodiment", ""))
    session = _session(protocol, policy, seed)
    server = PolicyServer(session, host, port, insecure)
    if insecure:
        print(
            f"warning: insecure=true: whoever reaches {host} can use this policy, and whoever "
            "listens in reads what it is shown: there are no keys and no encryption",
            file=sys.stderr,
        )
    _describe(policy, units, config, None if source is None else str(source))
    print(f"ready {server.address}", flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        print(f"stopped after {server.connections} connections")
    finally:
        server.close()
        policy.close()
    return {"address": server.address, "connections": server.connections}


def _session(protocol: str, policy: ServedPolicy, seed: int) -> Session:
    """What speaks the protocol.

    Raises:
        UserError: for a checkpoint that the protocol cannot show what it needs.
    """
    from actors.harness.openpi_session import OpenpiSession
    from actors.harness.vla_eval_session import VlaEvalSession
    from vlarl.errors import UserError

    if protocol == "vla-eval":
        return VlaEvalSession(policy, seed)
    if policy.contract.past_frames is not None:
        raise UserError(
            "protocol=openpi shows one observation for each chunk, but the checkpoint is shown "
            "the frames in between (model.history). Use protocol=vla-eval, which shows every one."
        )
    return OpenpiSession(policy, seed)


def _describe(policy: ServedPolicy, units: str, config: RunConfig, source: str | None) -> None:
    contract, sampling = policy.contract, config.sampling
    cameras = ", ".join(f"{c.name} {c.height}x{c.width}" for c in contract.cameras)
    channels = ", ".join(channel.name for channel in contract.embodiment.channels)
    print(f"embodiment  {contract.embodiment.name} at {contract.embodiment.control_hz:g} Hz")
    print(f"shown       {cameras}{', state' if contract.shows_state else ''}")
    print(f"answers     {contract.horizon} steps of {channels}, in {units} units")
    print(
        f"sampling    {sampling.denoising_steps} denoising steps, temperature "
        f"{sampling.eval_temperature:g}{'' if source is None else f', as in {source}'}"
    )


COMMAND = Command(
    usage="serve CHECKPOINT [CONFIG] [protocol=openpi port=8000 ...]",
    arguments=("CHECKPOINT",),
    optional=("CONFIG",),
    details=(
        "Answers observations with actions until it is interrupted.\n"
        "CHECKPOINT is a folder, a run (its last checkpoint), or `tabletop-sft`. Sampling is that\n"
        "of CONFIG (a YAML file or a run), without it that of the run that the checkpoint lies\n"
        "in, else the defaults; deterministic, as in an evaluation.\n\n"
        "  protocol         openpi: a chunk for each observation, for openpi's client and for\n"
        "                   `vlarl eval ws://...`; vla-eval: an action for each control step\n"
        "                   (openpi)\n"
        "  port             to listen at; 0: a free one (8000)\n"
        "  host             address to listen at (127.0.0.1)\n"
        "  insecure         true: listen where other machines can connect. The protocols have no\n"
        "                   keys and no encryption (false)\n"
        "  observation      what the messages call what is shown: openpi, libero (the names of\n"
        "                   vla-eval's LIBERO), or '{KEY: ego, KEY: state, KEY: instruction}'\n"
        "                   (openpi: openpi, vla-eval: libero)\n"
        "  actions          units: simulator, or normalized: -1 to 1 between the bounds of each\n"
        "                   channel, as LIBERO takes them (openpi: simulator, vla-eval:\n"
        "                   normalized)\n"
        "  embodiment       which to drive, where the checkpoint drives several (the first)\n"
        "  seed             of the noise that chunks start from, unless the client sends it (0)\n"
        "  dotted keys of the config schema, such as sampling.execute_steps=5, runtime.device=cpu"
    ),
    example="vlarl serve tabletop-sft configs/rl/demo.yaml port=8000",
    run=run,
)
