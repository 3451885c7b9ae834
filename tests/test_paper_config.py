"""Stage IV of the paper: its config file has the paper's numbers, and so does the page about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vlarl.config.checks import value_at
from vlarl.config.load import load_config
from vlarl.config.paths import configs_folder
from vlarl.config.schema import RunConfig

PAGE = Path(__file__).parents[1] / "docs/rl.md"
ROWS = re.findall(r"^\| ([^|]+) \| `([\w.]+)` \| (\S+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config(configs_folder() / "rl/paper_simpler.yaml")


@pytest.mark.parametrize(("words", "key", "value"), ROWS, ids=[row[1] for row in ROWS])
def test_the_page_says_what_the_file_does(config, words, key, value):
    expected = yaml.safe_load(value)
    found = value_at(config, key)
    assert found == type(found)(expected), words


def test_an_iteration_is_as_long_as_in_the_paper(config):
    # 128 x floor(128 / 16) x 8, section 4.2.
    assert config.env.environments == 128
    assert config.decisions_per_iteration == 8192
    assert len(ROWS) == 25


def test_decisions_are_whole_chunks_or_what_ppo_says():
    window = ["rollout.epochs=3", "rollout.control_steps=30", "ppo.minibatch=64"]
    window += ["ppo.micro_batch=64", "sampling.execute_steps=8"]
    assert load_config(None, window).decisions_per_stream == 9
    assert load_config(None, ["ppo.decisions_per_stream=17"]).decisions_per_stream == 17
