"""Servers that change their suite while rollout goes on: between two windows, nothing mixed up."""

from __future__ import annotations

import dataclasses
import threading
from itertools import pairwise

import numpy as np
import torch
from counting_run import counting_overrides
from test_stream import check_history, wait_until
from test_suites import BLUE, BOTH, DEBUG, ENVS, MOVING, NAMES, RED, T, collector_of

from actors.env_host import EnvAccess, EnvHost
from actors.evaluation import EvaluationRequest
from actors.runtime import InprocessRuntime
from actors.stream import RolloutStream
from vlarl.config.load import load_config

ALL_WON = dict.fromkeys(NAMES, 500)
SHORT_HARD = ALL_WON, {NAMES[0]: 500, NAMES[1]: 500, NAMES[2]: 0}
LONG_HARD = ALL_WON, {NAMES[0]: 0, NAMES[1]: 0, NAMES[2]: 500}
BEFORE = ["long", "long", "short", "short"]
AFTER = ["long", "short", "short", "short"]


def moving_collector(access, **options):
    return collector_of(access, MOVING, alone=False, in_turn=False, **options)


def turned(collector, histories):
    """One turn as the rollout's thread does it; what was handed over, by server."""
    collector.turn(lambda: 0, 0.0)
    segments, tally = collector.take_segments()
    for segment in segments:
        check_history(segment.rows)
        histories[segment.server].append(segment.rows)
    assert tally.dropped_decisions == tally.dropped_episodes == tally.restarts == 0
    return {segment.server for segment in segments}


def follows(earlier, later):
    """Whether a server's segment begins where its last one ended, in every environment."""
    shown = later["context", "shown"].view(ENVS, T, 8)[:, 0]
    last = earlier["context", "shown"].view(ENVS, T, 8)[:, -1]
    ended = (earlier["terminated"] | earlier["truncated"]).view(ENVS, T)[:, -1]
    step = torch.where(ended, 0.0, last[:, 2] + earlier["reward"].view(ENVS, T)[:, -1])
    return torch.equal(shown[:, 1], last[:, 1] + ended) and torch.equal(shown[:, 2], step)


def test_a_server_moves_when_its_window_is_full_and_taken_and_no_decision_is_lost():
    collector = moving_collector(EnvAccess(BOTH, None))
    histories = [[] for _ in range(4)]
    collector.begin()
    while len(collector._lanes[1].window) != 2:
        turned(collector, histories)
    collector.allocate(*SHORT_HARD)
    assert collector.suites == BEFORE
    taken = set()
    while 1 not in taken:
        collector.move_due()
        assert collector.suites == BEFORE, "not in the middle of a window"
        taken = turned(collector, histories)
    collector.move_due()
    assert collector.suites == AFTER
    moved_after = len(histories[1])
    while len(histories[1]) < moved_after + 3:
        turned(collector, histories)
        collector.move_due()
    for server, segments in enumerate(histories):
        joins = [follows(*pair) for pair in pairwise(segments)]
        expected = [True] * len(joins)
        if server == 1:
            expected[moved_after - 1] = False
        assert joins == expected, server
    before, after = histories[1][:moved_after], histories[1][moved_after:]
    assert all((rows["task"] != NAMES.index(f"short/{BLUE}")).all() for rows in before)
    assert all((rows["task"] == NAMES.index(f"short/{BLUE}")).all() for rows in after)
    first = after[0]["context", "shown"].view(ENVS, T, 8)[:, 0]
    assert (first[:, 1:3] == torch.tensor([1.0, 0.0])).all(), "a new server's first episodes"


def test_a_move_that_is_no_longer_due_is_forgotten():
    collector = moving_collector(EnvAccess(BOTH, None))
    histories = [[] for _ in range(4)]
    collector.begin()
    while len(collector._lanes[1].window) != 2:
        turned(collector, histories)
    collector.allocate(*SHORT_HARD)
    # As hard as the other: both are due what they have.
    collector.allocate(dict.fromkeys(NAMES, 10**6), dict.fromkeys(NAMES, 0))
    for _ in range(12 * T):
        turned(collector, histories)
        collector.move_due()
    assert collector.suites == BEFORE


def test_servers_move_to_and_fro_while_others_take_allocate_and_read_the_position():
    """As in a run with several workers, whose threads do all this at the same time."""
    collector = moving_collector(EnvAccess(BOTH, None))
    stream = RolloutStream(collector, lambda: 0, max_staleness=0, threads=1)
    seen, reached = [SHORT_HARD, LONG_HARD], set()
    try:
        for turn in range(24):
            batch, stats = stream.take()
            check_history(batch)
            assert stats.dropped_decisions == stats.restarts == 0
            # Streams are 4 x ENVS, whoever has them; of a suite of one task all.
            assert sum(stats.allocation.values()) == 4 * ENVS
            # Five times as much evidence as before, so that the rates turn.
            counts = [{k: v * 5**turn for k, v in each.items()} for each in seen[turn % 2]]
            collector.allocate(*counts)
            wanted = [AFTER, ["long", "long", "long", "short"]][turn % 2]
            wait_until(lambda wanted=wanted: sorted(collector.suites) == wanted)
            position = collector.position()
            successor = moving_collector(EnvAccess(BOTH, None))
            successor.load_state_dict(position)
            assert sorted(successor.suites) == wanted
            successor.collect()
            reached.add(tuple(collector.suites))
    finally:
        stream.close()
    assert len(reached) >= 2


def test_real_servers_move_while_the_thread_goes_on():
    config = dataclasses.replace(BOTH, mode="spawn")
    host = EnvHost(config)
    access = EnvAccess(config, host)
    collector = moving_collector(access)
    stream = RolloutStream(collector, lambda: 0, max_staleness=0, threads=1)
    try:
        check_history(stream.take()[0])
        pids = host.pids()
        collector.allocate(*SHORT_HARD)
        wait_until(lambda: collector.suites == AFTER)
        # What waits was made before; then come whole windows of the new server.
        found = []
        for _ in range(4):
            batch, stats = stream.take()
            check_history(batch)
            assert stats.dropped_decisions == stats.dropped_episodes == stats.restarts == 0
            found.append(stats.allocation)
        assert found[-1] == {f"long/{RED}": 1, f"long/{BLUE}": 1, f"short/{BLUE}": 6}
        kept = [one == other for one, other in zip(pids, host.pids(), strict=True)]
        assert kept == [True, False, True, True]
        stream.pause()
        assert collector.suites == AFTER
    finally:
        stream.close()
        access.close()
        host.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollout")]


def test_a_run_whose_servers_moved_evaluates_saves_and_resumes(tmp_path):
    env = ("env.suite=", "env.servers=", "env.envs_per_server=", "env.image_size=", "env.max_steps")
    words = [word for word in counting_overrides(tmp_path) if not word.startswith(env)]
    words += ["rollout.mode=async", "rollout.max_staleness=50", "env.mode=inprocess"]
    first, second = "manipulation/count_red", "navigation/count_blue"
    for name in (first, second):
        suite, task = name.split("/")
        key = f"env.suites.{suite}"
        words += [f"{key}.suite=counting", f"{key}.tasks=[{task}]", f"{key}.image_size=64"]
    config = load_config(DEBUG, words)
    torch.set_num_threads(1)
    runtime = InprocessRuntime(config)
    collector = runtime._learner.worker._collector
    row = runtime.iterate()
    assert row[f"allocation/{first}"] == row[f"allocation/{second}"] == 4
    collector.allocate(dict.fromkeys((first, second), 10**6), {first: 10**6, second: 0})
    after = ["manipulation", "navigation", "navigation", "navigation"]
    wait_until(lambda: collector.suites == after)
    row = runtime.iterate()
    assert (row[f"allocation/{first}"], row[f"allocation/{second}"]) == (2, 6)
    assert row["dropped_decisions"] == row["dropped_episodes"] == 0
    assert all(np.isfinite(list(row.values())))
    summary = runtime.evaluate(EvaluationRequest(4, 1_000_000)).summary
    assert [of_task["episodes"] for of_task in summary["tasks"].values()] == [2, 2]
    folder = tmp_path / "saved"
    folder.mkdir()
    runtime.save(folder)
    runtime.close()
    resumed = InprocessRuntime(config, folder)
    assert resumed._learner.worker._collector.suites == after
    assert resumed.iterate()[f"allocation/{second}"] == 6
    resumed.close()
