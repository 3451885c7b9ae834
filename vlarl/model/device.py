"""Where a model's tensors live: `runtime.device` as torch takes it, and rows on their way there.

Batches stay on the CPU, and so does every generator: the same seed draws the same numbers on each
device. Leaves out how Ray deals out GPUs.
"""

from __future__ import annotations

import os

import torch
from tensordict import TensorDict

from vlarl.errors import ConfigError

CPU = torch.device("cpu")


def resolved(name: str) -> torch.device:
    """The device of `runtime.device` (`auto`, `cpu`, `cuda` or `cuda:N`) on this machine.

    Raises:
        ConfigError: for a GPU that torch does not find.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not found):
        return CPU
    # Under `torchrun` each process of a machine has a GPU of its own.
    index = int(name.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"))
    if index < found:
        return torch.device("cuda", index)
    seen = f"{found} GPU{'s' * (found != 1)}" if found else "no GPU that it can use"
    remedy = "runtime.device=cuda:0" if found else "runtime.device=cpu, or a torch built for CUDA"
    raise ConfigError(
        f"runtime.device = {name!r}: torch finds {seen} here (`vlarl doctor`). Use {remedy}."
    )


def on(device: torch.device, rows: TensorDict) -> TensorDict:
    """The same rows on `device`: themselves, if that is where they are."""
    if all(leaf.device == device for leaf in rows.values(True, True)):
        return rows
    return rows.to(device)
