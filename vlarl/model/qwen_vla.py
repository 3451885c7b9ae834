"""Qwen-VLA: the backbone, the action expert and the value head in one module (paper section 2.2).

Sampling and losses are functions elsewhere; reading and writing checkpoints is in `checkpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from vlarl.codec import ActionCodec
from vlarl.config.schema import LoraConfig
from vlarl.contract import Contract
from vlarl.model.backbone import (
    build_backbone,
    hidden_states,
    next_token_loss,
    view_tokens,
    with_faster_layers,
)
from vlarl.model.device import CPU
from vlarl.model.dit import ActionExpert
from vlarl.model.expert_config import ExpertConfig
from vlarl.model.lora import adapters_of
from vlarl.model.processor import Processor
from vlarl.model.shards import SHARD_BYTES
from vlarl.model.value_head import ValueConfig, ValueHead

_INITIAL_LOG_STD = -1.9
"""Between the usual bounds 0.05 and 0.5 of `flow_noise`."""


class QwenVLA(nn.Module):
    """A vision-language-action model with everything that its checkpoint carries."""

    def __init__(
        self,
        backbone: Qwen3_5Config | Qwen3_5ForConditionalGeneration,
        expert: ExpertConfig,
        contract: Contract,
        codec: ActionCodec,
        processor: Processor,
        value: ValueConfig | None = None,
        further_codecs: Sequence[ActionCodec] = (),
    ) -> None:
        """Random weights, but for a `backbone` that has its own; the value head starts at zero.

        `codec` is of the contract's first embodiment, `further_codecs` are of the others in order.

        Raises:
            ValueError: if expert, contract and codecs disagree about the action tensor, the state
                or the embodiments.
        """
        super().__init__()
        _check_sizes(expert, contract, (codec, *further_codecs))
        if isinstance(backbone, Qwen3_5Config):
            backbone = build_backbone(backbone)
        self.backbone = with_faster_layers(backbone)
        self.config: Qwen3_5Config = self.backbone.config
        text = self.config.text_config
        self.expert_config = expert
        self.contract = contract
        self.codec = codec
        self.further_codecs = tuple(further_codecs)
        self.processor = processor
        self.expert = ActionExpert(expert, text)
        self.value_head = ValueHead(value or ValueConfig(), text.hidden_size)
        self.lora: LoraConfig | None = None
        """Of the backbone's adapters, if it has any (`vlarl.model.lora`)."""
        self.exploration_log_std = nn.Parameter(torch.full((expert.channels,), _INITIAL_LOG_STD))

    @property
    def codecs(self) -> dict[str, ActionCodec]:
        """Name of each embodiment -> its action codec, in the order of the contract."""
        names = [embodiment.name for embodiment in self.contract.embodiments]
        return dict(zip(names, (self.codec, *self.further_codecs), strict=True))

    def encode(self, inputs: TensorDict) -> TensorDict:
        """Run the backbone once; what comes back serves all denoising steps and the value.

        Args:
            inputs: of the processor, batch size [B], on any device; `elapsed` [B], `state` [B, d],
                `embodiment` and `steps` [B], if there, are passed on.

        Returns:
            The context: `hidden` [B, L, D] in the backbone's number format, zero where padded,
            `mask` [B, L] bool, `position_ids` [B, 3, L], `elapsed` [B] share of the episode that
            has passed, `state`, `embodiment` and `steps` where there are any.
        """
        device = self.device
        context = TensorDict(
            {
                "hidden": hidden_states(self.backbone, inputs),
                "mask": inputs["attention_mask"].bool().to(device),
                "position_ids": inputs["position_ids"].to(device),
                "elapsed": inputs.get("elapsed", torch.zeros(len(inputs))).to(device),
            },
            batch_size=inputs.batch_size,
        )
        for key in ("state", "embodiment", "steps"):
            if key in inputs:
                context[key] = inputs[key].to(context["hidden"].device)
        return context

    def prepare(self, context: TensorDict) -> TensorDict:
        """The same context, ready for many calls of `velocity`, as denoising makes them.

        The rotary tables are added (`cosine`, `sine`), and with the prefix variant its keys and
        values (`shared`), which are bigger than the hidden states: use it while sampling, do not
        store it.
        """
        mask, positions = context["mask"], context["position_ids"]
        prepared = context.copy()
        prepared["cosine"], prepared["sine"] = self.expert.rotary_tables(mask, positions)
        if self.expert_config.prefix:
            hidden = context["hidden"].to(self.expert_dtype)
            prepared["shared"] = self.expert.shared_states(
                hidden, mask, positions, context.get("state")
            )
        return prepared

    def velocity(self, context: TensorDict, y: Tensor, tau: Tensor, action_mask: Tensor) -> Tensor:
        """The expert's velocity `v = y1 - y0` at flow time `tau` (1: noise, 0: clean).

        Args:
            context: of `encode` or `prepare`, batch size [B].
            y: [B * R, H, K] noisy chunks, or their first steps alone; what stands in padded entries
                is ignored. Usually R is 1; otherwise rows b * R ... b * R + R - 1 share context b,
                as `repeat_interleave` does.
            tau: [B * R]
            action_mask: [B * R, H, K] bool.

        Returns:
            [B * R, H, K] float32, exactly zero at padded entries.
        """
        velocity = self.expert(
            context["hidden"].to(self.expert_dtype),
            context["mask"],
            context["position_ids"],
            y.masked_fill(~action_mask, 0.0),
            tau,
            context.get("shared"),
            context.get("state"),
            context.get("embodiment"),
            (context["cosine"], context["sine"]) if "cosine" in context else None,
            context.get("steps"),
        )
        return velocity.masked_fill(~action_mask, 0.0)

    def view_tokens(self, pixel_values: Tensor) -> list[Tensor]:
        """The vision tower alone: [B, tokens, D] for each camera of the contract.

        Args:
            pixel_values: [B, P, patch_dim] of `processor.pixels`.
        """
        return view_tokens(self.backbone, pixel_values.to(self.device), self.processor.grids)

    @property
    def device(self) -> torch.device:
        """Where all of it lives."""
        return self.exploration_log_std.device

    @property
    def expert_dtype(self) -> torch.dtype:
        """The expert's number format."""
        return self.expert.context_in.weight.dtype

    def value(self, context: TensorDict) -> Tensor:
        """[B] float32 from the mean hidden state; no gradient reaches the backbone."""
        weight = context["mask"].unsqueeze(-1).float()
        hidden = context["hidden"].detach().float()
        mean = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        return self.value_head(mean, context["elapsed"])

    def language_logits(self, inputs: TensorDict) -> Tensor:
        """[B, L, V] next-token logits at every position; `language_loss` is cheaper."""
        return self.backbone.lm_head(hidden_states(self.backbone, inputs))

    def language_loss(self, inputs: TensorDict) -> Tensor:
        """Mean next-token loss (paper eq. 3) over `inputs["labels"]` of `processor.question`."""
        labels = inputs["labels"].to(self.device)
        return next_token_loss(self.backbone, hidden_states(self.backbone, inputs), labels)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part; each is in exactly one. `lora` only if the backbone has adapters."""
        adapters = adapters_of(self.backbone)
        in_adapters = {id(parameter) for parameter in adapters}
        vision = [p for p in self.backbone.model.visual.parameters() if id(p) not in in_adapters]
        elsewhere = in_adapters | {id(parameter) for parameter in vision}
        biases = self.expert.last_biases()
        in_biases = {id(parameter) for parameter in biases}
        found = {
            "vision": vision,
            "language": [p for p in self.backbone.parameters() if id(p) not in elsewhere],
            "expert": [
                *(p for p in self.expert.parameters() if id(p) not in in_biases),
                self.exploration_log_std,
            ],
            "expert_biases": biases,
            "value": list(self.value_head.parameters()),
        }
        return found | {"lora": adapters} if adapters else found

    def save_pretrained(
        self,
        folder: str | Path,
        shard_bytes: int = SHARD_BYTES,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the checkpoint folder; a half-written one is never seen under this name.

        Args:
            folder: replaced if it exists.
            shard_bytes: tensors that take more are written in several files of at most this size.
            state: the tensors to write, by name, if the model does not have all of them itself.
        """
        from vlarl.model.checkpoint import save

        save(self, Path(folder), shard_bytes, state)

    @staticmethod
    def from_pretrained(folder_or_name: str | Path, device: torch.device = CPU) -> QwenVLA:
        """Read a checkpoint folder, or a packaged one by name (`tabletop-sft`), onto `device`.

        Raises:
            CheckpointError: if it is missing, truncated, or does not match its own config.
        """
        from vlarl.model.checkpoint import load

        return load(folder_or_name, device=device)


def _check_sizes(expert: ExpertConfig, contract: Contract, codecs: Sequence[ActionCodec]) -> None:
    shape = (contract.tensor_horizon, contract.tensor_channels)
    for name, other in (
        ("expert", (expert.horizon, expert.channels)),
        *(("codec", (codec.tensor_horizon, codec.channels)) for codec in codecs),
    ):
        if other != shape:
            raise ValueError(f"{name} has action tensors {other}, the contract {shape}")
    shown = contract.state_dim if contract.state_mode == "dit" else 0
    if expert.state_dim != shown:
        raise ValueError(f"expert has a state of {expert.state_dim}, the contract of {shown}")
    counts = tuple(len(embodiment.channels) for embodiment in contract.embodiments)
    if tuple(len(codec.stats.low) for codec in codecs) != counts:
        raise ValueError(f"codecs are not of the {counts} channels of the contract's embodiments")
    if expert.projection != "zero_pad" and expert.embodiments != counts:
        raise ValueError(f"expert has embodiments {expert.embodiments}, the contract {counts}")
