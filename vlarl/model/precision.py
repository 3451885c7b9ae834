"""Number formats: which weights are bfloat16, and which stay float32 whatever is asked for.

Float32 stay the value head, the layers that end in the velocity, the noise's standard deviation,
the adapters, and, of the language model, norms and decay rates: together next to nothing. What
trains in bfloat16 is stepped by float32 masters, which the learners keep.
"""

from __future__ import annotations

import torch
from torch import nn

from vlarl.model.lora import is_adapter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_OWN = ("value_head.", "exploration_log_std", "expert.action_out.")
_LANGUAGE = "backbone.model.language_model."
_SENSITIVE = ("norm.weight", "A_log", "dt_bias")


def stays_float32(name: str) -> bool:
    """Whether the model's parameter of this name is float32 in a model of any format."""
    sensitive = name.startswith(_LANGUAGE) and name.endswith(_SENSITIVE)
    return name.startswith(_OWN) or sensitive or is_adapter(name)


def format_of(name: str, wanted: torch.dtype) -> torch.dtype:
    """The format of the parameter of this name in a model of format `wanted`."""
    return torch.float32 if stays_float32(name) else wanted


def cast(model: nn.Module, wanted: torch.dtype) -> None:
    """Convert a whole model in place, parameter by parameter; buffers stay as they are."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(format_of(name, wanted))
