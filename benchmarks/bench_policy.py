"""How long a decision takes, where that time goes, and what of it is not the networks' own work.

    python -m benchmarks.bench_policy [--quick] [--json FILE] [--model NAME ...] [--rounds N]
        [--device DEVICE] [--image-size N] [--seconds N]

Of each preset (random weights) or checkpoint: latency of one decision and decisions per second of a
batch, split into image processing (observations to tensors), backbone, expert (all denoising
steps), value, and the rest. Beside it, in turns within one run, two measures of bare work:

- plain: transformers' own `Qwen3_5Model`, unmodified, on the same weights and the same tensors
  (`input_ids`, `position_ids`, `pixel_values`, grids), from pixels to hidden states;
- bare: every matrix product and attention of the expert within that decision, recorded with its
  shapes and weights and run again without anything between.

Overhead is the share of a decision that is neither: (decision - plain - bare) / decision. Where the
faster layers of our backbone save more than everything else costs, it is below zero. A model that
free memory cannot hold is left out, in bfloat16 if it fits only so; a batch that would take long on
a CPU is smaller, and said to be. All figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import Qwen3_5Model

from envservers.registry import available_memory
from vlarl.config.presets import preset_names
from vlarl.config.schema import SamplingConfig
from vlarl.model.device import resolved
from vlarl.model.empty import assign, empty_weights
from vlarl.model.parameters import count
from vlarl.model.patches import PatchLayout
from vlarl.model.precision import format_of
from vlarl.model.presets import channel_bounds_codec, load_preset, modules_of, tabletop_contract
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.tokenizer import load_tiny_tokenizer, token_id
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.runs import checkpoint_of

PARTS = ("image processing", "backbone", "expert", "value", "rest")
BATCH = 64
_SECONDS_A_BATCH = 20.0
_SENTENCE = "put the carrot on the plate"
_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_MATRIX_WORK = ("mm", "addmm", "bmm", "baddbmm", "linear", "_scaled_dot_product")


def run(
    models: Sequence[str] = (),
    rounds: int = 20,
    device: str = "auto",
    image_size: int = 0,
    batch: int = BATCH,
    seconds: float = _SECONDS_A_BATCH,
) -> dict[str, Any]:
    """Measure every model; prints each row as it comes.

    Args:
        models: presets and checkpoints; none: every preset.
        rounds: of decision, plain and bare, in turns; fewer where they take long.
        device: as `runtime.device`.
        image_size: in pixels, of presets; 0: 64 for the tiny ones, else 224.
        batch: for the throughput.
        seconds: on a CPU the batch is at most as large as may be decided in this time.
    """
    place = resolved(device)
    rows: list[dict[str, Any]] = []
    for name in models or preset_names():
        model, reason = _model(name, place, image_size)
        if model is None:
            rows.append({"model": name, "skipped": reason})
            print(_line(rows[-1]), flush=True)
            continue
        alone = measure(model, 1, rounds)
        fits = batch
        while place.type == "cpu" and fits > 1 and fits * alone["seconds"] > seconds:
            fits //= 2
        for row in [alone] if fits == 1 else [alone, measure(model, fits, rounds)]:
            rows.append({"model": name, **row})
            print(_line(rows[-1]), flush=True)
        del model
        gc.collect()
    return {"device": str(place), "threads": torch.get_num_threads(), "rows": rows}


@torch.no_grad()
def measure(model: QwenVLA, batch: int, rounds: int) -> dict[str, Any]:
    """One batch size: seconds of a decision, of its parts, and of the bare work."""
    observations = _observations(model, batch)
    clock = _Clock(model)
    policy, generator = Policy(clock, SamplingConfig()), torch.Generator().manual_seed(0)
    inputs = model.processor(observations)
    plain, bare = _plain(model, inputs), _bare(model, inputs)

    def decide() -> None:
        policy.act(observations, generator, explore=False)

    contenders = {"decision": decide, "plain": plain, "bare": bare}
    for work in contenders.values():
        work()
    clock.spent.clear()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    parts: list[dict[str, float]] = []
    started = time.perf_counter()
    while len(parts) < 3 or (len(parts) < rounds and time.perf_counter() - started < 60):
        for name, work in contenders.items():
            taken[name].append(_seconds(work, model.device))
        parts.append(clock.spent | {"rest": taken["decision"][-1] - sum(clock.spent.values())})
        clock.spent = {}
    medians = {name: statistics.median(values) for name, values in taken.items()}
    decision = medians["decision"]
    return {
        "batch": batch,
        "dtype": str(model.expert_dtype).removeprefix("torch."),
        "tokens": model.contract.prompt_tokens,
        "rounds": len(parts),
        "seconds": decision,
        "decisions_per_second": batch / decision,
        "parts": {name: statistics.median(part[name] for part in parts) for name in PARTS},
        "plain": medians["plain"],
        "bare": medians["bare"],
        "overhead": (decision - medians["plain"] - medians["bare"]) / decision,
    }


class _Clock:
    """The model, but for a clock on each of its parts."""

    def __init__(self, model: QwenVLA) -> None:
        self._model = model
        self.spent: dict[str, float] = {}
        for name, part in (
            ("processor", "image processing"),
            ("encode", "backbone"),
            ("prepare", "expert"),
            ("velocity", "expert"),
            ("value", "value"),
        ):
            setattr(self, name, self._timed(getattr(model, name), part))

    def _timed(self, work: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            result = None

            def call() -> None:
                nonlocal result
                result = work(*arguments)

            seconds = _seconds(call, self._model.device)
            self.spent[part] = self.spent.get(part, 0.0) + seconds
            return result

        return timed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """How long `work` takes, until its last result is there."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _plain(model: QwenVLA, inputs: TensorDict) -> Callable[[], Any]:
    """Transformers' forward of the same weights on the same tensors."""
    with empty_weights():
        plain = Qwen3_5Model(model.config)
    for name, parameter in model.backbone.model.named_parameters():
        assign(plain, name, parameter.detach())
    plain.to(model.device).eval()
    given = {key: value.to(model.device) for key, value in inputs.items()}
    return lambda: plain(
        input_ids=given["input_ids"],
        attention_mask=given["attention_mask"],
        position_ids=given["position_ids"].transpose(0, 1),
        mm_token_type_ids=given["mm_token_type_ids"],
        pixel_values=given["pixel_values"].flatten(0, 1),
        image_grid_thw=given["image_grid_thw"].flatten(0, 1),
        use_cache=False,
    )


def _bare(model: QwenVLA, inputs: TensorDict) -> Callable[[], Any]:
    """The expert's matrix products and attentions of one decision, and nothing else.

    The context is prepared once, the velocity is asked for as often as there are denoising steps.
    """
    steps, batch = SamplingConfig().denoising_steps, len(inputs)
    context = model.encode(inputs)
    mask = model.codec.mask(batch).to(model.device)
    y = torch.randn(mask.shape, device=model.device)
    tau = torch.ones(batch, device=model.device)
    recorder = _Recorder(model.expert)
    with recorder:
        prepared = model.prepare(context)
        for _ in range(steps):
            model.velocity(prepared, y, tau, mask)
    work = recorder.work

    def again() -> None:
        for function, arguments, keywords in work:
            function(*arguments, **keywords)

    return again


class _Recorder(TorchDispatchMode):
    """Remembers matrix work; of activations the shapes alone, so that they share memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.work: list[tuple[Any, Any, Any]] = []
        self._weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._activations: dict[Any, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.startswith(_MATRIX_WORK):
            kept = tree_map_only(Tensor, self._kept, (args, kwargs or {}))
            self.work.append((func, *kept))
        return result

    def _kept(self, tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() in self._weights:
            return tensor.detach()
        key = (tensor.shape, tensor.stride(), tensor.dtype)
        return self._activations.setdefault(key, tensor.detach())


def _model(name: str, device: torch.device, image_size: int) -> tuple[QwenVLA | None, str | None]:
    """A checkpoint, or a preset with random weights; None and why, if memory is too small."""
    if name not in preset_names() and not name.endswith((".yaml", ".yml")):
        return QwenVLA.from_pretrained(checkpoint_of(name), device), None
    numbers = sum(count(part.parameters()) for part in modules_of(load_preset(name)))
    free = available_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    # A third more for activations and for what is drawn on the way.
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        if 1.33 * size * numbers < free:
            return _random_model(name, dtype, image_size).to(device).eval(), None
    needed = 1.33 * 2 * numbers
    return None, f"needs {needed / 2**30:.1f} GiB in bfloat16, {free / 2**30:.1f} GiB are free"


def _random_model(name: str, dtype: torch.dtype, image_size: int) -> QwenVLA:
    """The preset's sizes, the tiny tokenizer, weights that differ but repeat after a million.

    Speed does not depend on what the numbers are, and drawing billions would take minutes.
    """
    sizes, tokenizer = load_preset(name), load_tiny_tokenizer()
    contract = tabletop_contract(image_size or (64 if name.startswith("tiny") else 224))
    config = sizes.backbone_config()
    for key, token in _TOKENS.items():
        setattr(config, key, token_id(tokenizer, token))
    layout = PatchLayout(patch_size=config.vision_config.patch_size)
    with empty_weights():
        model = QwenVLA(
            config,
            sizes.expert_config(contract),
            contract,
            channel_bounds_codec(contract),
            Processor(tokenizer, contract, layout),
            sizes.value,
        )
    block = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for key, parameter in list(model.named_parameters()):
        flat = torch.empty(parameter.numel(), dtype=format_of(key, dtype))
        for piece in flat.split(len(block)):
            piece.copy_(block[: len(piece)])
        assign(model, key, flat.view(parameter.shape))
    embedding = model.backbone.get_input_embeddings().weight
    assert isinstance(embedding, nn.Parameter)
    model.backbone.lm_head.weight = embedding
    return model


def _observations(model: QwenVLA, batch: int) -> Observations:
    """Images of noise, all of the contract's cameras."""
    random = np.random.default_rng(0)
    images = {
        camera.name: random.integers(
            0, 256, (batch, camera.height, camera.width, 3), dtype=np.uint8
        )
        for camera in model.contract.cameras
    }
    return Observations(images, [_SENTENCE] * batch)


def _line(row: dict[str, Any]) -> str:
    if "skipped" in row:
        return f"{row['model']}: left out: {row['skipped']}"
    parts = ", ".join(f"{name} {1000 * row['parts'][name]:.1f}" for name in PARTS)
    return (
        f"{row['model']} ({row['dtype']}, {row['tokens']} tokens), batch {row['batch']}: "
        f"{1000 * row['seconds']:.1f} ms, {row['decisions_per_second']:.1f} decisions/s\n"
        f"    ms: {parts}\n"
        f"    plain {1000 * row['plain']:.1f}, bare {1000 * row['bare']:.1f} ms, "
        f"overhead {100 * row['overhead']:+.1f}%, {row['rounds']} rounds"
    )


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    where = f"{result['device']}, {result['threads']} threads"
    return "\n".join([where, *(_line(row) for row in result["rows"])])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny presets, few rounds")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--model", nargs="+", default=[], help="presets or checkpoints (all)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--image-size", type=int, default=0, help="of presets, in pixels")
    parser.add_argument("--seconds", type=float, default=_SECONDS_A_BATCH, help="of a batch (CPU)")
    arguments = parser.parse_args()
    models = arguments.model
    if arguments.quick:
        result = run(models or ["tiny", "tiny-pooled"], 3, arguments.device, batch=4)
    else:
        given = (arguments.rounds, arguments.device, arguments.image_size)
        result = run(models, *given, seconds=arguments.seconds)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
