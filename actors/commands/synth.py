"""`vlarl synth`: data made from rules and simulators; each subcommand is a file `synth_*.py`."""

from __future__ import annotations

from actors.commands.subcommands import dispatcher

SUBCOMMANDS = {
    "t2a": ("synth_t2a", "trajectories of arms with instructions, without physics or images"),
    "audit": ("synth_audit", "a sample of these checked by other means than those that made it"),
    "sheet": ("synth_sheet", "pictures of some of them"),
    "export": ("synth_export", "the same as LeRobot v3.0 datasets"),
    "vl": ("synth_vl", "conversations about random tables: captions, boxes, relations, VQA"),
    "vla": ("synth_vla", "motion programs on random tables, whole and cut into subtasks"),
    "drive": ("synth_drive", "driving-like trajectories of waypoints, with what the car sees"),
}

COMMAND = dispatcher("synth", (), SUBCOMMANDS, "vlarl synth t2a out=datasets/t2a")
