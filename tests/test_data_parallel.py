"""Two processes under torchrun take the steps of one (gloo, real processes)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mixture_sources import write_sources
from t2a_data import synthesize

from actors.stage_run import process_group
from vlarl.config.load import load_config
from vlarl.errors import UserError
from vlarl.model.qwen_vla import QwenVLA

ROOT = Path(__file__).resolve().parents[1]
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def run(output: Path, name: str, launcher: tuple[str, ...], *words: str) -> dict:
    """A training in processes of its own; what it prints as JSON."""
    command = [sys.executable, *launcher, "-m", "actors.cli", *words]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    done = subprocess.run(
        [*command, f"output={output}", f"name={name}", "--json"],
        cwd=output,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict = json.loads(done.stdout)
    return found


def weights(result: dict, part: str) -> torch.Tensor:
    model = QwenVLA.from_pretrained(result["checkpoint"])
    return torch.cat([p.detach().flatten() for p in model.parts()[part]])


def losses(output: Path, name: str, key: str) -> list[float]:
    rows = (output / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)[key] for row in rows]


@pytest.mark.soak
@pytest.mark.slow
def test_two_processes_pretrain_like_one(tmp_path):
    """Also when the last checkpoint is lost and both go on from the one before."""
    data = synthesize(tmp_path / "data", ("ur5e",), 6)
    words = ("t2a", str(ROOT / "configs/t2a/debug.yaml"))
    settings = (f"supervised.data.t2a.synthetic={data}", "supervised.micro_batch=0")
    one = run(tmp_path, "one", (), *words, *settings)
    two = run(tmp_path, "two", TWO, *words, *settings)
    stopped = tmp_path / "two/checkpoints"
    (stopped / "last").unlink()
    (stopped / "step_4").rename(tmp_path / "moved")
    again = run(tmp_path, "two", TWO, *words, *settings, "resume=auto")
    assert losses(tmp_path, "two", "action_loss") == pytest.approx(
        losses(tmp_path, "one", "action_loss"), rel=1e-5
    )
    torch.testing.assert_close(weights(again, "expert"), weights(one, "expert"), atol=2e-4, rtol=0)
    gap = (weights(again, "expert") - weights(one, "expert")).abs()
    assert gap.mean() < 1e-6
    assert two["checkpoint"] == again["checkpoint"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "moved", "one", "two"]


@pytest.mark.soak
def test_two_processes_train_all_of_the_model_like_one(tmp_path):
    words = ("sft", str(ROOT / "configs/sft/debug.yaml"))
    run(tmp_path, "data", (), *words)
    path = f"supervised.data.path={tmp_path / 'data/demonstrations'}"
    settings = (path, "supervised.collect.episodes=400", "supervised.ema=0.5")
    one = run(tmp_path, "one", (), *words, *settings)
    two = run(tmp_path, "two", TWO, *words, *settings)
    for loss in ("action_loss", "grounding_loss", "grad_norm/total"):
        assert losses(tmp_path, "two", loss) == pytest.approx(
            losses(tmp_path, "one", loss), rel=1e-3
        ), loss
    for part in ("vision", "language", "expert"):
        gap = (weights(one, part) - weights(two, part)).abs()
        assert gap.mean() < 1e-5, part


@pytest.mark.soak
@pytest.mark.slow
def test_two_processes_with_a_part_of_the_model_each_train_like_one(tmp_path):
    """Whole trajectories, which each process groups for itself; then one process goes on."""
    data = synthesize(tmp_path / "data", ("ur5e",), 6)
    words = ("t2a", str(ROOT / "configs/t2a/debug.yaml"))
    settings = (
        f"supervised.data.t2a.synthetic={data}",
        "supervised.micro_batch=1",
        "supervised.ema=0.5",
    )
    one = run(tmp_path, "one", (), *words, *settings)
    two = run(tmp_path, "two", TWO, *words, *settings, "runtime.shard=full")
    for name in ("action_loss", "grad_norm/expert", "grad_norm/total"):
        assert losses(tmp_path, "two", name) == pytest.approx(
            losses(tmp_path, "one", name), rel=1e-5
        ), name
    stopped = tmp_path / "two/checkpoints"
    (stopped / "last").unlink()
    (stopped / "step_4").rename(tmp_path / "moved")
    again = run(tmp_path, "two", (), *words, *settings, "resume=auto")
    for found in (two | {"checkpoint": tmp_path / "moved"}, again):
        gap = (weights(found, "expert") - weights(one, "expert")).abs()
        assert gap.mean() < 1e-6
    averages = [weights({"checkpoint": found["average"]}, "expert") for found in (one, again)]
    assert (averages[0] - averages[1]).abs().mean() < 1e-6


@pytest.mark.soak
@pytest.mark.slow
def test_two_processes_with_a_part_of_the_model_each_train_all_of_it_like_one(tmp_path):
    words = ("sft", str(ROOT / "configs/sft/debug.yaml"))
    run(tmp_path, "data", (), *words)
    settings = (
        f"supervised.data.path={tmp_path / 'data/demonstrations'}",
        "supervised.collect.episodes=400",
        "supervised.eval_every=0",
    )
    one = run(tmp_path, "one", (), *words, *settings)
    two = run(tmp_path, "two", TWO, *words, *settings, "runtime.shard=full")
    for loss in ("action_loss", "grounding_loss", "grad_norm/vision", "grad_norm/total"):
        assert losses(tmp_path, "two", loss) == pytest.approx(
            losses(tmp_path, "one", loss), rel=1e-3
        ), loss
    for part in ("vision", "language", "expert"):
        gap = (weights(one, part) - weights(two, part)).abs()
        assert gap.mean() < 1e-5, part


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize(("size", "parts"), [(16, 0), (2, 1)])
def test_two_processes_train_on_a_mixture_like_one(tmp_path, size, parts):
    """Of two rows, an action and a conversation: neither process has both losses."""
    sources = write_sources(tmp_path / "sources")
    words = ("sft", str(ROOT / "configs/sft/mixture_debug.yaml"), *sources)
    settings = [f"supervised.batch_size={size}"]
    if size == 2:
        pair = {"tabletop": 1, "conversations": 1, "navigation": 0, "hands": 0}
        settings += [f"supervised.data.mixture.{name}.weight={pair[name]}" for name in pair]
    one = run(tmp_path, "one", (), *words, *settings)
    two = run(tmp_path, "two", TWO, *words, *settings, f"supervised.micro_batch={parts}")
    names = ("action_loss", "conversation_loss", "grad_norm/vision", "grad_norm/expert")
    for name in (*names, "grad_norm/total"):
        assert losses(tmp_path, "two", name) == pytest.approx(
            losses(tmp_path, "one", name), rel=1e-3
        ), name
    for part in ("vision", "language", "expert"):
        gap = (weights(one, part) - weights(two, part)).abs()
        assert gap.mean() < 1e-5, part


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["supervised.batch_size=5"], "Use a multiple of 2"),
        ([], "Run without torchrun first"),
    ],
)
def test_what_processes_cannot_share_is_refused(monkeypatch, overrides, words):
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = load_config(ROOT / "configs/sft/debug.yaml", overrides)
    with pytest.raises(UserError, match=words), process_group(config):
        pass
