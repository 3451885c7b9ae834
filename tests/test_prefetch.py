"""Worker processes load ahead and change nothing: same steps, same messages, no process left."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_supervised import CONFIG, Log, make_dataset, make_grounding, make_model

from learners.prefetch import Prefetch
from learners.supervised import SupervisedTrainer
from vlarl.config.data_schema import DataConfig
from vlarl.config.schema import OptimizerConfig
from vlarl.data.skipped import SkippedEpisodes
from vlarl.errors import UserError


def children() -> list[int]:
    """Processes that this one started and that are still there."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.fixture(autouse=True)
def others():
    """Children that other tests of this process left running, such as a resource tracker."""
    before = children()
    yield before
    assert children() == before


def test_values_come_in_order_from_other_processes_wherever_the_series_begins(others):
    made = Prefetch(lambda number: (number, os.getpid(), torch.full((2,), number)), workers=2)
    for first in (3, 11, 2):
        for number in range(first, first + 9):
            value, process, tensor = made.at(number)
            assert value == number
            assert process != os.getpid()
            assert tensor.tolist() == [number, number]
        assert len(children()) == len(others) + 2
    made.close()


def test_an_error_comes_with_its_value_as_it_was_raised():
    def make(number: int) -> int:
        if number == 4:
            raise UserError("the fifth is broken")
        if number == 6:
            raise OSError(28, "no space")
        return number

    made = Prefetch(make, workers=2)
    assert [made.at(number) for number in range(4)] == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"^the fifth is broken$"):
        made.at(4)
    assert made.at(5) == 5
    with pytest.raises(OSError, match="no space"):
        made.at(6)
    made.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_episodes_are_counted_named_once_and_limited_as_without_workers(capsys, workers):
    """Each value meets the episode of its number; those of multiples of four are corrupt."""
    skipped = SkippedEpisodes(Path("data"), 40, limit=0.1)

    def make(number: int) -> int:
        if number % 4 == 0:
            skipped.add(number // 2 * 2, UserError(f"no {number}"))
            skipped.add(0, UserError("again"))
        return number

    made = Prefetch(make, workers, [skipped])
    counts = []
    for number in range(16):
        made.at(number)
        counts.append(len(skipped))
    assert counts == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    with pytest.raises(UserError, match=r"5 of 40 .*\(0, 4, 8, 12, 16\).*limit=0\.1.*no 16"):
        made.at(16)
    made.close()
    assert capsys.readouterr().err.count("is skipped") == 5


def test_a_worker_that_dies_is_told_of():
    made = Prefetch(lambda number: os.kill(os.getpid(), signal.SIGKILL), workers=1)
    with pytest.raises(RuntimeError, match=r"workers=1 died.*fewer workers, or 0"):
        made.at(0)


def test_signals_to_the_group_are_the_parents_business(others):
    made = Prefetch(lambda number: number, workers=2)
    made.at(0)
    for process in set(children()) - set(others):
        os.kill(process, signal.SIGINT)
        os.kill(process, signal.SIGTERM)
    assert [made.at(number) for number in range(1, 9)] == list(range(1, 9))
    made.close()


def test_workers_end_with_a_parent_that_is_killed():
    code = """
import os
from learners.prefetch import Prefetch
made = Prefetch(lambda number: os.getpid(), workers=2)
print(*{made.at(number) for number in range(8)}, flush=True)
os.kill(os.getpid(), 9)
"""
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    workers = [int(word) for word in done.stdout.split()]
    assert workers
    deadline = time.monotonic() + 30
    while any(alive(process) for process in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether there is such a process, and it is not dead but unburied."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


RATES = {
    "all": {"vision": 2e-3, "language": 2e-3, "expert": 2e-3},
    "expert": {"expert": 2e-3},
}


@pytest.mark.parametrize("micro_batch", [0, 3])
@pytest.mark.parametrize("trains", ["all", "expert"])
def test_a_run_with_workers_is_the_run_without(trains, micro_batch):
    """Also when it is resumed; with `expert`, contexts are remembered."""
    speaks = trains == "all"
    config = replace(
        CONFIG,
        steps=4,
        micro_batch=micro_batch,
        grounding_batch_size=2 if speaks else 0,
        expert_only_steps=1 if speaks else 0,
        optimizer=OptimizerConfig(learning_rates=RATES[trains], warmup_steps=1),
        data=DataConfig(objects_per_answer=2),
    )
    ahead = replace(config, data=replace(config.data, workers=2))
    dataset, scenes = make_dataset(), make_grounding() if speaks else None
    whole, parts = Log(), Log()
    one, two = (make_model(dataset, awake=True) for _ in range(2))
    SupervisedTrainer(one, config, dataset, scenes, 7, whole).train()
    first = SupervisedTrainer(two, ahead, dataset, scenes, 7, parts)
    first.train(until=2)
    later = SupervisedTrainer(two, ahead, dataset, scenes, 7, parts)
    later.load_state_dict(first.state_dict())
    later.train()
    for step, row in whole.rows.items():
        found, expected = (
            {k: v for k, v in each.items() if k != "steps_per_second"}
            for each in (parts.rows[step], row)
        )
        assert found == expected
    values = two.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in one.state_dict().items())
