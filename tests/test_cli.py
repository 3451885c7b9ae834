"""The command line: exit codes, JSON on its own, help for every command, lazy imports."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actors import cli
from actors.commands import COMMANDS, load_command
from actors.commands.command import Command, Invocation
from envservers.tabletop.suite import STATE_DIM, TabletopSuite
from vlarl.errors import UserError
from vlarl.runs import RunFolder

ROOT = Path(__file__).resolve().parents[1]
NO_MAPPINGS = ("3", "", "{a", "{a: 1}}", "[1]", "{a: 'x}")


def vlarl(*words):
    return subprocess.run(
        [sys.executable, "-m", "actors.cli", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from actors import cli; code = cli.run(['--help']);"
        "heavy = {'torch', 'ray', 'omegaconf', 'mujoco', 'numpy', 'transformers'};"
        "sys.exit(code or bool(heavy & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0
    assert all(f"  {name} " in answer.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    assert cli.run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"vlarl {name} ")
    assert f"Example:\n  vlarl {name} " in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reprot", "x"], "Did you mean report?"),
        (["report"], "report needs RUN"),
        (["report", "a", "b"], "'b' is one argument too many"),
        (["report", "a", "--jsn"], "no such option"),
        (["report", "a", "x=1", "x=2"], "given twice"),
        (["report", "a", "deep=1"], "no such setting"),
        (["report", "nowhere"], "no such run"),
        (["collect", "tabletop", "episodes=4"], "out=DIR"),
        (["collect", "tabletop", "out=x", "episode=4"], "Did you mean episodes?"),
        (["collect", "tabletop", "out=x", "episodes=four"], "whole number"),
        (["collect", "tabletop", "out=x", "tasks=spoon_on_towl"], "task 'spoon_on_towl'; known:"),
        (["collect", "tabletop", "out=x", "image_size=100000"], "MiB are free"),
        (["envserver", "tabletop", "num_envs=0"], "at least 1"),
        *((["envserver", "tabletop", f"options={text}"], "not a mapping") for text in NO_MAPPINGS),
        (["info", "modle"], "Did you mean model?"),
        (["info", "suites", "seed=1"], "no settings"),
        (["info", "config", "ppo.epoch=2"], "Did you mean ppo.epochs?"),
        (["rl", "nowhere.yaml"], "no such config file"),
        (["eval", "tabletop-sft", "episodes=0"], "at least 1"),
        (["bench", "env"], "Did you mean envs?"),
        (["bench", "envs", "model=tiny"], "bench envs: model: no setting of this one"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(words, message, capsys):
    assert cli.run(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("vlarl: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_an_env_server_is_started_where_only_its_requirements_are():
    code = (
        "import os, sys\n"
        "absent = ('omegaconf', 'torch', 'ray', 'rich', 'transformers')\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "os.execv = lambda _program, words: sys.exit(print(words))\n"
        "from actors import cli\n"
        "sys.exit(cli.run(['envserver', 'counting', 'options={max_steps: 80}']))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.stderr == ""
    assert answer.returncode == 0
    assert '{"max_steps": 80}' in answer.stdout


def test_nobody_listening_is_one_message_with_the_command_that_starts_a_server(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        words = [f"env.addresses=[{address}]", "env.mode=connect", "env.deadline_seconds=0.3"]
        assert cli.run(["eval", "tabletop-sft", *words]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"no env server answers at {address}" in message
    assert "Start one: vlarl envserver tabletop" in message
    assert f"bind={address}" in message


def test_an_environment_that_returns_nan_ends_a_run_as_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        TabletopSuite, "state", lambda _self, ids: np.full((len(ids), STATE_DIM), np.nan, "f4")
    )
    words = [str(ROOT / "configs/rl/debug.yaml"), "env.restarts=1", f"output={tmp_path}"]
    assert cli.run(["rl", *words]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "vlarl: env server 0 failed once more than its restarts (1) allow: " in message
    assert "NaN or infinity in state of environments [0, 1, 2, 3]" in message
    assert "Look at how the environment computes its state" in message
    assert "env.restarts" in message


def test_stage_of_the_config_must_be_the_command(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("stage: sft\n")
    assert cli.run(["rl", str(file)]) == 2
    assert f"vlarl sft {file}" in capsys.readouterr().err


def test_no_command_shows_the_overview(capsys):
    assert cli.run([]) == 2
    assert "vlarl COMMAND" in capsys.readouterr().out


def test_version():
    answer = vlarl("--version")
    assert answer.returncode == 0
    assert answer.stdout.strip().count(".") == 2


def test_json_stands_alone_on_standard_output(tmp_path):
    RunFolder(tmp_path).log(1, action_loss=0.5)
    answer = vlarl("report", str(tmp_path), "--json")
    assert answer.returncode == 0
    assert json.loads(answer.stdout) == {"path": str(tmp_path / "report.html")}
    assert "report.html" in answer.stderr
    assert "report.html" in vlarl("report", str(tmp_path)).stdout


def fake(monkeypatch, run):
    command = Command(usage="fake", details="", example="vlarl fake", run=run)
    monkeypatch.setattr(cli, "COMMANDS", {"fake": ("fake", "")})
    monkeypatch.setattr(cli, "load_command", lambda _name: command)


def test_failure_is_exit_code_1_with_a_traceback(monkeypatch, capsys):
    def fail(_invocation):
        raise RuntimeError("broken inside")

    fake(monkeypatch, fail)
    assert cli.run(["fake"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_is_exit_code_1_without_a_traceback(monkeypatch, capsys):
    def interrupt(_invocation):
        raise KeyboardInterrupt

    fake(monkeypatch, interrupt)
    assert cli.run(["fake"]) == 1
    assert capsys.readouterr().err == "vlarl: stopped\n"


def test_termination_request_stops_like_ctrl_c():
    code = (
        "import sys, time; from actors import cli; from actors.commands.command import Command\n"
        "def wait(_):\n    print('waiting', flush=True); time.sleep(30)\n"
        "cli.COMMANDS = {'fake': ('fake', '')}\n"
        "cli.load_command = lambda _: Command(usage='', details='', example='', run=wait)\n"
        "cli.main(['fake'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"waiting\n"
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert errors == b"vlarl: stopped\n"


def test_parse_takes_arguments_and_settings_apart():
    found = cli.parse(["rl.yaml", "a.b=c=d", "tasks=x,y"])
    assert found.arguments == ("rl.yaml",)
    assert found.overrides == ["a.b=c=d", "tasks=x,y"]
    assert found.overrides_with({"tasks": "env.tasks"}) == ["a.b=c=d", "env.tasks=[x,y]"]


def test_required_argument_is_named():
    with pytest.raises(UserError, match=r"rl needs CONFIG\.yaml"):
        load_command("rl").check("rl", Invocation())
