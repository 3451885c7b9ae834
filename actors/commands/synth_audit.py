"""`vlarl synth audit`: a sample of trajectories checked by other means than those that made it."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation, whole_number


def run(invocation: Invocation) -> dict[str, Any]:
    """Check a sample."""
    from actors.synthesis.audit import audit
    from vlarl.progress import Progress
    from vlarl.synthesis.dataset import SynthesisDataset

    samples = whole_number(invocation.settings, "samples", 1000)
    seed = whole_number(invocation.settings, "seed", 0, least=0)
    dataset = SynthesisDataset(invocation.arguments[0])
    with Progress("auditing", min(samples, len(dataset)), "trajectories") as progress:
        report = audit(dataset, samples, seed, progress.reach)
    print(report.text())
    return report.to_dict()


COMMAND = Command(
    usage="synth audit DIR [samples=1000] [seed=0]",
    arguments=("DIR",),
    settings={"samples": "trajectories to check (1000)", "seed": "of the sample (0)"},
    details="Limits, derivatives, kinematics by MuJoCo, dense collision, goal and wording.",
    example="vlarl synth audit datasets/t2a samples=1000",
    run=run,
)
