"""A whole RL run on the counting suite, whose reward holds every transition to be a true one.

The reward also ends processes, for real, at calls that the test names: in whatever process acts.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from envservers.counting import CountingSuite, check_transition
from vlarl.config.embodiments import load_embodiment
from vlarl.model.presets import build, channel_bounds_codec, new_contract

CONFIG = Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml"
SIZE = 64
PATIENCE = 300.0
"""Seconds until a test gives up: far more than anything takes."""
_calls = 0


def honest(seen, plan: str = "", marks: str = ""):
    """The executed steps; `plan` is `VICTIM:CALL,...`, each carried out once, marked in a folder.

    Victims: `server` (the first), `host` (of the servers), `self`, `node` (this process's, if it is
    not the head), `envnode` (of the first server).
    """
    global _calls
    check_transition(seen.before, seen.actions, seen.after)
    _calls += 1
    for entry in filter(None, plan.split(",")):
        victim, call = entry.split(":")
        if victim == "node" and ray_node() == (Path(marks) / "head").read_text():
            continue
        if _calls >= int(call) and first_time(Path(marks) / victim):
            end(victim)
    return seen.after.executed.astype("float32")


def ray_node():
    import ray

    return ray.get_runtime_context().get_node_id()


def first_time(mark):
    try:
        mark.open("x").close()
    except FileExistsError:
        return False
    return True


def end(victim):
    servers = processes(b"envservers.server")
    if victim == "server":
        os.kill(servers[0], signal.SIGKILL)
    elif victim == "host":
        os.kill(parent(servers[0]), signal.SIGKILL)
    elif victim == "node":
        # A node is its raylet: whatever runs there ends with it.
        os.kill(parent(os.getpid()), signal.SIGKILL)
        signal.pause()
    elif victim == "envnode":
        # What ran beside its raylet would outlive it for seconds.
        host = parent(servers[0])
        beside = [server for server in servers if parent(server) == host]
        for process in (parent(host), host, *beside):
            os.kill(process, signal.SIGKILL)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def until(condition, what):
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def processes(word, mark=None):
    """Ids of the living processes whose command line holds `word` and whose variables `mark`.

    `mark` is by default this process's own, so that nobody else's are found.
    """
    mark = (mark or f"VLARL_TEST_FAULTS={os.environ['VLARL_TEST_FAULTS']}").encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if word in command and mark in variables:
            found.append(int(entry.name))
    return sorted(found)


def counting_checkpoint(folder):
    """A tiny model for the counting suite, whose instructions are longer than most."""
    spec = CountingSuite(1, image_size=SIZE).spec
    words = "count_blue with seed 1000000 and more"
    contract = new_contract(spec.cameras, load_embodiment(spec.embodiment), instructions=[words])
    torch.manual_seed(0)
    build("tiny", contract, channel_bounds_codec(contract)).save_pretrained(folder)
    return folder


def counting_overrides(tmp_path, *overrides, plan=""):
    """Over the debug config: two server processes of two environments, and the reward above."""
    marks, checkpoint = tmp_path / "marks", tmp_path / "counting"
    marks.mkdir(exist_ok=True)
    if not checkpoint.exists():
        counting_checkpoint(checkpoint)
    return [
        *(f"output={tmp_path}", f"model.checkpoint={checkpoint}", "env.suite=counting"),
        *("env.mode=spawn", "env.servers=2", "env.envs_per_server=2", f"env.image_size={SIZE}"),
        *("env.max_steps=20", "reward.name=counting_run:honest"),
        f"reward.parameters={{plan: '{plan}', marks: '{marks}'}}",
        *overrides,
    ]
