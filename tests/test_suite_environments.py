"""`vlarl suite`: environments really made, used, broken and removed, from a folder of wheels."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from actors import cli, suite_environments
from actors.pip_install import failure
from envservers import environments, registry
from envservers.client import spawn_server
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

ROOT = Path(__file__).resolve().parents[1]
NAME = "tiny"
OFFLINE = "--no-index\n--find-links {wheels}\n"


def make_wheel(folder, name, version, files):
    """A wheel of these files (path -> text), written by hand: nothing is built."""
    about = f"{name}-{version}.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**files, f"{about}/METADATA": meta, f"{about}/WHEEL": wheel}
    files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Wheels, pins, and a home of environments, of a suite `tiny` that is `counting` in truth."""
    folder = tmp_path_factory.mktemp("suites")
    for part in ("wheels", "pins", "home"):
        (folder / part).mkdir()
    # What env servers need is in this very interpreter's folder: a path file brings it along.
    beside = {"tinysim.py": "SPEED = 1\n", "zz_tinysim.pth": sysconfig.get_path("purelib") + "\n"}
    for version in ("1.0", "1.1"):
        make_wheel(folder / "wheels", "tinysim", version, beside)
    patch = pytest.MonkeyPatch()
    patch.setenv("VLARL_SUITES", str(folder / "home"))
    patch.setattr(environments, "_HERE", folder / "pins")
    entry = dataclasses.replace(registry.SUITES["counting"], environment=NAME)
    patch.setitem(registry.SUITES, "counting", entry)
    pin(folder, "tinysim==1.0")
    yield folder
    patch.undo()


def pin(folder, *lines, name=NAME):
    header = "# about: a simulator of nothing\n# download: 1 MB\n"
    text = header + OFFLINE.format(wheels=folder / "wheels") + "\n".join(lines) + "\n"
    (folder / "pins" / f"{name}.txt").write_text(text)


def answer(capsys, *words, code=0):
    assert cli.run([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def state(capsys, name=NAME):
    found = answer(capsys, "suite", "list")["suites"][name]
    return found["state"], found["text"]


@pytest.mark.slow
def test_the_life_of_an_environment(place, capsys, monkeypatch):
    """One after the other, as each makes what the next one uses: an environment takes seconds."""
    pin(place, "tinysim==1.0")
    # What this shell has on its path is not in the environment.
    with zipfile.ZipFile(next((place / "wheels").glob("tinysim-1.0-*"))) as wheel:
        wheel.extractall(place / "path")
    monkeypatch.setenv("PYTHONPATH", str(place / "path"))
    assert state(capsys) == ("missing", "vlarl suite install tiny (about 1 MB)")
    with pytest.raises(UserError, match="not installed; run: vlarl suite install tiny"):
        spawn_server("counting", 1)
    made = answer(capsys, "suite", "install", NAME)
    assert made == {"installed": {NAME: str(place / "home" / NAME)}, "failed": {}}
    record = environments.record(NAME)
    assert "tinysim==1.0" in record.packages
    assert record.megabytes > 0
    assert state(capsys) == ("ready", "a simulator of nothing")
    check_that_servers_run_there(place)
    check_that_installing_again_does_nothing(capsys)
    check_that_its_python_is_at_hand(place)
    check_that_changes_show(place, capsys)
    check_that_it_can_be_removed(place, capsys)


def check_that_servers_run_there(place):
    client = spawn_server("counting", 2, {"image_size": 8})
    try:
        client.reset(np.arange(2), [EpisodeStart("count_red", 1)] * 2)
        command = Path(f"/proc/{client.pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    finally:
        client.close()
    assert command == str(place / "home" / NAME / "bin" / "python")


def check_that_installing_again_does_nothing(capsys):
    before = environments.interpreter(NAME).lstat().st_ino
    assert cli.run(["suite", "install", NAME]) == 0
    assert "is installed in" in capsys.readouterr().out
    assert environments.interpreter(NAME).lstat().st_ino == before


def check_that_its_python_is_at_hand(place):
    """By hand, without any variable: the light part of this project, and no more of it."""
    code = (
        "import tinysim, envservers.server, sys; print(envservers.__file__, 'torch' in sys.modules)"
    )
    run = [environments.interpreter(NAME), "-I", "-c", code]
    found = subprocess.run(run, capture_output=True, text=True, check=True, cwd=place)
    file, torch = found.stdout.split()
    assert Path(file).resolve() == ROOT / "envservers" / "__init__.py"
    assert torch == "False"


def check_that_changes_show(place, capsys):
    (site,) = (place / "home" / NAME / "lib").glob("python*/site-packages")
    shutil.move(site / "tinysim-1.0.dist-info", site / "tinysim-9.9.dist-info")
    metadata = site / "tinysim-9.9.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "9.9"))
    kind, text = state(capsys)
    assert kind == "broken"
    assert "tinysim==1.0" in text
    assert "tinysim==9.9" in text
    assert "force=true" in text
    pin(place, "# Only words: these change nothing.", "tinysim==1.0")
    assert state(capsys)[0] == "broken"
    pin(place, "tinysim==1.1")
    assert state(capsys)[0] == "outdated"
    with pytest.raises(UserError, match="with other versions than this vlarl needs; run: vlarl"):
        spawn_server("counting", 1)
    assert answer(capsys, "suite", "install", NAME)["failed"] == {}
    assert "tinysim==1.1" in environments.record(NAME).packages
    link = environments.interpreter(NAME)
    target = link.readlink()
    link.unlink()
    link.symlink_to("/nowhere/python")
    assert state(capsys)[0] == "broken"
    with pytest.raises(UserError, match="its Python /nowhere/python is gone"):
        environments.python_of(NAME)
    link.unlink()
    link.symlink_to(target)


def check_that_it_can_be_removed(place, capsys):
    answer(capsys, "suite", "remove", NAME)
    assert not (place / "home" / NAME).exists()
    assert cli.run(["suite", "remove", NAME]) == 0
    assert "nothing to remove" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_installation_says_why_and_leaves_nothing(place, capsys):
    pin(place, "nowhere-to-be-found==3", name="absent")
    try:
        assert cli.run(["suite", "install", "absent"]) == 1
        said = capsys.readouterr().err
    finally:
        (place / "pins" / "absent.txt").unlink()
    assert "No matching distribution found for nowhere-to-be-found==3" in said
    assert "PIP_FIND_LINKS" in said
    assert "Traceback" not in said
    assert not (place / "home" / "absent").exists()


@pytest.mark.slow
def test_an_interrupted_installation_is_never_used(place):
    """Killed while pip works: what is left is no environment, and installing goes on from there."""
    pipe = place / "slow.txt"
    os.mkfifo(pipe)
    # pip waits for the writer of a requirements file that nobody writes.
    pin(place, f"-r {pipe}", name="slow")
    code = (
        "from pathlib import Path; from envservers import environments; from actors import cli\n"
        f"environments._HERE = Path({str(place / 'pins')!r})\n"
        "cli.main(['suite', 'install', 'slow'])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not (place / "home" / "slow" / "bin" / "pip").exists():
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        assert environments.record("slow") is None
        with pytest.raises(UserError, match="only half installed; run: vlarl suite install slow"):
            environments.python_of("slow")
        with pytest.raises(UserError, match="another process is installing or removing slow"):
            suite_environments.install("slow")
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        (place / "pins" / "slow.txt").unlink()
    assert suite_environments.remove("slow")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["install", "tinny"], "Did you mean tiny?"),
        (["install"], "needs NAME"),
        (["install", "tiny", "python=/nowhere/python"], "/nowhere/python'"),
        (["install", "tiny", "force=yes"], "must be true or false"),
        (["install", "domino"], "no package index has it"),
        (["remove", ".."], "no suite environment '..'"),
        (["remove", "../home"], "no suite environment"),
        (["remove", "tinny"], "Did you mean tiny?"),
        (["instal", "tiny"], "Did you mean install?"),
    ],
)
def test_mistakes_are_named(place, capsys, words, message):
    assert cli.run(["suite", *words]) == 2
    assert message in capsys.readouterr().err


def test_nothing_outside_is_removed(place, tmp_path, capsys):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "pyvenv.cfg").write_text("")
    link = place / "home" / NAME
    link.symlink_to(precious)
    try:
        assert cli.run(["suite", "remove", NAME]) == 2
        assert "outside: remove it by hand" in capsys.readouterr().err
    finally:
        link.unlink()
    assert (precious / "pyvenv.cfg").exists()


def test_what_is_built_in_needs_no_installing(place, capsys):
    assert answer(capsys, "suite", "install", "tabletop") == {"installed": {}, "failed": {}}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "VLARL_SUITES"),
        ("Failed to establish: NewConnectionError(...)\nNo matching distribution found", "network"),
        ("ERROR: x requires a different Python: 3.14.0 not in '<3.13'", "python=FILE"),
        ("error: subprocess-exited-with-error", "python=FILE"),
        ("something never seen", "these lines"),
    ],
)
def test_each_failure_of_pip_has_its_remedy(line, remedy):
    text = failure("tiny", ["first", *line.splitlines()])
    assert remedy in text.splitlines()[-1]
    assert line.splitlines()[-1] in text


def test_where_nothing_can_be_written_the_folder_is_named(place, monkeypatch):
    """Not a server that is waited for and never comes."""
    file = place / "no_folder"
    file.touch()
    monkeypatch.setenv("VLARL_SUITES", str(file))
    with pytest.raises(UserError, match=r"/no_folder/.*; make .*/no_folder writable"):
        environments.light_path()


def test_links_to_this_project_may_be_made_by_many_threads_at_once(place, monkeypatch):
    for attempt in range(20):
        monkeypatch.setenv("VLARL_SUITES", str(place / f"many{attempt}"))
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: environments.light_path(), range(8)))
        (links,) = found
        assert sorted(file.name for file in Path(links).iterdir()) == ["envservers", "vlarl"]
