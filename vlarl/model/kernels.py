"""Libraries that make the backbone faster on a GPU: whether they are there.

Transformers takes them by itself when they can be imported. Without them the same numbers come from
slower code, but for `flash_attention_2`, which has to be asked for.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil

from transformers import Qwen3_5Config
from transformers.utils import is_flash_attn_2_available

from vlarl.errors import ConfigError

KERNELS = {"flash-linear-attention": "fla", "causal-conv1d": "causal_conv1d"}
"""Distribution -> module: kernels of the linear-attention layers."""

logger = logging.getLogger(__name__)


def missing_kernels() -> list[str]:
    """The distributions of `KERNELS` that are not installed."""
    return [name for name, module in KERNELS.items() if importlib.util.find_spec(module) is None]


def check_attention(choice: str) -> None:
    """Refuse an attention that this machine cannot compute.

    Raises:
        ConfigError: naming what is missing.
    """
    if choice == "flash_attention_2" and not is_flash_attn_2_available():
        raise ConfigError(
            "model.attention = 'flash_attention_2': needs a GPU and the flash-attn library, which "
            "are not both here. pip install flash-attn on a GPU machine, or model.attention=sdpa"
        )


def check_compiler() -> None:
    """Refuse to compile where there is no compiler.

    Raises:
        ConfigError: naming what is missing.
    """
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise ConfigError(
            "model.compile = True: needs a C++ compiler, and there is none. apt install g++, or "
            "model.compile=false"
        )


def note_missing_kernels(config: Qwen3_5Config) -> None:
    """Say, once in a process, what a model with linear attention goes without."""
    if "linear_attention" in config.text_config.layer_types and missing_kernels():
        _say(", ".join(missing_kernels()))


@functools.cache
def _say(names: str) -> None:
    # Transformers would say so for every function, from within the first forward pass.
    logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    logger.warning(
        "%s not installed: linear attention runs in plain PyTorch, right, but slower on a GPU and "
        "with more memory; there, pip install 'vlarl[gpu]'",
        names,
    )
