"""The live view, rendered to a console that keeps what it was given."""

import io

import pytest
from rich.console import Console

from vlarl.causes import CAUSES, seconds_by_cause
from vlarl.live_view import LiveView, sparkline
from vlarl.progress import Progress

ROW = {
    "success_rate": 0.5,
    "success_rate_smooth": 0.42,
    "decisions_per_second": 123.4,
    "episodes": 56.0,
    "iteration_seconds": 9.0,
    "evaluation_seconds": 1.0,
    "policy_seconds": 4.0,
    "waiting_simulation_seconds": 1.5,
    "waiting_reset_seconds": 0.5,
    "update_seconds": 2.0,
    "approximate_kl": 0.0031,
    "clip_fraction": 0.041,
    "explained_variance": 0.52,
    "restarts_total": 1.0,
    "dropped_episodes_total": 11.0,
    "learner_memory_bytes": 8e8,
    "server_memory_bytes": 2e8,
    "learner_gpu_memory_bytes": 3e9,
    "success_rate/spoon_on_towel": 0.25,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


class AsciiTerminal(Terminal):
    encoding = "ascii"


def drawn(view, width=200, stream=None):
    console = Console(file=stream or Terminal(), width=width, color_system=None)
    console.print(view)
    return console.file.getvalue()


def test_all_of_it_is_said_within_80_columns():
    view = LiveView()
    view.add(ROW)
    text = drawn(view)
    for words in (
        *("42%", "decisions/s 123.4", "episodes 56", "spoon on towel 25%"),
        *("policy 40%", "waiting 20%", "update 20%", "other 20%"),
        *("KL 0.0031", "clipped 4.1%", "explained variance 0.52"),
        *("restarts 1", "dropped episodes 11", "memory 1.00 GB, on GPUs 3.00 GB"),
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80
    bar = next(line for line in text.splitlines() if line.startswith("time"))
    parts = [bar.count(mark) for mark in "█▒▓░"]
    assert sum(parts) == 24
    assert parts[0] == pytest.approx(0.4 * 24, abs=1)
    assert parts[1:] == pytest.approx([0.2 * 24] * 3, abs=1)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_many_long_tasks_fit_too(width):
    view = LiveView({**ROW, f"success_rate/put_the_thing_on_towel_{n}": 0.1} for n in range(20))
    text = drawn(view, width)
    assert max(map(len, text.splitlines())) <= min(width, 80)
    assert "13 more" in " ".join(text.split())


def test_a_terminal_without_unicode_gets_ascii():
    view = LiveView([ROW] * 3)
    assert drawn(view, stream=AsciiTerminal()).isascii()


def test_what_a_row_lacks_is_left_out():
    view = LiveView()
    view.add({"approximate_kl": 0.01})
    assert drawn(view).split() == ["learning", "KL", "0.0100"]


def test_sparkline_rises_with_the_values():
    line = sparkline([0.0, 0.5, 1.0, 2.0])
    assert line[0] < line[1] < line[2] == line[3]
    assert len(sparkline([0.1] * 7, plain=True)) == 7


def test_rows_of_a_continued_run_count():
    rows = [{"success_rate/a": 0.0}, {"success_rate/a": 1.0}]
    once = LiveView(rows)
    again = LiveView(rows[:1])
    again.add(rows[1])
    assert drawn(once) == drawn(again)
    assert "a 10%" in drawn(once)


def test_causes_add_up_to_the_whole():
    found = seconds_by_cause(ROW)
    assert sum(found.values()) == pytest.approx(10.0)
    assert found["other"] == pytest.approx(1.0)
    assert set(found) == {*CAUSES, "other"}
    assert seconds_by_cause({})["other"] == 0.0


def test_rollout_beside_learning_is_no_part_of_its_time():
    found = seconds_by_cause({**ROW, "learner_waiting_seconds": 2.0})
    assert found["waiting for decisions"] == 2.0
    assert found["policy"] == found["waiting for simulation"] == 0.0
    assert sum(found.values()) == pytest.approx(10.0)


def test_progress_shows_the_view_under_its_bar_and_plain_lines_elsewhere():
    view = LiveView()
    terminal, plain = Terminal(), io.StringIO()
    for stream in (terminal, plain):
        with Progress("rl", 2, "iterations", stream) as progress:
            for _ in range(2):
                view.add(ROW)
                progress.show(view)
                progress.advance(1, success=0.5)
    shown = terminal.getvalue()
    assert shown.rindex("spoon on towel") > shown.rindex("2/2")
    assert "success=0.5" not in shown
    assert plain.getvalue().count("\n") == 1
    assert plain.getvalue().endswith("success=0.5\n")
