"""The supervised jobs that `bench_train` measures: small data in a folder, tiny models for it."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from learners.supervised import SupervisedTrainer
from vlarl.config.data_schema import DataConfig
from vlarl.config.embodiments import load_embodiment
from vlarl.config.schema import FlowConfig, OptimizerConfig, SupervisedConfig
from vlarl.contract import Contract
from vlarl.data.conversations import ConversationSet
from vlarl.data.episode import Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.data.mixed_batches import EmbodiedChunks, MixedBatches, Source
from vlarl.data.samples import ChunkSource
from vlarl.data.skipped import SkippedEpisodes
from vlarl.data.streaming import StreamingChunks
from vlarl.data.text_chunks import TextChunks
from vlarl.data.trajectories import SynthesizedTrajectories
from vlarl.embodiment import Embodiment
from vlarl.model.presets import build, channel_bounds_codec, new_contract, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.dataset import Entry, Recipe, SynthesisDataset, append, open_folder
from vlarl.synthesis.embodiment import arm_embodiment
from vlarl.synthesis.generator import make_shard
from vlarl.types import CameraSpec

EPISODES, LENGTH = 8, 40
_SIZE, _ALL = 64, ("vision", "language", "expert")


@dataclass(frozen=True)
class Job:
    """What is trained on what."""

    name: str
    config: SupervisedConfig
    model: QwenVLA
    dataset: ChunkSource | None
    mixture: MixedBatches | None

    def trainer(self, workers: int = 0, repeats: int = 0) -> SupervisedTrainer:
        """A trainer of a copy of the model, from its first step."""
        config = self.config
        flow = dataclasses.replace(config.flow, repeats=repeats or config.flow.repeats)
        data = dataclasses.replace(config.data, workers=workers)
        changed = dataclasses.replace(config, flow=flow, data=data)
        model = copy.deepcopy(self.model)
        return SupervisedTrainer(model, changed, self.dataset, None, 0, mixture=self.mixture)


def make_jobs(folder: Path, batch: int) -> list[Job]:
    """All of them; `batch` samples a step, a quarter of it for text to action."""
    return [make(folder / name, name, batch) for name in JOBS]


def make(folder: Path, name: str, batch: int) -> Job:
    """One of `JOBS`, its data in `folder`, which is made."""
    return _JOBS[name](folder, name, batch)


def _all_of_it(folder: Path, name: str, batch: int) -> Job:
    contract = tabletop_contract()
    chunks = _streamed(folder, load_embodiment("tabletop_arm"), contract.cameras, contract.horizon)
    return Job(name, _config(batch, _ALL), _model("tiny", contract), chunks, None)


def _expert_alone(folder: Path, name: str, batch: int) -> Job:
    whole = _all_of_it(folder, name, batch)
    model = _model("tiny-pooled", whole.model.contract)
    return dataclasses.replace(whole, config=_config(batch, ("expert",)), model=model)


def _text_to_action(folder: Path, name: str, batch: int) -> Job:
    """Whole trajectories of one arm, computed in parts of a quarter batch, as configs/t2a/tiny."""
    recipe = Recipe(0, ("ur5e",), ("push",), 2 * batch)
    open_folder(folder, recipe)
    for job in recipe.jobs():
        shard = make_shard(load_arm(job.robot), job.template, 0, job.index, job.count)
        file = folder / job.name
        file.parent.mkdir(parents=True, exist_ok=True)
        size = shard.write(file)
        append(folder, Entry(job.name, job.robot, job.template, len(shard), shard.steps, size))
    own = SynthesizedTrajectories(SynthesisDataset(folder), "ur5e")
    robot = arm_embodiment(load_arm("ur5e"), int(own.lengths.max()))
    dataset = TextChunks([own], 1, 1.0)
    contract = new_contract((), robot, instructions=dataset.sentences)
    config = dataclasses.replace(
        _config(max(1, batch // 4), ("expert",)),
        micro_batch=max(1, batch // 16),
        flow=FlowConfig(tau_distribution="logit_normal", repeats=1),
    )
    return Job(name, config, _model("tiny-pooled", contract), dataset, None)


def _mixture(folder: Path, name: str, batch: int) -> Job:
    """An arm with two cameras, an agent with one, and conversations with pictures."""
    arm, agent = load_embodiment("tabletop_arm"), load_embodiment("vln_agent")
    views = tuple(CameraSpec(view, _SIZE, _SIZE) for view in ("ego", "cam_right_wrist"))
    cameras = [views, views[:1]]
    contract = new_contract(
        views, arm, further_embodiments=[agent], further_cameras=[views[:1]]
    )  # fmt: skip
    datasets = [
        EmbodiedChunks(place, _streamed(folder / robot.name, robot, seen, robot.horizon))
        for place, (robot, seen) in enumerate(zip((arm, agent), cameras, strict=True))
    ]
    sources = [
        Source("arm", 5.0, (datasets[0],)),
        Source("agent", 2.0, (datasets[1],)),
        Source("talks", 1.0, conversations=_talks(folder / "talks.jsonl")),
    ]
    batches = MixedBatches(sources, cameras, batch, seed=0)
    return Job(name, _config(batch, _ALL), _model("tiny", contract), None, batches)


_JOBS: dict[str, Callable[[Path, str, int], Job]] = {
    "sft": _all_of_it,
    "sft, expert alone": _expert_alone,
    "t2a": _text_to_action,
    "mixture": _mixture,
}
JOBS = tuple(_JOBS)


def _config(batch: int, trained: tuple[str, ...]) -> SupervisedConfig:
    rates = dict.fromkeys(trained, 1e-4)
    optimizer = OptimizerConfig(learning_rates=rates, warmup_steps=1)
    return SupervisedConfig(batch_size=batch, optimizer=optimizer, data=DataConfig())


def _model(preset: str, contract: Contract) -> QwenVLA:
    torch.manual_seed(0)
    codec, *further = (channel_bounds_codec(contract, i) for i in range(len(contract.embodiments)))
    return build(preset, contract, codec, further_codecs=further)


def _streamed(
    path: Path, robot: Embodiment, cameras: tuple[CameraSpec, ...], horizon: int
) -> StreamingChunks:
    """A dataset that is read from its files as training goes, with what is stored remembered."""
    random = np.random.default_rng(0)
    channels = [channel.name for channel in robot.channels]
    low, high = (np.array([getattr(c, end) for c in robot.channels]) for end in ("low", "high"))
    with LeRobotWriter(path, robot.control_hz, cameras, channels, 0, robot.name) as writer:
        for index in range(EPISODES):
            images = {camera.name: _pictures(random, camera) for camera in cameras}
            actions = np.float32(random.uniform(low, high, (LENGTH, len(channels))))
            state = np.zeros((LENGTH, 0), np.float32)
            writer.add(Episode(images, state, actions, f"pick up object {index % 4}"))
    reader = LeRobotReader(path, 10**9)
    return StreamingChunks(reader, horizon, SkippedEpisodes(path, len(reader), 0.0))


def _pictures(random: np.random.Generator, camera: CameraSpec) -> np.ndarray:
    """[LENGTH, height, width, 3] gradients with noise: about as large as PNG as a camera's."""
    slope = np.linspace(0, 200, camera.width)[None, None, :, None]
    noise = random.integers(0, 30, (LENGTH, camera.height, camera.width, 3))
    return np.uint8(slope + noise)


def _talks(file: Path) -> ConversationSet:
    """Questions of different lengths about one picture each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines, random = [], np.random.default_rng(0)
    for number in range(2 * EPISODES):
        picture = _pictures(random, CameraSpec("ego", _SIZE, _SIZE))[0]
        Image.fromarray(picture).save(file.parent / f"{number}.png")
        asked = [{"type": "image", "image": f"{number}.png"}]
        asked.append({"type": "text", "text": "What is there? " * (1 + number % 4)})
        answer = {"role": "assistant", "content": "a plate " * (1 + number % 3)}
        messages = [{"role": "user", "content": asked}, answer]
        lines.append(json.dumps({"id": str(number), "messages": messages}))
    file.write_text("\n".join(lines))
    return ConversationSet(file)
