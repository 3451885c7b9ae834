"""`vlarl info` and `vlarl doctor`: the same as data and as text."""

import json

import pytest

from actors import cli


def answer(capsys, *words):
    assert cli.run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_config_resolves_overrides(capsys):
    found = answer(capsys, "info", "config", "ppo.epochs=2")
    assert found["config"]["ppo"]["epochs"] == 2


def test_model_counts_every_parameter_once(capsys):
    found = answer(capsys, "info", "model")
    assert set(found["parts"]) == {"vision", "language", "expert", "expert_biases", "value"}
    assert found["parameters"] == sum(found["parts"].values()) > 0
    assert found["contract"]


def test_suites_name_their_tasks(capsys):
    found = answer(capsys, "info", "suites", "counting")
    assert found["suites"]["counting"]["tasks"]


@pytest.mark.parametrize(("topic", "name"), [("rewards", "sparse_success"), ("embodiments", None)])
def test_lists(capsys, topic, name):
    found = answer(capsys, "info", topic)[topic]
    assert found
    assert name is None or name in found


def test_doctor_reports_each_thing_once(capsys):
    found = answer(capsys, "doctor")
    names = [finding["name"] for finding in found["findings"]]
    assert len(set(names)) == len(names)
    assert {"python", "torch", "ray", "mujoco", "opengl", "disk", "memory"} <= set(names)
    assert found["ok"] == all(finding["ok"] for finding in found["findings"])
