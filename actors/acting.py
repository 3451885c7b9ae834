"""The policies of a run: how its model acts on each suite's robot."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vlarl.config.schema import RunConfig
from vlarl.config.validate import check_execute_steps
from vlarl.errors import CheckpointError
from vlarl.model.graphs import VelocityGraphs, capture_on
from vlarl.model.qwen_vla import QwenVLA
from vlarl.policy import Policy
from vlarl.types import EnvSpec


def policies_of(
    config: RunConfig, model: QwenVLA, specs: Mapping[str, EnvSpec], shared: bool
) -> dict[str, Policy]:
    """Suite -> what acts there (see `policy_of`); suites with the same robot share theirs."""
    contract = model.contract
    places = {suite: contract.place_of(spec.embodiment) for suite, spec in specs.items()}
    for place in places.values():
        horizon = contract.horizons[place]
        check_execute_steps(config, horizon, config.model.checkpoint or "(none)")
    of_place = {
        place: policy_of(model, config, place, shared) for place in dict.fromkeys(places.values())
    }
    return {suite: of_place[place] for suite, place in places.items()}


def policy_of(model: QwenVLA, config: RunConfig, place: int, shared: bool = False) -> Policy:
    """The policy of the contract's embodiment at `place`; on a GPU by CUDA graphs, if wanted.

    `shared`: a learner trains the same model in another thread. Then there are no graphs: nothing
    else may use the GPU while one is captured.
    """
    graphs = None
    # Projections other than the default ask on the way which embodiments a batch holds; a compiled
    # expert may compile again.
    fixed = model.expert_config.projection == "zero_pad" and not config.model.compile
    wanted = config.runtime.cuda_graphs and not shared
    if wanted and fixed and model.device.type == "cuda":
        graphs = VelocityGraphs(model.velocity, capture_on(model.device))
    return Policy(model, config.sampling, place, graphs, shared)


def refuse_mode_dependence(model: nn.Module) -> None:
    """Refuse a model that computes other numbers in training mode than in evaluation mode.

    Where one thread trains it and another acts with it, it is in the mode of whoever came last.

    Raises:
        CheckpointError: naming the layer.
    """
    for name, module in model.named_modules():
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        dropout = getattr(module, "attention_dropout", 0.0) or 0.0
        if isinstance(module, nn.modules.dropout._DropoutNd):
            dropout = module.p
        if batch_norm or dropout:
            raise CheckpointError(
                f"{name} ({type(module).__name__}) differs between training and evaluation, "
                "and with rollout.mode=async both happen at once. Use a checkpoint without dropout "
                "or batch normalization, rollout.workers=2, or rollout.mode=sync."
            )
