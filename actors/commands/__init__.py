"""The commands of `vlarl`, one file each, and the table that finds them without importing them."""

from __future__ import annotations

import importlib

from actors.commands.command import Command

COMMANDS = {
    "demo": ("demo", "the main job: SFT checkpoint in, RL, instruct checkpoint and report out"),
    "t2a": ("t2a", "text-to-action pretraining: the action expert alone, without images"),
    "cpt": ("cpt", "continued pretraining: all of the model, from a T2A checkpoint"),
    "sft": ("sft", "supervised fine-tuning from a config"),
    "rl": ("rl", "reinforcement learning from a config"),
    "eval": ("evaluate", "deterministic evaluation of a checkpoint, or of a policy server"),
    "serve": ("serve", "a policy server: a checkpoint behind openpi's protocol or vla-eval's"),
    "generate": ("generate", "what a checkpoint says of images"),
    "envserver": ("envserver", "one env server by hand, for `env.mode=connect`"),
    "key": ("key", "a new key, for env servers that other machines can reach"),
    "collect": ("collect", "demonstrations by scripted experts, as a LeRobot v3 dataset"),
    "data": ("data", "what to do with a dataset: `vlarl data --help` lists all"),
    "synth": (
        "synth",
        "data from rules and simulators: `vlarl synth --help` lists all",
    ),
    "suite": ("suite", "simulators in environments of their own: install, list, remove"),
    "info": ("info", "what there is: model, memory, suites, rewards, embodiments, config"),
    "merge": ("merge", "adapters into the weights: a plain checkpoint"),
    "report": ("report", "(re)build the report page of a run"),
    "bench": ("bench", "one benchmark, against a peer where there is one"),
    "doctor": ("doctor", "what this machine can do, and what to install"),
}
"""Name -> module in this folder and one line of help."""


def load_command(name: str) -> Command:
    """Import the command's module; everything heavy stays inside its `run`."""
    module = importlib.import_module(f"actors.commands.{COMMANDS[name][0]}")
    command: Command = module.COMMAND
    return command
