"""Learners as a group: sums over real processes, and what becomes of it when one is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from two_processes import HOST, together

from actors.learner_group import listen
from learners.measurements import Measurements
from learners.shares import Peers

TESTS = Path(__file__).parent
LONE = """
import sys, time
import torch.distributed as dist
from actors.learner_group import join, reach
from learners.shares import Peers
rank, port = int(sys.argv[1]), int(sys.argv[2])
join(rank, 2, reach(2, ("127.0.0.1", port), 20), 20)
peers = Peers.joined()
peers.total(1.0)
print("joined", flush=True)
if rank:
    time.sleep(120)
peers.total(1.0)
"""


def exchanged(rank: int) -> dict[str, object]:
    """What the arithmetic of peers gives, each process with rows of its own."""
    peers = Peers.joined()
    assert peers.rank == rank
    rows = torch.arange(100, 107)
    dealt = [(part.tolist(), count) for part, count in peers.micro_batches(rows, 2)]
    gathered = {
        size: peers.gathered(size, lambda own: own.float()[:, None] * 2, 2).flatten().tolist()
        for size in (1, 4, 5)
    }
    measured = Measurements(2, torch.device("cpu"))
    measured.counting = rank == 0
    measured.add("loss", torch.tensor(4.0), 3)
    measured.largest("gap", torch.tensor(5.0 + rank))
    measured.counting = True
    measured.add("loss", torch.tensor(1.0 + rank), 1)
    measured.add_up(peers)
    shortest = np.array([9, 9, 9, 1, 9, 9])
    groups = [group.tolist() for group in peers.alike(shortest, 0)]
    return {"dealt": dealt, "gathered": gathered, "means": measured.metrics(), "groups": groups}


@pytest.mark.slow
def test_rows_are_dealt_out_and_gathered_and_what_does_not_count_is_not_measured():
    first, second = together(exchanged)
    assert first["dealt"] == [([100, 102], 2), ([104, 106], 2)]
    assert second["dealt"] == [([101, 103], 2), ([105], 1)]
    for found in (first, second):
        assert found["gathered"] == {1: [0], 4: [0, 2, 4, 6], 5: [0, 2, 4, 6, 8]}
        # (3 * 4 + 1 + 2) / (3 + 1 + 1)
        assert found["means"] == {"loss": 3.0, "gap": 5.0}
    # The short one makes a group of its own on one process; the other splits its own group.
    assert len(first["groups"]) == len(second["groups"]) == 2
    assert sorted(row for group in first["groups"] + second["groups"] for row in group) == [
        *range(6)
    ]


def test_a_process_without_rows_computes_one_that_counts_nothing():
    (only,) = Peers(2, 3).micro_batches(torch.tensor([7, 8]), 4)
    assert (only[0].tolist(), only[1]) == ([7], 0)
    counts = [sum(n for _, n in Peers(r, 3).micro_batches(torch.arange(7), 1)) for r in range(3)]
    batches = [len([*Peers(r, 3).micro_batches(torch.arange(7), 1)]) for r in range(3)]
    assert (counts, batches) == ([3, 2, 2], [3, 3, 3])


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_process_that_is_gone_is_an_error_of_the_others_and_no_hang(number):
    _store, (_, port) = listen(2, HOST, 20)
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "GLOO_SOCKET_IFNAME": "lo"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", LONE, str(rank), str(port)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "joined\n"
        both[1].send_signal(number)
        _, said = both[0].communicate(timeout=90)
        assert both[0].returncode == 1
        assert "RuntimeError" in said or "DistBackendError" in said
    finally:
        for process in both:
            process.kill()
            process.communicate()
