"""pip as a child process: its output condensed to a progress bar, its failures to what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from envservers import environments
from vlarl.progress import Progress

CPU_TORCH = "https://download.pytorch.org/whl/cpu"
"""Index of torch without CUDA, for simulators that demand torch; as in the Makefile."""
_LAST_LINES = 12
_INDEX_SECONDS = 5.0
_SIZED = re.compile(r"\s*(?:Downloading|Using cached) (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")
_LOCAL = re.compile(r"Processing (/\S+\.whl)")
_MEGABYTES = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
_REMEDIES = (
    (r"No space left on device|Disk quota exceeded", "free some disk, or set VLARL_SUITES to a "
     "folder where there is more"),
    (r"NewConnectionError|Temporary failure in name resolution|Max retries exceeded|"
     r"ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|Network is unreachable",
     "no package index answers: check the network and PIP_INDEX_URL, or name a folder of wheels "
     "with PIP_FIND_LINKS"),
    (r"requires a different Python|Requires-Python|require a different python version",
     "its pins do not exist for this Python: vlarl suite install {name} python=FILE names another "
     "(3.11 is the one they were tried with)"),
    (r"No matching distribution found", "the package index does not have it: check PIP_INDEX_URL, "
     "or name a folder of wheels with PIP_FIND_LINKS"),
    (r"Failed building wheel|metadata-generation-failed|subprocess-exited-with-error",
     "a package has no wheel for this machine and cannot be built: vlarl suite install {name} "
     "python=FILE names another Python (3.11 is the one they were tried with)"),
)  # fmt: skip
"""Pattern in pip's last lines -> what to do; the first that is found."""


class InstallFailed(RuntimeError):
    """An environment could not be made, or its suite does not run: says why and what to do."""


def pip_install(name: str, interpreter: Path) -> None:
    """Install the pins of environment `name` with its own pip, showing how far it is.

    Raises:
        InstallFailed: with pip's last lines and what to do.
    """
    command = [
        # Isolated: what PYTHONPATH has would count as installed, and servers would not find it.
        *(str(interpreter), "-I", "-m", "pip", "install"),
        *("--no-input", "--disable-pip-version-check"),
        *("--progress-bar", "off", *environments.pip_options(name), *_torch_index(name)),
        *("-r", str(environments.requirements_file(name))),
    ]
    total = max(1, environments.download_megabytes(name))
    last: deque[str] = deque(maxlen=_LAST_LINES)
    megabytes = 0.0
    with (
        Progress(f"installing {name}", total, "MB") as progress,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last.append(line.rstrip())
                megabytes += _size(line)
                progress.show(line.strip()[:100])
                progress.reach(min(total, round(megabytes)))
        except BaseException:
            # A signal may have reached this process alone.
            process.terminate()
            raise
        if process.wait() == 0:
            progress.reach(total)
    if process.returncode:
        raise InstallFailed(failure(name, last))


def failure(name: str, last: Sequence[str]) -> str:
    """The message for a pip that failed with these last lines."""
    text = "\n".join(last)
    matching = (remedy for pattern, remedy in _REMEDIES if re.search(pattern, text))
    remedy = next(matching, "what is wrong is in these lines").format(name=name)
    return (
        f"{name} could not be installed, nothing is left of it. pip's last lines:\n{text}\n{remedy}"
    )


def run_quietly(command: Sequence[str], problem: str, remedy: str) -> str:
    """The standard output of a short command.

    Raises:
        InstallFailed: if it cannot be started or fails, with the end of what it said.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallFailed(f"{problem}: {error}; {remedy}") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:]
        raise InstallFailed("\n".join([f"{problem}:", *said, remedy]))
    return done.stdout


def _size(line: str) -> float:
    """Megabytes of the file that a line of pip's is about; 0 if it is about none."""
    if found := _SIZED.match(line):
        return float(found[2]) * _MEGABYTES[found[3]]
    if (found := _LOCAL.match(line)) and Path(found[1]).is_file():
        return Path(found[1]).stat().st_size / 1e6
    return 0.0


def _torch_index(name: str) -> list[str]:
    """Where torch without CUDA is, if the pins demand torch and there is no NVIDIA driver."""
    demanded = any(line.partition("=")[0] == "torch" for line in environments.requirements(name))
    if not demanded or shutil.which("nvidia-smi") is not None:
        return []
    try:
        urllib.request.urlopen(f"{CPU_TORCH}/torch/", timeout=_INDEX_SECONDS).close()
    except (urllib.error.URLError, TimeoutError):
        return []
    return ["--extra-index-url", CPU_TORCH]
