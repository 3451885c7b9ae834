"""What ships and what it promises: the packaged checkpoint, `vlarl eval` of it, `vlarl demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from actors import cli
from envservers.tabletop import TASKS, TabletopSuite
from vlarl.config.load import load_config
from vlarl.model.checkpoint import resolve
from vlarl.model.qwen_vla import QwenVLA
from vlarl.runs import RunFolder, checkpoint_of

NAME = "tabletop-sft"
TASK_NAMES = {task.name for task in TASKS}
ONE_PROCESS = ("env.mode=inprocess", "runtime.kind=inprocess", "runtime.threads=1", "env.servers=1")
DEMO = (
    *ONE_PROCESS,
    "env.envs_per_server=8",
    "ppo.iterations=2",
    # As many as a whole episode of every stream, so that some succeed and there is what to learn.
    "ppo.decisions_per_stream=8",
    "ppo.minibatch=32",
    "ppo.micro_batch=32",
    "ppo.value_warmup_iterations=1",
    "evaluation.episodes=4",
    "evaluation.videos=1",
    "name=demo",
)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    """JSON and human-readable output of a command that succeeds."""
    code = cli.run([*words, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found, captured.err


def check_rates(summary: dict[str, Any], episodes: int) -> None:
    """A summary as the command line promises it."""
    assert summary["episodes"] == episodes
    low, high = summary["interval"]
    assert 0 <= low <= summary["success_rate"] <= high <= 1
    assert low < high
    assert set(summary["tasks"]) == TASK_NAMES
    assert sum(task["episodes"] for task in summary["tasks"].values()) == episodes


def test_the_checkpoint_is_small_and_fits_the_suite() -> None:
    folder = resolve(NAME)
    assert (folder / "model.safetensors").stat().st_size < 10 * 2**20
    model = QwenVLA.from_pretrained(NAME)
    suite = TabletopSuite(1)
    model.contract.check(suite.spec)
    suite.close()


def test_the_checkpoint_may_be_named_by_its_folder() -> None:
    assert checkpoint_of(resolve(NAME)) == str(resolve(NAME))


def test_how_the_checkpoint_was_made_is_told() -> None:
    text = (resolve(NAME) / "MADE.md").read_text(encoding="utf-8")
    commands = [line.split() for line in text.splitlines() if line.startswith("    vlarl ")]
    assert len(commands) == 1
    _, stage, file, *overrides = commands[0]
    config = load_config(file, overrides)
    assert stage == config.stage == "sft"
    assert f"Seed {config.seed}," in text


def test_evaluation_repeats_itself_and_depends_on_the_seed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ("episodes=8", "env.max_steps=40", *ONE_PROCESS)
    first, text = answer(capsys, "eval", NAME, *settings)
    again, _ = answer(capsys, "eval", NAME, *settings)
    other, _ = answer(capsys, "eval", NAME, "seed=1500000", *settings)
    for summary in (first, other):
        check_rates(summary, 8)
    assert first["seed"] == 1_000_000
    assert other["seed"] == 1_500_000
    assert all(task in text for task in TASK_NAMES)
    assert again == first
    assert first["success_rate"] > 0

    def played(summary: dict[str, Any]) -> list[tuple[str, bool, int]]:
        return [(row["task"], row["success"], row["steps"]) for row in summary["outcomes"]]

    assert played(other) != played(first)


def test_evaluation_asks_for_no_setting_of_training() -> None:
    few = ("episodes=1", "env.max_steps=1", *ONE_PROCESS, "env.envs_per_server=2")
    assert cli.run(["eval", NAME, *few]) == 0


@pytest.mark.slow
def test_the_demo_runs_from_start_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, text = answer(capsys, "demo", "seed=1", f"output={tmp_path}", *DEMO)
    for name in ("sft", "instruct"):
        check_rates(result[name], 4)
    assert result["iterations"] == 2
    assert result["seconds"] > 0
    run = tmp_path / "demo"
    assert result["run"] == str(run)
    for heading in ("SFT", "instruct", "gain", "95% interval", "instruction swapped"):
        assert heading in text
    for task in TASK_NAMES:
        assert task.replace("_", " ") in text

    page = (run / "report.html").read_text(encoding="utf-8")
    for heading in ("Success by task", "Paired difference", "Training", "Rollouts"):
        assert f"<h2>{heading}</h2>" in page
    for figure in ("curves.png", "tasks.png"):
        assert (run / figure).read_bytes().startswith(b"\x89PNG")
    assert {file.name for file in run.glob("videos/*")} == {"sft_0.gif", "instruct_0.gif"}
    kept = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    for name in ("sft", "instruct"):
        assert kept[name]["success_rate"] == result[name]["success_rate"]
        assert len(kept[name]["outcomes"]) == 4
    assert set(kept["swapped"]) == {"sft", "instruct"}
    assert [row["step"] for row in RunFolder(run).metrics()] == [1, 2]

    shipped, trained = QwenVLA.from_pretrained(NAME), QwenVLA.from_pretrained(result["checkpoint"])
    changed = {
        part
        for part, before in shipped.parts().items()
        if not all(map(torch.equal, before, trained.parts()[part]))
    }
    assert changed == {"expert_biases", "value"}
