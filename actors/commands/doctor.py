"""`vlarl doctor`: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from actors.commands.command import Command, Invocation

GIB = 1024**3
_MESHES = "not needed: images are ray-cast; for suites of meshes"
_IDLE_GPU = (
    "the GPU does not draw: NVIDIA's EGL is missing (libnvidia-gl of the driver's version; in a "
    "container NVIDIA_DRIVER_CAPABILITIES=all)"
)
PACKAGES = ("transformers", "tensordict", "torchrl", "peft", "gymnasium", "wandb", "tensorboard")


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    """Whether the main job can run with it as it is."""
    found: str
    remedy: str = ""
    """What to do for more; also given where all is well but something optional is missing."""


def run(_invocation: Invocation) -> dict[str, Any]:
    """Look at everything; nothing is changed."""
    findings = [finding for check in CHECKS for finding in check()]
    for finding in findings:
        mark = "ok " if finding.ok else "!! "
        remedy = f" ({finding.remedy})" if finding.remedy else ""
        print(f"{mark} {finding.name:<16} {finding.found}{remedy}")
    return {
        "ok": all(finding.ok for finding in findings),
        "findings": [finding._asdict() for finding in findings],
    }


def _machine() -> list[Finding]:
    from envservers.registry import available_memory

    cores = len(os.sched_getaffinity(0))
    free = available_memory()
    version = platform.python_version()
    return [
        Finding("python", sys.version_info >= (3, 11), f"{version} on {platform.platform()}"),
        Finding("cores", cores >= 2, f"{cores}", "" if cores >= 2 else "the demo is planned for 2"),
        Finding(
            "memory",
            free >= 6 * GIB,
            f"{free / GIB:.1f} GiB free",
            "" if free >= 6 * GIB else "the demo may take up to 6 GiB",
        ),
    ]


def _torch() -> list[Finding]:
    import torch

    threads = f"{torch.__version__}, {torch.get_num_threads()} threads by default"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    gpu = Finding(
        "gpu",
        True,
        ", ".join(gpus) or "none that torch can use",
        "" if gpus else "not needed for the tiny model",
    )
    return [Finding("torch", True, threads), gpu]


def _kernels() -> list[Finding]:
    from vlarl.model.kernels import missing_kernels

    lacking = ", ".join(missing_kernels())
    remedy = "not needed for the tiny model; on a GPU: pip install 'vlarl[gpu]'" if lacking else ""
    found = f"missing: {lacking}" if lacking else "flash-linear-attention, causal-conv1d"
    return [Finding("gpu kernels", True, found, remedy)]


def _ray() -> list[Finding]:
    found = _version("ray")
    if not found:
        return [Finding("ray", False, "missing", "pip install ray, or runtime.kind=inprocess")]
    return [Finding("ray", True, found)]


def _mujoco() -> list[Finding]:
    found = _version("mujoco")
    enough = bool(found) and int(found.split(".")[0]) >= 4
    remedy = "" if enough else "pip install 'mujoco>=4'"
    return [Finding("mujoco", enough, found or "missing", remedy)]


def _opengl() -> list[Finding]:
    from envservers import opengl
    from envservers.graphics_probe import probe

    tried = {backend: probe(backend) for backend in opengl.PACKAGES}
    enough = any(graphics.ok for graphics in tried.values())
    # One of them is enough: the remedy of the other is given only where none works.
    findings = []
    for backend, graphics in tried.items():
        idle = Path("/dev/nvidiactl").exists() and graphics.ok and not graphics.hardware
        remedy = "" if graphics.ok or enough else f"{_MESHES}: {opengl.PACKAGES[backend]}"
        if idle and backend == "egl":
            remedy = _IDLE_GPU
        elif not graphics.ok and enough:
            remedy = f"the other is enough; {opengl.PACKAGES[backend]}"
        findings.append(Finding(f"opengl {backend}", True, graphics.text, remedy))
    return findings


def _vulkan() -> list[Finding]:
    from envservers import vulkan
    from envservers.graphics_probe import probe

    graphics = probe("vulkan")
    remedy = vulkan.remedy(graphics)
    wanted = f"for suites of SAPIEN (Mesa {vulkan.OLDEST_MESA} or newer, or a GPU): {remedy}"
    return [Finding("vulkan", True, graphics.text, wanted if remedy else "")]


def _suites() -> list[Finding]:
    from actors.suite_environments import states

    found = [state for state in states() if state.state not in ("built in", "elsewhere")]
    # One that was never asked for is no fault; one that was and cannot be used is.
    return [
        Finding(
            f"suite {state.name}",
            state.state in ("ready", "missing"),
            state.state,
            "" if state.state == "ready" else state.text,
        )
        for state in found
    ]


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        found, optional = _version(name), name in ("wandb", "tensorboard")
        remedy = "" if found else f"pip install {name}"
        findings.append(Finding(name, bool(found) or optional, found or "missing", remedy))
    return findings


def _storage() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    findings = [
        Finding(
            "disk",
            free >= GIB,
            f"{free / GIB:.1f} GiB free in {Path.cwd()}",
            "" if free >= GIB else "runs and datasets need about 1 GiB",
        )
    ]
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared)
        small = size.free < 256 * 1024**2
        remedy = "small: images and Ray's object store fall back to disk" if small else ""
        findings.append(Finding("/dev/shm", True, f"{size.free / GIB:.2f} GiB free", remedy))
    else:
        findings.append(Finding("/dev/shm", True, "none", "images are exchanged on disk"))
    return findings


def _checkpoint() -> list[Finding]:
    folder = Path(__file__).resolve().parents[2] / "vlarl" / "checkpoints" / "tabletop-sft"
    present = (folder / "model.safetensors").is_file()
    found = "tabletop-sft ships with the package" if present else "tabletop-sft is missing"
    return [Finding("checkpoint", present, found, "" if present else "reinstall vlarl")]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    _machine,
    _torch,
    _kernels,
    _ray,
    _mujoco,
    _opengl,
    _vulkan,
    _suites,
    _packages,
    _storage,
    _checkpoint,
)

COMMAND = Command(
    usage="doctor",
    settings={},
    details=(
        "Looks at torch, GPU, Ray, MuJoCo, OpenGL and Vulkan (both really tried), suites that are\n"
        "installed, memory and disk. Changes nothing."
    ),
    example="vlarl doctor --json",
    run=run,
)
