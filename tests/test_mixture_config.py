"""Config of mixtures: Table 1 as it ships, and every rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vlarl.config.data_schema import SourceConfig
from vlarl.config.load import dump_config, load_config
from vlarl.errors import ConfigError

KEY = "supervised.data.mixture"
ONE = f"{KEY}={{a: {{path: x}}}}"
TALKS = f"{KEY}={{a: {{path: x.jsonl, kind: conversations}}}}"
PROPORTIONS = {
    "Robot Manipulation Trajectories": 74.2,
    "Human Egocentric Trajectories": 6.0,
    "Navigation Trajectories": 7.5,
    "Synthetic Simulation Trajectories (ours)": 3.7,
    "General Vision-Language Data": 3.4,
    "Spatial Grounding (2D)": 2.5,
    "Autonomous Driving VQA": 2.4,
    "Fine-Grained Embodied Action Caption": 0.2,
}


def test_table_1_ships_with_its_names_and_proportions():
    mixture = load_config("configs/mixtures/table1.yaml").supervised.data.mixture
    assert {name: source.weight for name, source in mixture.items()} == PROPORTIONS
    assert sum(PROPORTIONS.values()) == pytest.approx(99.9)
    kinds = [source.kind for source in mixture.values()]
    assert kinds == ["robot", "human", "navigation", "robot", *["conversations"] * 4]


def test_a_mixture_is_read_overridden_and_written(tmp_path):
    file = tmp_path / "run.yaml"
    sources = {"a b": {"path": "x", "weight": 2}, "c": {"path": "y.json", "kind": "conversations"}}
    data = {"stage": "sft", "supervised": {"data": {"mixture": sources}}}
    file.write_text(yaml.safe_dump(data))
    words = [f"{KEY}.a b.weight=3", f"{KEY}.d.path=z", f"{KEY}.d.kind=navigation"]
    config = load_config(file, words)
    assert config.supervised.data.mixture == {
        "a b": SourceConfig("x", weight=3.0),
        "c": SourceConfig("y.json", "conversations"),
        "d": SourceConfig("z", "navigation"),
    }
    dump_config(config, tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml") == config


def test_two_sources_with_one_name_are_refused(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("supervised: {data: {mixture: {a: {path: x}, a: {path: y}}}}\nstage: sft\n")
    with pytest.raises(ConfigError, match=r"(?s)run\.yaml: .*found duplicate key a"):
        load_config(file)
    with pytest.raises(ConfigError, match="found duplicate key a"):
        load_config(None, ["stage=sft", f"{KEY}={{a: {{path: x}}, a: {{path: y}}}}"])


def test_where_a_weight_was_set_is_told(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("supervised: {data: {mixture: {a: {path: x, weight: -1}}}}\nstage: sft\n")
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert str(error.value).startswith(f"{Path(file)}: {KEY}.a.weight = -1.0: must be")


def source(**settings: object) -> str:
    """A mixture of one good source and one with these settings."""
    words = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return f"{KEY}={{good: {{path: x}}, bad: {{path: y, {words}}}}}"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([f"{KEY}={{}}"], f"{KEY} = {{}}: an empty mixture. Name sources"),
        ([source(weight=-1)], f"{KEY}.bad.weight = -1.0: must be a finite number, at least 0"),
        ([source(weight=".nan")], f"{KEY}.bad.weight = nan: must be a finite"),
        ([source(weight=".inf")], f"{KEY}.bad.weight = inf: must be a finite"),
        ([source(weight="much")], "could not be converted to Float"),
        ([f"{KEY}={{a: {{path: x, weight: 0}}}}"], "all weights are zero"),
        ([source(paht="x")], "Key 'paht' not in 'SourceConfig'"),
        ([f"{KEY}=3"], "Give it a mapping such as `{NAME: {path: FOLDER, kind: robot"),
        ([f"{KEY}={{a: 3}}"], "Give it a mapping such as `{NAME: {path"),
        ([source(kind="navigaton")], "Did you mean navigation?"),
        ([f"{KEY}={{a: {{weight: 1}}}}"], f"{KEY}.a.path = '': is empty"),
        ([f"{KEY}={{'a.b': {{path: x}}}}"], "'a.b' is no name for a source"),
        ([f"{KEY}={{'': {{path: x}}}}"], "'' is no name for a source"),
        ([source(kind="human")], f"{KEY}.bad.eigengrasps = '': is needed by kind=human"),
        ([source(eigengrasps="h.json")], "has no effect with kind=robot"),
        ([source(kind="conversations", embodiment="counting")], "no effect with kind=conversation"),
        ([source(embodiment="widowx")], f"{KEY}.bad.embodiment = 'widowx': names no robot"),
        (
            [f"{KEY}={{a: {{path: x, kind: human, eigengrasps: f}}, "
             "b: {path: y, kind: human, eigengrasps: g}}"],
            "human sources have different eigengrasps",
        ),
        ([ONE, "supervised.data.path=x"], f"no effect with {KEY}"),
        ([ONE, "supervised.collect.episodes=3"], f"no effect with {KEY}"),
        ([ONE, "model.history=2"], f"no effect with {KEY}"),
        ([ONE, "model.state=dit"], f"no effect with {KEY}"),
        ([ONE, "supervised.localization.steps=3"], f"no effect with {KEY}"),
        ([ONE, "supervised.context_gigabytes=3"], f"no effect with {KEY}"),
        ([ONE, "supervised.action_weight=0"], "supervised.action_weight = 0.0: is zero beside"),
        ([ONE, "supervised.data.image_tokens=9"], "has no effect without data.conversations"),
        ([TALKS, "supervised.vision_language_weight=0"], "is zero beside sources"),
        (
            [TALKS, "supervised.optimizer.learning_rates={language: 1e-4, expert: 1e-4}"],
            "has a rate for the expert, but no source has actions",
        ),
        (
            [TALKS, "supervised.optimizer.learning_rates={expert: 1e-4}"],
            "trains nothing by conversations",
        ),
        ([ONE, "stage=rl"], "has no effect with stage=rl"),
    ],
)  # fmt: skip
def test_what_is_no_mixture_is_one_error(words, problem):
    with pytest.raises(ConfigError) as error:
        load_config(None, ["stage=sft", *words])
    assert problem in str(error.value)
    assert str(error.value).startswith("command line: ")


def test_budgets_of_conversations_count_for_a_mixture_with_some():
    rates = "supervised.optimizer.learning_rates={language: 1e-4}"
    words = [TALKS, rates, "supervised.data.image_tokens=9", "supervised.optimizer.warmup_steps=0"]
    assert load_config(None, ["stage=sft", *words]).supervised.data.image_tokens == 9
