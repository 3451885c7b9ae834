"""How much memory a training step takes, computed: the real step on tensors without memory.

The learners' own code runs under torch's fake tensors, which have shapes and no numbers, and every
storage that comes and goes is counted. Real tensors are counted the same way (`fake=False`), which
is how tests check it. Left out: what an allocator rounds up, workspaces within a kernel, the
process itself; on a GPU, kernels that keep less (flash-linear-attention) or other than those here.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from learners.division import Division
from learners.masters import MasteredOptimizer
from learners.ppo import PPOLearner
from learners.supervised import SupervisedTrainer
from vlarl.config.schema import (
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    PPOConfig,
    SamplingConfig,
    SupervisedConfig,
)
from vlarl.data.samples import ChunkBatch, ChunkDataset
from vlarl.model import backbone as backbone_module
from vlarl.model.empty import assign, empty_weights
from vlarl.model.lora import add_adapters
from vlarl.model.presets import channel_bounds_codec, load_preset, tabletop_contract
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import configured
from vlarl.model.tokenizer import load_tiny_tokenizer
from vlarl.observations import Observations

JOBS: dict[str, dict[str, float]] = {
    "sft": {"vision": 1e-4, "language": 1e-4, "expert": 1e-4},
    "lora": {"lora": 1e-4, "expert": 1e-4},
    "rl": {"expert": 1e-5, "value": 1e-3},
}
"""Job -> learning rates: everything; adapters and expert; PPO behind a frozen backbone."""
LORA_RANK = 16
_SENTENCE = "Pick up the red cube"


@dataclass(frozen=True)
class Footprint:
    """Bytes of one training step."""

    weights: int
    """Of the whole model."""
    masters: int
    """Float32 masters of what trains below float32."""
    optimizer: int
    """What the optimizer remembers of each weight."""
    gradients: int
    """Of all that trains, when the optimizer steps."""
    activations: int
    """Most that forward, backward and step take beyond all else here."""
    handed: int
    """What the learner is handed: an RL batch with its contexts, or a step's inputs."""
    gathered: int
    """Weights of a divided model that are whole for a time, with their gradients; else 0."""
    peak: int
    """Most that there is at one time; gradients and activations need not be highest together. Of a
    divided model an upper bound."""


class Storages(TorchDispatchMode):
    """Counts the bytes of all storages that appear while it is on, as long as they live.

    Under fake tensors it also answers what code asks of numbers that do not exist: yes, and 1.

    Attributes:
        present: bytes now.
        peak: most bytes since `restart`.
        excess: most bytes since then beyond what was there then, and beyond gradients.
        gradients: bytes of the gradients that arrived since then.
        reached: the weights that they arrived at.
    """

    def __init__(self, fake: bool) -> None:
        super().__init__()
        self.present = self.peak = self.excess = self.gradients = self._before = 0
        self.reached: list[Tensor] = []
        self._fake = fake
        self._seen: set[int] = set()

    def restart(self, trained: Iterable[nn.Parameter]) -> None:
        """Look for the highest from here; `trained` have no gradients yet and get one each."""
        self.peak = self._before = self.present
        self.excess, self.gradients, self.reached = 0, 0, []
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def _arrived(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.gradients += parameter.grad.nbytes
        self.reached.append(parameter)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._fake and func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype == torch.bool or 1
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        self.peak = max(self.peak, self.present)
        self.excess = max(self.excess, self.present - self._before - self.gradients)
        return found

    def _count(self, tensor: Tensor) -> None:
        if tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.present += size
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.present -= size


Counting = Callable[[], AbstractContextManager[None]]
"""Switches on whatever makes tensors fake and counts them."""


@dataclass(frozen=True)
class _Step:
    """A training step that can be repeated."""

    run: Callable[[], object]
    optimizer: Any
    handed: TensorDict

    def prime(self, trained: Iterable[nn.Parameter]) -> None:
        """Have the optimizer begin to remember, by a step with gradients of zero."""
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        for parameter in trained:
            parameter.grad = None

    def masters(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and their masters."""
        mastered = isinstance(self.optimizer, MasteredOptimizer)
        return list(self.optimizer.mastered.items()) if mastered else []

    def states(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and what the optimizer remembers of them."""
        inner = getattr(self.optimizer, "inner", self.optimizer)
        weights = {master: weight for weight, master in self.masters()}
        return [
            (weights.get(own, own), value)
            for own, state in inner.state.items()
            for value in state.values()
        ]


def footprint(
    preset: str,
    job: str,
    model: ModelConfig,
    batch: int,
    decisions: int,
    image_size: int,
    fake: bool = True,
    learners: int = 1,
) -> Footprint:
    """Memory of a step of a job, once the optimizer has what it remembers.

    Args:
        preset: of the model.
        job: of `JOBS`.
        model: number format and checkpointing; adapters come with the job.
        batch: samples of a supervised step, or of a micro-batch of PPO.
        decisions: of an RL batch, whose contexts are kept; only `rl` has one.
        image_size: of the two cameras.
        fake: whether on tensors without memory.
        learners: processes among which the model is divided; what the first one takes.

    Raises:
        ConfigError: for an unknown preset, or an image size without a patch grid.
    """
    contract = tabletop_contract(image_size)
    processor = Processor(load_tiny_tokenizer(), contract)
    real = processor(Observations(_images(contract.cameras, batch), [_SENTENCE] * batch))
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    storages = Storages(fake)

    @contextmanager
    def counting() -> Iterator[None]:
        with mode, storages:
            yield

    lora = LoraConfig(rank=LORA_RANK) if job == "lora" else LoraConfig()
    with torch.random.fork_rng(devices=[]):
        built = _model(preset, replace(model, lora=lora), processor, counting)
    with counting():
        inputs = real.apply(lambda tensor: tensor.clone())
    with _known_layout(built, real["image_grid_thw"].flatten(0, 1), counting):
        if job == "rl":
            step = _ppo_step(built, inputs, decisions, counting)
        else:
            step = _supervised_step(built, inputs, JOBS[job], counting)
        trained = [parameter for parameter in built.parameters() if parameter.requires_grad]
        with counting():
            step.prime(trained)
            storages.restart(trained)
            step.run()
    whole = Footprint(
        weights=_bytes(built.parameters()),
        masters=_bytes(master for _, master in step.masters()),
        optimizer=_bytes(state for _, state in step.states()),
        gradients=storages.gradients,
        activations=storages.excess,
        handed=_bytes(step.handed.values(True, True)),
        gathered=0,
        peak=storages.peak,
    )
    if learners == 1:
        return whole
    return _divided(whole, Division(built, learners), step, storages.reached, job)


def _divided(
    whole: Footprint, division: Division, step: _Step, reached: Sequence[Tensor], job: str
) -> Footprint:
    """`whole`, of the first of the processes; `reached`: weights that have a gradient."""
    own: list[tuple[Tensor, Tensor]] = [(weight, weight) for weight in division.model.parameters()]
    kept = {"weights": own, "masters": step.masters(), "optimizer": step.states()}
    parts = {name: sum(division.part(*pair) for pair in pairs) for name, pairs in kept.items()}
    each = replace(
        whole,
        **parts,
        gradients=sum(division.part(weight, weight) for weight in reached),
        # A learner of RL runs the backbone only to train it.
        gathered=division.gathered(backbone_runs=job != "rl"),
    )
    # How many gradients there are at the peak is not known. Each of these is too much: all of them
    # beside all activations, and whole ones where there were whole ones.
    everything = sum(dataclasses.astuple(each)) - each.peak
    saved = sum(getattr(whole, name) - part for name, part in parts.items())
    return replace(each, peak=min(everything, whole.peak - saved + each.gathered))


def _model(preset: str, config: ModelConfig, processor: Processor, counting: Counting) -> QwenVLA:
    """Weights of zero; the tiny tokenizer stands in for that of any backbone."""
    sizes, contract = load_preset(preset), processor.contract
    codec = channel_bounds_codec(contract)
    expert = sizes.expert_config(contract)
    with empty_weights():
        model = QwenVLA(sizes.backbone_config(), expert, contract, codec, processor, sizes.value)
        if config.lora.rank:
            model.lora = config.lora
            add_adapters(model.backbone, config.lora, empty=True)
    with counting():
        for name, parameter in list(model.named_parameters()):
            assign(model, name, torch.zeros(parameter.shape))
        if model.config.tie_word_embeddings:
            model.backbone.lm_head.weight = model.backbone.get_input_embeddings().weight
        return configured(model, config)


def _supervised_step(
    model: QwenVLA, inputs: TensorDict, rates: dict[str, float], counting: Counting
) -> _Step:
    """Flow matching alone, all samples at once."""
    batch = len(inputs)
    config = SupervisedConfig(
        batch_size=batch, optimizer=OptimizerConfig(learning_rates=rates), action_weight=1.0
    )
    model.processor = cast(Processor, lambda observations: inputs)
    model.train()
    with counting():
        trainer = SupervisedTrainer(
            model, config, cast(ChunkDataset, _Samples(model, batch)), None, seed=0
        )
    return _Step(trainer.train_step, trainer._optimizer, inputs)


class _Samples:
    """As much of a `ChunkDataset` as the trainer asks for."""

    def __init__(self, model: QwenVLA, batch: int) -> None:
        codec = model.codec
        actions = np.zeros((batch, codec.horizon, len(codec.stats.low)), np.float32)
        self._batch = ChunkBatch(Observations({}, [_SENTENCE] * batch), actions)

    def __len__(self) -> int:
        return len(self._batch.actions)

    def chunks(self, frames: NDArray[np.int64]) -> ChunkBatch:
        assert len(frames) == len(self)
        return self._batch


def _ppo_step(model: QwenVLA, inputs: TensorDict, decisions: int, counting: Counting) -> _Step:
    """One minibatch of one micro-batch, after returns and advantages."""
    size, sampling = len(inputs), SamplingConfig()
    config = PPOConfig(
        minibatch=size, micro_batch=size, optimizer=OptimizerConfig(learning_rates=JOBS["rl"])
    )
    with counting(), torch.no_grad():
        learner = PPOLearner(model, config, sampling, 1, seed=0)
        context = model.encode(inputs)[:1].expand(decisions).clone()
        chunk = _chunk(model, decisions)
    batch = TensorDict({**_columns(decisions), "chunk": chunk, "context": context}, [decisions])
    # Returns are of numbers, and take next to nothing.
    work = learner._prepare(batch)
    with counting():
        width = model.config.text_config.hidden_size
        one = {"hidden": torch.zeros(decisions, 1, width), "elapsed": torch.zeros(decisions)}
        one["mask"] = torch.ones(decisions, 1, dtype=torch.bool)
        work.pooled = TensorDict(one, [decisions])

    def run() -> None:
        model.train()
        learner._accumulate(work, torch.arange(size), policy=True, first=True)
        learner._step(work, policy=True)

    return _Step(run, learner._optimizer, batch)


def _columns(decisions: int) -> dict[str, Tensor]:
    """The columns of `vlarl.batch` of one stream."""
    zeros, no = torch.zeros(decisions), torch.zeros(decisions, dtype=torch.bool)
    counts = {name: torch.zeros(decisions, dtype=torch.int64) for name in ("stream", "task")}
    return {
        **counts,
        "version": counts["task"],
        "time": torch.arange(decisions),
        "window_end": torch.arange(decisions) == decisions - 1,
        **dict.fromkeys(("value", "reward", "next_value"), zeros),
        **dict.fromkeys(("terminated", "truncated", "success"), no),
    }


def _chunk(model: QwenVLA, decisions: int) -> TensorDict:
    """An explored chunk of each decision."""
    mask = model.codec.mask(decisions)
    values = {name: torch.zeros(mask.shape) for name in ("action", "y_k", "y_next")}
    step = torch.zeros(decisions, dtype=torch.int64)
    scored = {
        "mask": mask,
        "scored": mask.clone(),
        "step": step,
        "log_prob": torch.zeros(decisions),
    }
    return TensorDict({**values, **scored}, [decisions])


@contextmanager
def _known_layout(model: QwenVLA, grids: Tensor, counting: Counting) -> Iterator[None]:
    """Within the block, the vision tower's index tensors are those of `grids`.

    They are computed from numbers, which fake tensors do not have.
    """
    compute = backbone_module.vision_layout
    layout = compute(model.backbone, grids)
    with counting():
        held = {k: v.clone() if isinstance(v, Tensor) else v for k, v in layout.items()}
    backbone_module.vision_layout = lambda backbone, grids: held
    try:
        yield
    finally:
        backbone_module.vision_layout = compute


def _images(cameras: Iterable[Any], batch: int) -> dict[str, NDArray[np.uint8]]:
    return {c.name: np.zeros((batch, c.height, c.width, 3), np.uint8) for c in cameras}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
