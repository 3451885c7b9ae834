"""Virtual environments of suites that need other pins than this project's: where, and whether.

One folder for each under the user's cache (`VLARL_SUITES`, else `$XDG_CACHE_HOME/vlarl/suites`,
else `~/.cache/vlarl/suites`). `<name>.txt` beside this file pins what belongs into it; a record
written last says what was installed, so that a half-made environment is never used. Making and
removing them is the command line's business (`vlarl suite`). No simulator is imported here.

A pins file is what pip reads, with up to five comments that are read here:

    # about: 50 manipulation tasks of a Sawyer arm
    # download: 150 MB
    # pip: --no-deps
    # then: what no package index has, and how it gets here
    # beside: distributions that are put into it by hand
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from vlarl.errors import UserError

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_LIGHT = ("vlarl", "envservers")
"""The packages that an env server needs; neither torch nor Ray nor what comes with them."""
_RECORD = "installed.json"


@dataclass(frozen=True)
class Installed:
    """The record of an environment that is complete."""

    name: str
    requirements: str
    """SHA-256 of the requirements that it was made from."""
    python: str
    """Version of its interpreter."""
    packages: tuple[str, ...]
    """`name==version` of everything in it."""
    date: str
    megabytes: int = 0
    """That it takes on disk."""


def names() -> list[str]:
    """Environments that there can be."""
    return sorted(file.stem for file in _HERE.glob("*.txt"))


def requirements_file(name: str) -> Path:
    """What is installed into the environment."""
    return _HERE / f"{name}.txt"


def requirements(name: str) -> list[str]:
    """Its lines, without comments."""
    lines = (line.strip() for line in requirements_file(name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def requirements_digest(name: str) -> str:
    """SHA-256 of what decides what is installed: other words in a comment change nothing."""
    decisive = [*requirements(name), *pip_options(name)]
    return hashlib.sha256("\n".join(decisive).encode()).hexdigest()


def about(name: str) -> str:
    """What the suite is, in a few words; empty if its pins do not say."""
    return _comment(name, "about")


def pip_options(name: str) -> list[str]:
    """Further options of `pip install`, which a requirements file cannot hold."""
    return _comment(name, "pip").split()


def download_megabytes(name: str) -> int:
    """That installing downloads, about; 0 if its pins do not say."""
    found = re.fullmatch(r"(\d+) MB", _comment(name, "download"))
    return int(found[1]) if found else 0


def then(name: str) -> str:
    """What the suite needs beside its pins, which no package index has; empty if nothing."""
    return _comment(name, "then")


def beside(name: str) -> set[str]:
    """Distributions that are put into it by hand, which are no change of what was installed."""
    return set(_comment(name, "beside").split())


def assets(name: str) -> Path:
    """Where a suite looks for what `then` names, unless an option says otherwise.

    Not in the environment's own folder, which is removed when it is made anew.
    """
    return home() / "assets" / name


def _comment(name: str, key: str) -> str:
    text = requirements_file(name).read_text()
    found = re.search(rf"^# {key}: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def home() -> Path:
    """Folder of all environments; it need not exist."""
    own = os.environ.get("VLARL_SUITES")
    if own:
        return Path(own).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "vlarl" / "suites"


def folder(name: str) -> Path:
    """Of one environment."""
    return home() / name


def interpreter(name: str) -> Path:
    """Its Python."""
    return folder(name) / "bin" / "python"


def record(name: str) -> Installed | None:
    """What was installed; None if nothing was, or not to the end."""
    file = folder(name) / _RECORD
    if not file.is_file() or not interpreter(name).exists():
        return None
    values = json.loads(file.read_text())
    return Installed(**{**values, "packages": tuple(values["packages"])})


def write_record(installed: Installed) -> None:
    """Declare an environment complete."""
    file = folder(installed.name) / _RECORD
    file.write_text(json.dumps(asdict(installed), indent=1) + "\n")


def problem(name: str) -> str:
    """Why the environment cannot be used, with the remedy; empty if it can."""
    found = record(name)
    remedy = f"run: vlarl suite install {name}"
    if found is None:
        begun = folder(name).exists()
        if (folder(name) / _RECORD).is_file():
            return f"installed, but its Python {interpreter(name).resolve()} is gone; {remedy}"
        return f"{'only half' if begun else 'not'} installed; {remedy}"
    if found.requirements != requirements_digest(name):
        return f"installed on {found.date} with other versions than this vlarl needs; {remedy}"
    return ""


def python_of(name: str) -> str:
    """Interpreter of an environment that is ready.

    Raises:
        UserError: if it is not, with the remedy.
    """
    wrong = problem(name)
    if wrong:
        raise UserError(f"suite environment {name!r} ({folder(name)}) is {wrong}")
    return str(interpreter(name))


def light_path() -> str:
    """A folder that holds this very project's light packages and nothing else, for `PYTHONPATH`.

    Links, so that both ends of a connection run the same code; the folder that holds the project
    itself may hold all that is installed beside it, such as another NumPy.

    Raises:
        UserError: if there is none and none can be made.
    """
    place = home() / ".light" / hashlib.sha256(str(_ROOT).encode()).hexdigest()[:12]
    try:
        place.mkdir(parents=True, exist_ok=True)
        for package in _LIGHT:
            link, target = place / package, _ROOT / package
            if not (link.is_symlink() and link.readlink() == target):
                # Another process or thread may be doing the same: replacing is atomic.
                draft = place / f".{package}.{uuid.uuid4().hex}"
                draft.symlink_to(target)
                draft.replace(link)
    except OSError as error:
        raise UserError(
            f"cannot put links to this project into {place}: {error}; make {home()} writable, or "
            "name another folder (VLARL_SUITES=DIR) and install the suites there"
        ) from error
    return str(place)
