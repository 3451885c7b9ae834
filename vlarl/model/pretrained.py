"""A Qwen3.5 as its makers publish it: transformers' folder, its own tokenizer and image settings.

The folder may be one on disk or a name on the hub; loading is transformers'. What it does not fit
is an error that names the tensor, the token or the setting.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoTokenizer, Qwen3_5Config, Qwen3_5ForConditionalGeneration
from transformers.utils import cached_file

from vlarl.errors import CheckpointError
from vlarl.model.patches import PatchLayout
from vlarl.model.tokenizer import CONTROL_TOKENS, special_tokens, token_id

MODEL_TYPE = "qwen3_5"
_LAYOUT_KEYS = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std")


@dataclass(frozen=True)
class Pretrained:
    """A backbone with what belongs to it."""

    backbone: Qwen3_5ForConditionalGeneration
    tokenizer: Any
    """With the view tags, each a single id."""
    layout: PatchLayout


def load_pretrained(folder_or_name: str, dtype: torch.dtype | None = None) -> Pretrained:
    """Read a Qwen3.5 checkpoint; memory stays within its own size.

    Args:
        folder_or_name: a folder, or a name on the hub.
        dtype: number format of the weights; None: the checkpoint's own.

    Raises:
        CheckpointError: if a file is missing or damaged, a tensor is missing, unknown or of another
            shape, the model is of another kind, or its vocabulary has no room for the view tags.
    """
    config = _json_of(folder_or_name, "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{folder_or_name}: model_type is {config.get('model_type')!r}; a backbone is a "
            f"{MODEL_TYPE!r}, such as Qwen/Qwen3.5-4B"
        )
    layout = _layout(folder_or_name)
    backbone = _weights(folder_or_name, dtype)
    tokenizer = tagged_tokenizer(folder_or_name, backbone.config)
    vision = backbone.config.vision_config
    for key in ("patch_size", "temporal_patch_size"):
        if getattr(vision, key) != getattr(layout, key):
            raise CheckpointError(
                f"{folder_or_name}: {key} is {getattr(layout, key)} in preprocessor_config.json "
                f"and {getattr(vision, key)} in config.json"
            )
    return Pretrained(backbone, tokenizer, layout)


def tagged_tokenizer(folder_or_name: str, config: Qwen3_5Config) -> Any:
    """The folder's tokenizer with the view tags on free rows of the embedding.

    Raises:
        CheckpointError: if it lacks a control token, disagrees with `config` about an id, or the
            embedding has too few rows.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_or_name)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder_or_name}: no tokenizer: {error}") from error
    known = tokenizer.get_vocab()
    lacking = [token for token in CONTROL_TOKENS if token not in known]
    if lacking:
        raise CheckpointError(f"{folder_or_name}: its tokenizer lacks {', '.join(lacking)}")
    tags = [token for token in special_tokens() if token not in known]
    tokenizer.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    rows = config.text_config.vocab_size
    highest = max(token_id(tokenizer, token) for token in special_tokens())
    if highest >= rows:
        raise CheckpointError(
            f"{folder_or_name}: the view tags need {highest + 1} rows of the embedding, it has "
            f"{rows}"
        )
    for key, token in (
        ("image_token_id", "<|image_pad|>"),
        ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
    ):
        if getattr(config, key) != token_id(tokenizer, token):
            raise CheckpointError(
                f"{folder_or_name}: {key} is {getattr(config, key)} in config.json, but its "
                f"tokenizer says {token_id(tokenizer, token)} for {token}"
            )
    return tokenizer


def _weights(name: str, dtype: torch.dtype | None) -> Qwen3_5ForConditionalGeneration:
    try:
        backbone, info = Qwen3_5ForConditionalGeneration.from_pretrained(
            name,
            dtype=dtype or "auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name}: {error}") from error
    problems = [f"missing {key}" for key in sorted(info["missing_keys"])]
    problems += [f"unknown {key}" for key in sorted(info["unexpected_keys"])]
    problems += [
        f"{key} is {tuple(found)}, config.json says {tuple(expected)}"
        for key, found, expected in sorted(info["mismatched_keys"])
    ]
    if problems:
        raise CheckpointError(f"{name} does not match its config:\n  " + "\n  ".join(problems))
    return backbone


def _layout(name: str) -> PatchLayout:
    values = _json_of(name, "preprocessor_config.json")
    lacking = [key for key in _LAYOUT_KEYS if key not in values]
    if lacking:
        raise CheckpointError(f"{name}/preprocessor_config.json lacks {', '.join(lacking)}")
    found = {key: values[key] for key in _LAYOUT_KEYS}
    found |= {key: tuple(found[key]) for key in ("image_mean", "image_std")}
    return PatchLayout(**found)


def _json_of(name: str, file: str) -> dict[str, Any]:
    """A JSON file of the folder or, by transformers, of the hub."""
    try:
        path = cached_file(name, file)
        values: dict[str, Any] = json.loads(Path(str(path)).read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{name}: no {file}: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{name}/{file} is damaged: {error}") from error
    return values
