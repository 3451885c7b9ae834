"""Low-rank adapters on linear layers of the backbone, by `peft`, in place.

The layers keep their weights, frozen; what an adapter adds starts at zero. Adapters are float32
whatever the weights are. Names: a layer `X.weight` becomes `X.base_layer.weight`, beside
`X.lora_A.default.weight` and `X.lora_B.default.weight`; `plain_name` undoes that for checkpoints.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import nn
from transformers import Qwen3_5ForConditionalGeneration

from vlarl.config.schema import LoraConfig
from vlarl.errors import ConfigError

_BASE, _ADAPTER = ".base_layer.", ".lora_"


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is an adapter's."""
    return _ADAPTER in name


def plain_name(name: str) -> str:
    """The name that a parameter has without adapters."""
    return name.replace(_BASE, ".")


def adapters_of(backbone: nn.Module) -> list[nn.Parameter]:
    """The adapters' parameters; empty without any."""
    return [parameter for name, parameter in backbone.named_parameters() if is_adapter(name)]


def add_adapters(
    backbone: Qwen3_5ForConditionalGeneration, config: LoraConfig, empty: bool = False
) -> None:
    """Put adapters on every linear layer that a target fits; outputs stay as they are.

    Their random half is the same each time, and no random number of the caller's is used.

    Args:
        backbone: without adapters.
        config: with a rank of at least 1.
        empty: without memory, on the meta device: their weights are about to be read.

    Raises:
        ConfigError: for a target that fits no linear layer.
    """
    # Here, so that models without adapters do not wait for it.
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    assert config.rank > 0
    assert not adapters_of(backbone)
    peft = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=_targeted(backbone, config.targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inject_adapter_in_model(peft, backbone, low_cpu_mem_usage=empty)
    for parameter in adapters_of(backbone):
        parameter.data = parameter.data.float()


def merge_adapters(backbone: Qwen3_5ForConditionalGeneration) -> None:
    """Add every adapter to its layer's weight and take it away; outputs stay up to rounding."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {n: m for n, m in backbone.named_modules() if isinstance(m, BaseTunerLayer)}
    assert layers
    for name, layer in layers.items():
        layer.merge()
        owner, _, leaf = name.rpartition(".")
        setattr(backbone.get_submodule(owner), leaf, layer.get_base_layer())


def _targeted(backbone: Qwen3_5ForConditionalGeneration, targets: tuple[str, ...]) -> list[str]:
    """Names of the linear layers that the patterns fit, as `backbone` knows them."""
    inner = backbone.model
    layers = [name for name, module in inner.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(fnmatchcase(name, target) for name in layers):
            raise ConfigError(
                f"model.lora.targets: {target!r} fits no linear layer of the backbone; there are, "
                f"for example, {layers[0]} and {layers[-1]}"
            )
    fitting = [name for name in layers if any(fnmatchcase(name, target) for target in targets)]
    return [f"model.{name}" for name in fitting]
