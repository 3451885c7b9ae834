"""Progress away from a terminal: plain lines, the last one complete."""

import io

import pytest

from vlarl import progress
from vlarl.progress import Progress


def test_plain_lines_tell_count_rate_and_remaining_time(monkeypatch):
    clock = iter([0.0, 0.0, *(4.0 * step for step in range(1, 20) for _ in range(2))])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress("training", 6, "iterations", stream) as bar:
        for _ in range(6):
            bar.advance(success=0.5)
    lines = stream.getvalue().splitlines()
    assert 1 < len(lines) < 6
    assert all(line.startswith("training: ") and line.endswith("success=0.5") for line in lines)
    assert " left" in lines[0]
    assert "6/6 iterations" in lines[-1]
    assert " left" not in lines[-1]


def test_nothing_is_claimed_after_a_failure():
    stream = io.StringIO()

    def fail():
        with Progress("training", 6, stream=stream):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert stream.getvalue() == ""


def test_reach_sets_the_count():
    stream = io.StringIO()
    with Progress("collecting", 4, "episodes", stream) as bar:
        bar.reach(3)
        bar.reach(4)
    assert stream.getvalue().startswith("collecting: 4/4 episodes")


def test_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress("training", 2, "steps", stream) as bar:
        bar.advance(2, loss=0.25)
    assert "training" in stream.getvalue()
    assert "2/2" in stream.getvalue()
    assert "loss=0.25" in stream.getvalue()
