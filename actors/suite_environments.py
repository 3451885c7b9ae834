"""Makes, tries, judges and removes the virtual environments of suites. Behind `vlarl suite`.

Where they are and whether they can be used is said by `envservers.environments`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from actors.commands.command import hint
from actors.pip_install import InstallFailed, pip_install, run_quietly
from envservers import environments, registry
from envservers.client import spawn_server
from envservers.environments.elsewhere import ELSEWHERE
from vlarl.errors import EnvServerError, UserError
from vlarl.types import EpisodeStart

__all__ = ["InstallFailed", "check_name", "install", "remove", "starts", "states"]

_LIGHT_PATH_FILE = "vlarl-light.pth"
"""In the environment's site-packages: lets its Python import the light packages by hand."""
_PLAY_SECONDS = 300.0
"""For an answer in the try: a new environment's first import compiles all of its files."""
_LOOK = (
    "import importlib.metadata as m, json, platform, sysconfig; print(json.dumps({"
    "'python': platform.python_version(), 'site': sysconfig.get_path('purelib'), 'packages': "
    "sorted({d.metadata['Name'] + '==' + d.version for d in m.distributions()})}))"
)
_LACKING = (
    "import sys; sys.path.insert(0, sys.argv[1]); from envservers import registry; "
    "print(registry.lacking(sys.argv[2]), end='')"
)


class _Look(TypedDict):
    """What an environment's Python says of itself."""

    python: str
    site: str
    packages: list[str]


class SuiteState(NamedTuple):
    """Whether a suite can be used."""

    name: str
    state: str
    """`built in`, `ready`, `incomplete`, `missing`, `outdated`, `broken` or `elsewhere`."""
    text: str
    """What it is, or why it cannot be used and what to do."""
    megabytes: int = 0
    """On disk."""


def check_name(name: str) -> bool:
    """Whether there is something to install.

    Raises:
        UserError: if no environment is called so.
    """
    known = environments.names()
    if name in known:
        return True
    entry = registry.SUITES.get(name.partition(":")[0])
    if entry is not None and not entry.environment:
        print(f"{name} is built in: nothing to install")
        return False
    if name in ELSEWHERE:
        raise UserError(f"suite {name!r} cannot be installed from here: {ELSEWHERE[name]}")
    raise UserError(f"no suite environment {name!r}. {hint(name, tuple(known))}")


def install(name: str, python: str = "") -> environments.Installed:
    """Make the environment anew, whatever there was.

    Args:
        name: of the environment.
        python: interpreter to make it with; empty: this one.

    Raises:
        UserError: if there is no such interpreter.
        InstallFailed: saying why and what to do; nothing is left of it.
    """
    base = shutil.which(python or getattr(sys, "_base_executable", "") or sys.executable)
    if base is None:
        raise UserError(f"python = {python!r}: no such program")
    folder = environments.folder(name)
    with _alone(name):
        _delete(folder)
        complete = False
        try:
            _make(name, base, folder)
            pip_install(name, environments.interpreter(name))
            found = _look(environments.interpreter(name))
            (Path(found["site"]) / _LIGHT_PATH_FILE).write_text(environments.light_path() + "\n")
            made = environments.Installed(
                name=name,
                requirements=environments.requirements_digest(name),
                python=found["python"],
                packages=tuple(found["packages"]),
                date=date.today().isoformat(),
                megabytes=_megabytes(folder),
            )
            environments.write_record(made)
            complete = True
        finally:
            # Ctrl-C too leaves nothing behind that looks like an environment.
            if not complete:
                _delete(folder)
    return made


def starts(name: str) -> dict[str, float]:
    """Start a server of each suite that lives in the environment, reset, step, close it.

    Returns:
        Suite -> seconds that took.

    Raises:
        InstallFailed: with what the server said. The environment stays: what is missing may be this
            machine's, such as OpenGL, or time on a busy one.
    """
    taken = {}
    for suite in _suites(name):
        begun = time.monotonic()
        try:
            _play(suite)
        except (UserError, EnvServerError) as error:
            raise InstallFailed(
                f"{name} is installed, but {suite} does not run here: {error}\n"
                f"It stays; vlarl suite install {name} force=true makes it anew"
            ) from error
        taken[suite] = time.monotonic() - begun
    return taken


def removable(name: str) -> Path:
    """The folder of an environment.

    Raises:
        UserError: for a name that is none, or a folder that is not right below `home()`.
    """
    folder = environments.folder(name)
    plain = bool(name) and name == Path(name).name and not name.startswith(".")
    if plain and (name in environments.names() or (folder / "pyvenv.cfg").is_file()):
        if folder.resolve().parent != environments.home().resolve():
            raise UserError(f"{folder} leads to {folder.resolve()}, outside: remove it by hand")
        return folder
    raise UserError(f"no suite environment {name!r}. {hint(name, tuple(environments.names()))}")


def remove(name: str) -> bool:
    """Delete the environment; whether there was one.

    Raises:
        UserError: as `removable`.
    """
    folder = removable(name)
    there = folder.exists()
    with _alone(name):
        _delete(folder)
    return there


def states() -> list[SuiteState]:
    """Of every suite: built in, in an environment, or not to be had from here."""
    found = [
        SuiteState(name, "built in", f"vlarl info suites {name}" if name != "gym" else "gym:ID")
        for name, entry in registry.SUITES.items()
        if not entry.environment
    ]
    found += [state(name) for name in environments.names()]
    ready = {each.name for each in found if each.state in ("ready", "incomplete")}
    return found + [_elsewhere(name, ready) for name in ELSEWHERE]


def state(name: str) -> SuiteState:
    """Of one environment, whose Python is asked what is in it."""
    problem, record = environments.problem(name), environments.record(name)
    size = record.megabytes if record is not None else 0
    if record is None:
        if environments.folder(name).exists():
            return SuiteState(name, "broken", problem)
        megabytes, then = environments.download_megabytes(name), environments.then(name)
        words = f"vlarl suite install {name} (about {megabytes} MB)"
        return SuiteState(name, "missing", f"{words}, then: {then}" if then else words)
    remedy = f"vlarl suite install {name} force=true"
    try:
        there = set(_look(environments.interpreter(name))["packages"])
    except InstallFailed as error:
        return SuiteState(name, "broken", f"its Python does not run: {error}; {remedy}", size)
    if problem:
        return SuiteState(name, "outdated", problem, size)
    by_hand = environments.beside(name)
    changed = sorted(
        package
        for package in there ^ set(record.packages)
        if package.partition("==")[0] not in by_hand
    )
    if changed:
        return SuiteState(name, "broken", f"changed since: {', '.join(changed)}; {remedy}", size)
    suites = [suite for suite in _suites(name) if registry.SUITES[suite].check]
    if lacking := next(filter(None, map(_lacking, suites)), ""):
        return SuiteState(name, "incomplete", lacking, size)
    return SuiteState(name, "ready", environments.about(name), size)


def _suites(name: str) -> list[str]:
    """That an environment has all of: one whose program is fetched by hand was not installed."""
    return [
        suite
        for suite, entry in registry.SUITES.items()
        if entry.environment == name and suite not in ELSEWHERE
    ]


def _elsewhere(suite: str, ready: Collection[str]) -> SuiteState:
    """Of a suite whose program or scenes are fetched by hand, into one of the environments."""
    if registry.SUITES[suite].environment in ready and not _lacking(suite):
        return SuiteState(suite, "ready", f"vlarl info suites {suite}")
    return SuiteState(suite, "elsewhere", ELSEWHERE[suite])


def _lacking(suite: str) -> str:
    """As `registry.lacking` says it in the suite's environment, whose packages are in order."""
    python = environments.interpreter(registry.SUITES[suite].environment)
    command = [str(python), "-I", "-c", _LACKING, environments.light_path(), suite]
    try:
        return run_quietly(command, f"{suite} cannot be asked what it lacks", "make it anew")
    except InstallFailed as error:
        return str(error)


def _make(name: str, base: str, folder: Path) -> None:
    """An empty virtual environment."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    run_quietly(
        [base, "-I", "-m", "venv", str(folder)],
        f"{name}: cannot make a virtual environment with {base}",
        "Debian and Ubuntu keep it apart: apt install python3-venv (python3.11-venv); or name "
        f"another interpreter: vlarl suite install {name} python=FILE",
    )


def _look(interpreter: Path) -> _Look:
    answer = run_quietly(
        [str(interpreter), "-I", "-c", _LOOK], f"{interpreter} does not run", "make it anew"
    )
    found: _Look = json.loads(answer)
    return found


def _play(suite: str) -> None:
    client = spawn_server(suite, 1, deadline=_PLAY_SECONDS)
    try:
        spec = client.spec
        client.reset(np.arange(1), [EpisodeStart(spec.tasks[0], 0)])
        middle = [(channel.low + channel.high) / 2 for channel in spec.channels]
        client.step(np.arange(1), np.array([[middle]], np.float32))
    finally:
        client.close()


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """No other process makes or removes this environment meanwhile.

    Raises:
        UserError: if one is at it.
    """
    environments.home().mkdir(parents=True, exist_ok=True)
    with (environments.home() / f".{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is installing or removing {name}: wait until it is done"
            ) from error
        yield


def _delete(folder: Path) -> None:
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to {folder.resolve()}: remove it by hand")
    if folder.exists():
        shutil.rmtree(folder)


def _megabytes(folder: Path) -> int:
    files = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return round(sum(file.lstat().st_size for file in files) / 1e6)
