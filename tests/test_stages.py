"""The table of stages: what ships keeps to it, and so does its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlarl.config.load import load_config
from vlarl.config.paths import configs_folder
from vlarl.stages import STAGES, SUPERVISED, Stage

PAGE = Path(__file__).parents[1] / "docs/stages.md"


@pytest.mark.parametrize("stage", SUPERVISED)
def test_shipped_configs_keep_to_the_recipe(stage):
    row, files = STAGES[stage], sorted((configs_folder() / stage).glob("*.yaml"))
    assert files
    for file in files:
        settings = load_config(file).supervised
        assert settings.flow.tau_distribution == row.tau, file
        assert settings.action_weight == 1.0, file
        if not row.images:
            assert settings.data.t2a.prediction == row.predicts, file
        if "vision-language" in row.losses:
            assert settings.vision_language_weight == 0.1, file


def test_text_to_action_takes_the_papers_2000_steps():
    assert load_config(configs_folder() / "t2a/tiny.yaml").supervised.steps == 2000
    assert (
        load_config(configs_folder() / "t2a/tiny.yaml").supervised.data.t2a.synthetic_share == 0.2
    )


def test_each_stage_starts_from_the_one_before():
    names = list(STAGES)
    assert [STAGES[name].starts_from for name in names[1:]] == names[:-1]


def cells(row: Stage) -> list[str]:
    """A row as the page shows it."""
    lists = ", ".join(row.trains), ", ".join(row.losses)
    seen = "yes" if row.images else "no"
    return [row.name, *lists, row.tau, row.predicts, seen, row.starts_from]


def test_the_page_shows_the_table():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert table[2:] == [cells(row) for row in STAGES.values()]
