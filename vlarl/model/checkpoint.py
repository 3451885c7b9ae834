"""Reading and writing the checkpoint folder. One format for every stage; no training state.

    config.json  model.safetensors  action_stats.json  contract.json  [state_stats.json]
    tokenizer.json  tokenizer_config.json  preprocessor_config.json

Above 5 GB the tensors are in shards with an index; read, they take their own size in memory. If the
backbone has adapters, they are in `adapters.safetensors`, and `lora` in `config.json` describes
them; `model.safetensors` is the same as without.

A folder is written beside its final place and renamed. Whatever does not match exactly is a
`CheckpointError`, with one exception: a missing value head starts at zero, with one notice.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen3_5Config
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from vlarl.codec import ActionCodec, ActionStats
from vlarl.config.schema import LoraConfig
from vlarl.contract import Contract
from vlarl.errors import CheckpointError
from vlarl.model.device import CPU
from vlarl.model.empty import assign, empty_weights, still_empty
from vlarl.model.expert_config import ExpertConfig
from vlarl.model.lora import add_adapters, is_adapter, plain_name
from vlarl.model.patches import PatchLayout
from vlarl.model.precision import format_of
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.shards import SHARD_BYTES, TensorFiles, write_tensors
from vlarl.model.value_head import ValueConfig, ValueHead
from vlarl.state import StateCodec

PACKAGED = Path(__file__).resolve().parents[1] / "checkpoints"
MODEL_TYPE = "qwen_vla"
_TIED_HEAD = "backbone.lm_head.weight"
_VALUE_HEAD = "value_head."
ADAPTERS = "adapters.safetensors"
_SECTIONS = ("backbone", "expert", "value")
_UNUSABLE = (TypeError, ValueError, KeyError, RuntimeError, StrictDataclassError)
"""What numbers and types that make no sense raise, here and in the libraries, once JSON is read."""

logger = logging.getLogger(__name__)


def save(
    model: QwenVLA,
    folder: Path,
    shard_bytes: int = SHARD_BYTES,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `model` to `folder`, replacing what is there; no file above `shard_bytes`.

    `state` are its tensors, if it does not have all of them itself.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_files(model, partial, shard_bytes, state)
    except BaseException:
        # On a full disk, what was written so far takes the room that a later one needs.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    replaced = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _write_files(
    model: QwenVLA, partial: Path, shard_bytes: int, state: Mapping[str, Tensor] | None
) -> None:
    _write_json(partial / "config.json", _config(model))
    _write_json(partial / "contract.json", model.contract.to_dict())
    _write_json(partial / "action_stats.json", _action_stats(model))
    if model.processor.state is not None:
        _write_json(partial / "state_stats.json", model.processor.state.stats.to_dict())
    _write_json(partial / "preprocessor_config.json", asdict(model.processor.layout))
    try:
        model.processor.tokenizer.save_pretrained(partial)
    except Exception as error:
        # Written in Rust, it tells of a full disk by no type of its own: "... (os error 28)".
        if type(error) is not Exception:
            raise
        raise OSError(f"cannot write the tokenizer: {error}") from error
    tensors = saved_tensors(model, state)
    adapters = {name: tensors.pop(name) for name in list(tensors) if is_adapter(name)}
    write_tensors(tensors, partial, shard_bytes)
    if adapters:
        save_file(adapters, partial / ADAPTERS, metadata={"format": "pt"})


def load(
    folder_or_name: str | Path, dtype: torch.dtype | None = None, device: torch.device = CPU
) -> QwenVLA:
    """Read a checkpoint folder, or a packaged one by name, tensor by tensor onto `device`.

    Args:
        folder_or_name: what to read.
        dtype: number format to convert to, tensor by tensor; None: each as it is.
        device: where the model is to live.

    Raises:
        CheckpointError: if it is missing, truncated, or does not match its own config.
    """
    folder = resolve(folder_or_name)
    config = _read_config(folder / "config.json")
    contract = load_contract(folder)
    with _blaming(folder / "config.json: expert"):
        counts = tuple(config["expert"].get("embodiments", ()))
        expert = ExpertConfig(**{**config["expert"], "embodiments": counts})
    _check_sizes(folder, contract, expert)
    with _blaming(folder / "action_stats.json") as file:
        codec, *further = _read_codecs(_read_json(file), contract)
    with _blaming(folder / "preprocessor_config.json") as file:
        layout = _layout(_read_json(file))
        for camera in contract.cameras[:1]:
            layout.tokens(camera.height, camera.width)
    with _blaming(folder / "tokenizer.json"):
        tokenizer = _tokenizer(folder)
    with _blaming(folder / "contract.json"):
        processor = Processor(tokenizer, contract, layout)
    if contract.shows_state:
        processor.state = _read_state(folder / "state_stats.json", contract)
    with _blaming(folder / "config.json: value"):
        value = ValueConfig(**config["value"])
    with _blaming(folder / "config.json"), empty_weights():
        backbone = Qwen3_5Config.from_dict(config["backbone"])
        model = QwenVLA(backbone, expert, contract, codec, processor, value, further)
        if config.get("lora") is not None:
            model.lora = LoraConfig(**{**config["lora"], "targets": (*config["lora"]["targets"],)})
            add_adapters(model.backbone, model.lora, empty=True)
    _restore(model, _files(folder, model), str(folder), dtype, device)
    # What no file holds: the buffers, and a value head that was missing.
    return model.to(device)


def load_contract(folder_or_name: str | Path) -> Contract:
    """What a checkpoint expects, without its weights.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    with _blaming(resolve(folder_or_name) / "contract.json") as file:
        return Contract.from_dict(_read_json(file))


def resolve(folder_or_name: str | Path) -> Path:
    """The folder itself if it exists, else the packaged checkpoint of this name."""
    packaged = PACKAGED / str(folder_or_name)
    for folder in (Path(folder_or_name), packaged):
        if folder.is_dir():
            return folder
    names = sorted(path.name for path in PACKAGED.glob("*") if path.is_dir())
    raise CheckpointError(
        f"no checkpoint folder {str(folder_or_name)!r}; packaged: {', '.join(names) or 'none'}"
    )


def saved_tensors(model: QwenVLA, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Every tensor that a checkpoint holds, by name; a tied language head only once."""
    held = (model.state_dict() if state is None else state).items()
    tensors = {plain_name(name): tensor.detach().contiguous() for name, tensor in held}
    if model.config.tie_word_embeddings:
        del tensors[_TIED_HEAD]
    return tensors


def _files(folder: Path, model: QwenVLA) -> TensorFiles:
    """The folder's tensors, those of adapters included."""
    return TensorFiles(folder, (ADAPTERS,) if model.lora is not None else ())


def _restore(
    model: QwenVLA,
    tensors: TensorFiles,
    origin: str,
    dtype: torch.dtype | None,
    device: torch.device,
) -> None:
    """Give `model`, built empty, its weights.

    Raises:
        CheckpointError: naming every tensor that is missing, unknown or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in saved_tensors(model).items()}
    missing = expected.keys() - tensors.keys()
    value_head = {name for name in expected if name.startswith(_VALUE_HEAD)}
    if missing == value_head:
        logger.warning("%s has no value head: it starts at zero", origin)
        # Callers' random numbers must not depend on loading.
        with torch.random.fork_rng(devices=[]):
            model.value_head = ValueHead(model.value_head.config, model.value_head.width)
        expected = {name: shape for name, shape in expected.items() if name not in value_head}
        missing = set()
    problems = [f"missing {name}" for name in sorted(missing)]
    problems += [f"unknown {name}" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{name} is {tensors.shape(name)}, the config says {expected[name]}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors.shape(name) != expected[name]
    ]
    if problems:
        raise CheckpointError(f"{origin} does not match its config:\n  " + "\n  ".join(problems))
    inner = {plain_name(name): name for name in model.state_dict()}
    for name in expected:
        wanted = None if dtype is None else format_of(name, dtype)
        assign(model, inner[name], tensors[name].to(device, wanted))
    if model.config.tie_word_embeddings:
        model.backbone.lm_head.weight = model.backbone.get_input_embeddings().weight
    assert not still_empty(model)


@contextmanager
def _blaming(file: Path) -> Iterator[Path]:
    """Whatever the block cannot make sense of is a CheckpointError that names `file`."""
    try:
        yield file
    except CheckpointError:
        raise
    except _UNUSABLE as error:
        lacks = isinstance(error, KeyError)
        reason = f"{error.args[0]} is missing" if lacks else str(error)
        raise CheckpointError(f"{file}: {reason}") from error


def _read_config(file: Path) -> dict[str, Any]:
    config = _read_json(file)
    if config.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{file}: model_type is {config.get('model_type')!r}, not {MODEL_TYPE!r}. A Qwen3.5 "
            "folder is no checkpoint yet: start from it with model.backbone=FOLDER"
        )
    for section in _SECTIONS:
        if not isinstance(config.get(section), dict):
            found = f"is {config[section]!r:.40}" if section in config else "is missing"
            raise CheckpointError(
                f"{file}: {section} {found}; needed are the sections {', '.join(_SECTIONS)}, as "
                "this version writes them. Name another checkpoint"
            )
    return config


def _check_sizes(folder: Path, contract: Contract, expert: ExpertConfig) -> None:
    """The action tensor of the contract must be the one that the expert was made for."""
    for key, made_for in (("horizon", expert.horizon), ("channels", expert.channels)):
        found = getattr(contract, f"tensor_{key}")
        if found != made_for:
            raise CheckpointError(
                f"{folder / 'contract.json'}: tensor_{key} is {found}, config.json says "
                f"expert.{key} = {made_for}. Set tensor_{key} to {made_for} again, or name another "
                "checkpoint"
            )
    shown = contract.state_dim if contract.state_mode == "dit" else 0
    if shown != expert.state_dim:
        raise CheckpointError(
            f"{folder / 'contract.json'}: state_mode {contract.state_mode} gives the expert "
            f"{shown} numbers, config.json says expert.state_dim = {expert.state_dim}. Name "
            "another checkpoint"
        )


def _action_stats(model: QwenVLA) -> dict[str, Any]:
    """Of the first embodiment; `further` by name, if there are any."""
    first, *others = ((name, codec.stats.to_dict()) for name, codec in model.codecs.items())
    return {**first[1], "further": dict(others)} if others else first[1]


def _read_codecs(values: dict[str, Any], contract: Contract) -> list[ActionCodec]:
    """One for each embodiment of the contract."""
    codecs = []
    for place, embodiment in enumerate(contract.embodiments):
        stats = ActionStats.from_dict(values["further"][embodiment.name] if place else values)
        expected = len(embodiment.channels)
        if len(stats.low) != expected:
            raise ValueError(
                f"low and high are of {len(stats.low)} channels, contract.json has {expected}"
            )
        codecs.append(ActionCodec.of(contract, stats, place))
    return codecs


def _read_state(path: Path, contract: Contract) -> StateCodec:
    with _blaming(path) as file:
        stats = ActionStats.from_dict(_read_json(file))
        if len(stats.low) != contract.state_dim:
            raise ValueError(
                f"low and high are of {len(stats.low)} numbers, contract.json has state_dim "
                f"{contract.state_dim}"
            )
        return StateCodec(stats)


def _config(model: QwenVLA) -> dict[str, Any]:
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["QwenVLA"],
        "backbone": model.config.to_dict(),
        "expert": asdict(model.expert_config),
        "value": asdict(model.value_head.config),
        **({} if model.lora is None else {"lora": asdict(model.lora)}),
    }


def _layout(values: dict[str, Any]) -> PatchLayout:
    means = {key: tuple(values[key]) for key in ("image_mean", "image_std")}
    return PatchLayout(**{**values, **means})


def _tokenizer(folder: Path) -> Qwen3_5Tokenizer:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        _read_json(folder / name)
    return Qwen3_5Tokenizer.from_pretrained(folder)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file {path} is missing") from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint file {path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"checkpoint file {path} is damaged: not an object but {values!r:.40}"
        )
    return values
