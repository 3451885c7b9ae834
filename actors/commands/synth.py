"""`vlarl synth`: data made from rules and simulators; each subcommand is a file `synth_*.py`."""

from __future__ import annotations

from actors.commands.subcommands import dispatcher

SUBCOMMANDS = {
    "t2a": ("synth_t2a", "trajectories of arms with instructions, without physics or images"),
    "audit": ("synth_audit", "a sample of these checked by other means than those that made it"),
    "sheet": ("synth_sheet", "pictures of some of them"),
    "export": ("synth_export", "the same as LeRobot v3.0 datasets"),
}

COMMAND = dispatcher("synth", (), SUBCOMMANDS, "vlarl synth t2a out=datasets/t2a")
