"""`vlarl info` and `vlarl doctor`: the same as data and as text."""

import json
import shutil
from pathlib import Path

import pytest

from actors import cli
from vlarl.model.checkpoint import PACKAGED
from vlarl.runs import RunFolder


def answer(capsys, *words):
    assert cli.run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_config_resolves_overrides(capsys):
    found = answer(capsys, "info", "config", "ppo.epochs=2")
    assert found["config"]["ppo"]["epochs"] == 2


def test_a_checkpoint_is_counted_part_by_part(capsys):
    found = answer(capsys, "info", "model", "tabletop-sft")
    assert set(found["parts"]) == {"backbone", "expert", "value head"}
    lines = [count for group in found["parts"].values() for count in group.values()]
    assert found["parameters"] == sum(lines) > 1_000_000
    assert found["contract"]["cameras"]


def test_the_largest_preset_is_counted_without_its_memory(capsys):
    named = answer(capsys, "info", "model", "model=qwen_vla_4b")
    assert named["parameters"] == 4_539_265_536 + 1_149_096_000 + 2561
    assert named == answer(capsys, "info", "model", "qwen_vla_4b")


def test_metrics_are_explained_as_in_the_docs(capsys):
    assert answer(capsys, "info", "metrics")["metrics"]["success_rate/TASK"]["unit"] == "share"
    assert cli.run(["info", "metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    docs = (Path(__file__).parents[1] / "docs" / "seeing.md").read_text().splitlines()
    assert {f"    {line}" for line in lines} <= set(docs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model", "qwen_vla_4"], "Did you mean qwen_vla_4b"),
        (["model", "ppo.epochs=2"], "only embodiments, model, projection"),
        (["suites", "model=tiny"], "no settings"),
    ],
)
def test_mistakes_are_named(capsys, words, message):
    assert cli.run(["info", *words]) == 2
    assert message in capsys.readouterr().err


def test_suites_name_their_tasks(capsys):
    found = answer(capsys, "info", "suites", "counting")
    assert found["suites"]["counting"]["tasks"]


@pytest.mark.parametrize(("topic", "name"), [("rewards", "sparse_success"), ("embodiments", None)])
def test_lists(capsys, topic, name):
    found = answer(capsys, "info", topic)[topic]
    assert found
    assert name is None or name in found


def test_embodiments_are_a_table(capsys):
    assert cli.run(["info", "embodiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("tienkung_joint_hand"))
    assert row.split("  ")[0] == "tienkung_joint_hand"
    for words in ("TienKung (dexterous hands)", "dual", "30", "14 absolute_joint", "ego"):
        assert words in row


def test_one_embodiment_is_shown_with_its_prompt(capsys):
    assert cli.run(["info", "embodiments", "widowx_eef"]) == 0
    text = capsys.readouterr().out
    assert "delta_roll   rotation_euler  -0.25 to 0.25 rad" in text
    assert "The robot is WidowX with single arm. The control frequency is 5 Hz." in text
    assert "google_robot" not in text


def test_embodiments_as_data_hold_everything(capsys):
    found = answer(capsys, "info", "embodiments", "vln_agent")["embodiments"]
    assert list(found) == ["vln_agent"]
    agent = found["vln_agent"]
    assert [channel["name"] for channel in agent["channels"]] == ["dx", "dy", "dtheta"]
    assert agent["cameras"] == ["ego"]
    assert agent["horizon"] == 8
    assert agent["prompt"].endswith(
        "the next 8 waypoints to execute the following task: {instruction}."
    )
    assert len(answer(capsys, "info", "embodiments")["embodiments"]) >= 20


def test_doctor_reports_each_thing_once(capsys):
    found = answer(capsys, "doctor")
    names = [finding["name"] for finding in found["findings"]]
    assert len(set(names)) == len(names)
    assert {"python", "torch", "ray", "mujoco", "opengl egl", "disk", "memory"} <= set(names)
    assert {"gpu kernels", "peft"} <= set(names)
    assert found["ok"] == all(finding["ok"] for finding in found["findings"])


def test_a_run_is_counted_by_its_last_checkpoint(tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    with run.checkpoint(1) as folder:
        shutil.copytree(PACKAGED / "tabletop-sft", folder, dirs_exist_ok=True)
    assert answer(capsys, "info", "model", str(run.path))["contract"]
    (run.path / "checkpoints" / "step_1" / "contract.json").write_text("{}")
    assert cli.run(["info", "model", str(run.path)]) == 2
    assert "contract.json has 2 bytes" in capsys.readouterr().err
