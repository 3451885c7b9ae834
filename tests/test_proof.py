"""The proof of a run: what was found before and after, kept, compared, never measured twice."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.evaluation import EvalResult
from actors.proof import AFTER, BEFORE, Proof
from vlarl.config.load import load_config
from vlarl.evaluation.results import Outcome, SwapOutcome, summarize, summarize_swap
from vlarl.runs import RunFolder

CONFIG = Path(__file__).parents[1] / "configs" / "rl" / "debug.yaml"
TASKS = ("spoon_on_towel", "carrot_on_plate")


class FakeRuntime:
    """Succeeds on every seed below `skill`."""

    spec = SimpleNamespace(control_hz=5.0)

    def __init__(self, skill):
        self.skill, self.requests = skill, []

    def evaluate(self, request, progress=None):
        self.requests.append(request)
        seeds = range(request.episodes)
        if request.swap:
            return EvalResult(
                summarize_swap(
                    [
                        SwapOutcome(TASKS[s % 2], TASKS[1 - s % 2], s, False, s < self.skill, 9)
                        for s in seeds
                    ],
                    request.seed,
                )
            )
        outcomes = [Outcome(TASKS[s % 2], s, s < self.skill, 9) for s in seeds]
        return EvalResult(summarize(outcomes, request.seed))


def make_config(tmp_path, *overrides):
    return load_config(
        CONFIG, [f"output={tmp_path}", "evaluation.episodes=20", "name=run", *overrides]
    )


def test_before_and_after_are_compared_on_the_same_request(tmp_path, capsys):
    config = make_config(tmp_path)
    runtime = FakeRuntime(skill=4)
    with_run = RunFolder.create(config)
    proof = Proof(config, with_run, runtime)
    proof.judge(BEFORE)
    runtime.skill = 18
    proof.judge(AFTER)
    result = proof.conclude(seconds=3.0)
    plain = [request for request in runtime.requests if not request.swap]
    assert plain[0] == plain[1]
    assert result["paired"]["difference"] == pytest.approx(14 / 20)
    assert result["paired"]["interval"][0] > 0
    assert result["swapped"][AFTER]["named"]["success_rate"] == pytest.approx(18 / 20)
    assert "outcomes" not in result[BEFORE]
    assert (
        len(json.loads((with_run.path / "evaluation.json").read_text())[BEFORE]["outcomes"]) == 20
    )
    assert Path(result["report"]).exists()
    assert "spoon on towel" in capsys.readouterr().out


def test_a_resumed_run_keeps_what_was_found_before(tmp_path):
    config = make_config(tmp_path)
    Proof(config, RunFolder.create(config), FakeRuntime(skill=4)).judge(BEFORE)
    again = make_config(tmp_path, "resume=auto")
    later = FakeRuntime(skill=20)
    proof = Proof(again, RunFolder.create(again), later)
    assert proof.judge(BEFORE) == 0.0
    assert not later.requests
    assert proof.found[BEFORE]["success_rate"] == pytest.approx(4 / 20)
