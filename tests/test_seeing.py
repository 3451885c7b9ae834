"""What a run says of itself: seconds by cause, memory, servers' counters, the profile."""

import json
import mmap
import os
import sys
import types
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_policy import FakePolicy

from actors.controller import train
from actors.episodes import EpisodeSource
from actors.lane import Phase
from actors.process_stats import ServerCounters, merge_use, process_use
from actors.rollout import RolloutCollector
from envservers.counting import TASKS, CountingSuite
from envservers.inprocess import InprocessClient
from envservers.registry import make_suite
from envservers.service import SuiteService
from vlarl.causes import CAUSES, seconds_by_cause
from vlarl.config.load import load_config
from vlarl.errors import EnvServerDied
from vlarl.metric_names import meaning
from vlarl.runs import RunFolder
from vlarl.types import EpisodeStart

CONFIG = Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml"
MEASURED = ("seconds", "share", "per_second", "memory_bytes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same run, with and without a profile; env servers are processes."""
    torch.set_num_threads(1)
    folders = {}
    for profile in ("true", "false"):
        output = tmp_path_factory.mktemp(profile)
        overrides = [f"output={output}", f"profile={profile}", "env.mode=spawn"]
        overrides += ["evaluation.every=1", "evaluation.episodes=2"]
        train(load_config(CONFIG, overrides))
        folders[profile] = RunFolder(output / "debug")
    return folders


def test_causes_are_parts_of_the_iteration(runs):
    first, second = runs["false"].metrics()
    for row in (first, second):
        whole = sum(row[f"{name}_seconds"] for name in ("iteration", "evaluation", "saving"))
        parts = sum(row.get(metric, 0.0) for metric in CAUSES.values())
        assert parts <= whole
        assert sum(seconds_by_cause(row).values()) == pytest.approx(whole)
        waiting = row["waiting_simulation_seconds"] + row["waiting_reset_seconds"]
        assert row["waiting_seconds"] == pytest.approx(waiting)
    # Everything was done here but publishing: worker and learner share their weights.
    elsewhere = ("publishing", "waiting for decisions")
    assert all(second[metric] > 0 for cause, metric in CAUSES.items() if cause not in elsewhere)
    assert "publishing_seconds" not in second
    # The server worked in windows alone, as far as rows are concerned. One that is busy when a
    # window ends tells of it the next time.
    both = {name: first[name] + second[name] for name in second if name in first}
    busy = both["server_simulation_seconds"] + both["server_render_seconds"]
    assert 0 < both["server_render_seconds"] < busy <= both["iteration_seconds"]
    assert second["learner_memory_bytes"] > second["server_memory_bytes"] > 0


def test_an_asynchronous_run_shows_what_its_servers_do_and_use(runs, tmp_path):
    words = ["env.mode=spawn", "env.servers=1", "rollout.mode=async", "ppo.iterations=3"]
    words += ["evaluation.every=2", "evaluation.episodes=2", "rollout.max_staleness=9"]
    train(load_config(CONFIG, [f"output={tmp_path}", *words]))
    rows = RunFolder(tmp_path / "debug").metrics()
    in_turn = {name for name in runs["false"].metrics()[-1] if name.startswith("server_")}
    assert {name for name in rows[-1] if name.startswith("server_")} == in_turn
    for row in rows:
        assert row["server_simulation_seconds"] >= 0
        assert row["server_render_seconds"] >= 0
    assert sum(row["server_render_seconds"] for row in rows) > 0
    assert rows[-1]["server_memory_bytes"] > 10e6


def test_every_metric_of_a_run_is_explained(runs):
    names = {name for row in runs["false"].metrics() for name in row} - {"step", "seconds"}
    assert not [name for name in names if meaning(name) is None]


def test_a_profile_changes_no_number(runs):
    found = [
        [
            {name: value for name, value in row.items() if not name.endswith(MEASURED)}
            for row in run.metrics()
        ]
        for run in runs.values()
    ]
    assert found[0] == found[1]
    weights = [
        (run.path / "checkpoints/last/model.safetensors").read_bytes() for run in runs.values()
    ]
    assert weights[0] == weights[1]
    assert not (runs["false"].path / "profile.json").exists()


def test_a_profile_shows_every_part_and_its_spans_nest(runs):
    events = json.loads((runs["true"].path / "profile.json").read_text())["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            spans[tracks[event["tid"]]].append(event)
    names = {track: {span["name"] for span in found} for track, found in spans.items()}
    assert names == {
        "controller": {"iterate", "evaluate", "save"},
        "worker": {"window", "policy", "value", "wait for simulation", "wait for resets"},
        "env server 0": {"chunk", "reset"},
        "learner": {"update", "forward", "backward", "step"},
    }
    for found in spans.values():
        around = []
        for span in sorted(found, key=lambda span: (span["ts"], -span["dur"])):
            end = span["ts"] + span["dur"]
            while around and around[-1] <= span["ts"] + 1:
                around.pop()
            assert not around or end <= around[-1] + 1
            around.append(end)
    # Two epochs of two minibatches; four decisions, each a policy call and a chunk.
    assert sum(span["name"] == "backward" for span in spans["learner"]) == 4
    assert sum(span["name"] == "policy" for span in spans["worker"]) == 4
    assert sum(span["name"] == "chunk" for span in spans["env server 0"]) == 4


class FakeClient:
    """Answers `stats` as told."""

    def __init__(self, pid, busy, render=0.0, steps=0.0):
        self.pid, self.busy, self.render, self.steps = pid, busy, render, steps

    def stats(self):
        if self.busy is None:
            raise EnvServerDied("gone")
        return {
            "pid": self.pid,
            "busy_seconds": self.busy,
            "render_seconds": self.render,
            "env_steps": self.steps,
            "memory_bytes": 1000.0,
        }


def asked(counters, *clients):
    counters.ask(enumerate(clients))
    return counters.told()


def test_counters_are_differences_and_survive_a_restart():
    counters = ServerCounters()
    one, two = FakeClient(11, 5.0, 2.0, 50.0), FakeClient(12, 1.0, 0.5, 10.0)
    asked(counters, one, two)
    one.busy, one.render, one.steps = 8.0, 3.0, 80.0
    found = asked(counters, one, two)
    assert found == {
        "server_simulation_seconds": 2.0,
        "server_render_seconds": 1.0,
        "server_steps_per_second": 10.0,
        "server_memory_bytes": 2000.0,
    }
    two.busy = None
    one.busy = 9.0
    assert asked(counters, one, two)["server_simulation_seconds"] == 1.0
    # Another process in its place begins from zero.
    found = asked(counters, one, FakeClient(13, 0.25))
    assert found["server_simulation_seconds"] == 0.25
    assert asked(counters)["server_steps_per_second"] == 0.0
    # What is skipped counts for nothing, but what was counted before it is told.
    one.busy = 10.0
    counters.ask([(0, one)])
    one.busy = 30.0
    counters.skip([(0, one)])
    one.busy = 30.5
    assert asked(counters, one)["server_simulation_seconds"] == 1.5


def test_a_server_in_this_process_has_no_memory_of_its_own():
    found = asked(ServerCounters(), InprocessClient(CountingSuite(2)))
    assert "server_memory_bytes" not in found
    assert "server_memory_bytes" in asked(ServerCounters(), FakeClient(os.getpid() + 1, 1.0))


def test_a_suite_that_takes_anothers_place_in_this_process_counts_from_zero():
    counters = ServerCounters()
    client = InprocessClient(CountingSuite(2))
    start = [EpisodeStart(TASKS[0], 3)] * 2
    client.reset(np.arange(2), start)
    client.step(np.arange(2), np.zeros((2, 1, 3), np.float32))
    assert asked(counters, client)["server_steps_per_second"] > 0
    fresh = InprocessClient(CountingSuite(2))
    found = asked(counters, fresh)
    assert found["server_steps_per_second"] == found["server_simulation_seconds"] == 0


def test_use_of_several_workers():
    workers = [
        {"worker_memory_bytes": 1.0, "server_render_seconds": 2.0, "server_steps_per_second": 3.0},
        {"worker_memory_bytes": 4.0, "server_render_seconds": 5.0, "server_steps_per_second": 6.0},
    ]
    assert merge_use(workers) == {
        "worker_memory_bytes": 5.0,
        "server_render_seconds": 7.0,
        "server_steps_per_second": 4.5,
    }


def test_memory_of_this_process_grows_with_what_it_holds():
    before = process_use("learner", torch.device("cpu"))
    # Pages that no allocator may have had before.
    size = 2**26
    held = mmap.mmap(-1, size)
    for first in range(0, size, mmap.PAGESIZE):
        held[first] = 1
    after = process_use("learner", torch.device("cpu"))
    held.close()
    assert list(before) == ["learner_memory_bytes"]
    assert after["learner_memory_bytes"] - before["learner_memory_bytes"] > 0.9 * size


def test_what_torch_and_the_driver_say_of_a_gpu(monkeypatch):
    peaks = [3.0, 2.0, 2.0]
    answers = [75, "not supported"]

    class NVMLError(Exception):
        pass

    def utilization(device):
        answer = answers.pop(0)
        if isinstance(answer, str):
            raise NVMLError(answer)
        return answer

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1.0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.pop(0))
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    driver = types.ModuleType("pynvml")
    driver.NVMLError = NVMLError
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    gpu = torch.device("cuda", 0)
    found = process_use("learner", gpu)
    del found["learner_memory_bytes"]
    assert found == {
        "learner_gpu_memory_bytes": 1.0,
        "learner_gpu_memory_peak_bytes": 3.0,
        "learner_gpu_utilization": 0.75,
    }
    found = process_use("learner", gpu)
    assert found["learner_gpu_memory_peak_bytes"] == 2.0
    assert "learner_gpu_utilization" not in found
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "learner_gpu_utilization" not in process_use("learner", gpu)


@pytest.mark.parametrize("suite", ["tabletop", "navigation"])
def test_suites_that_draw_count_how_long(suite):
    service = SuiteService(make_suite(suite, 2))
    before = service.stats()["render_seconds"]
    start = EpisodeStart(service.spec.tasks[0], 3)
    service.reset(torch.arange(2).numpy(), [start, start])
    stats = service.stats()
    assert before < stats["render_seconds"] < stats["busy_seconds"]


class Busy(InprocessClient):
    """Has not answered yet, when told so."""

    late = False

    def ready(self):
        return not self.late and super().ready()


def test_servers_that_are_still_resetting_are_not_asked():
    clients = [Busy(CountingSuite(3, 10)) for _ in range(2)]
    source = EpisodeSource(TASKS, (0,), 6)
    collector = RolloutCollector(
        clients, FakePolicy(), lambda seen: seen.after.reward, source, 6, seed=(0,)
    )
    resetting = 0
    for _ in range(6):
        collector.collect()
        clients[0].late = True
        found = [number for number, _ in collector.unoccupied()]
        waits = collector._lanes[0].phase is Phase.RESETTING
        assert found == ([1] if waits else [0, 1])
        clients[0].late = False
        resetting += waits
    assert resetting
