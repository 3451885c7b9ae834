"""T2A, CPT, SFT, RL and evaluation one after the other, as `docs/stages.md` tells a user to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from actors import cli
from vlarl.model.qwen_vla import QwenVLA
from vlarl.rewards import RewardInput

PAGE = Path(__file__).parents[1] / "docs/stages.md"


def commands() -> list[list[str]]:
    """The page's walk through all stages: the first block that names every debug config."""
    blocks = re.findall(r"(?:^    vlarl .*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    (walk,) = (block for block in blocks if "configs/rl/debug.yaml" in block)
    return [line.split()[1:] for line in walk.splitlines()]


def stillness(seen: RewardInput) -> NDArray[np.float32]:
    """A reward that even four steps of SFT get some of: success gives nothing to learn from."""
    return -np.abs(seen.actions).mean(axis=(1, 2))


def moved(before: QwenVLA, after: QwenVLA) -> set[str]:
    """Parts of the backbone and expert that are not what they were; none may be made anew."""
    found = set()
    for part in ("vision", "language", "expert"):
        pairs = list(zip(before.parts()[part], after.parts()[part], strict=True))
        gap = max(float((one - other).detach().abs().max()) for one, other in pairs)
        # Four steps of at most 1e-3 each; random weights would differ by 0.02 and more.
        assert gap < 8e-3, part
        if gap > 0:
            found.add(part)
    return found


@pytest.mark.slow
def test_every_stage_goes_on_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    walk = commands()
    assert [words[0] for words in walk] == ["synth", "t2a", "cpt", "sft", "rl", "eval"]
    results: dict[str, dict[str, Any]] = {}
    for words in walk:
        more = ["reward.name=test_all_stages:stillness"] if words[0] == "rl" else []
        code = cli.run([*words, *more, "--json"])
        captured = capsys.readouterr()
        assert code == 0, f"vlarl {' '.join(words)}: {captured.err}"
        results[words[0]] = json.loads(captured.out)
    stages = ("t2a", "cpt", "sft", "rl")
    assert [results[stage]["steps"] for stage in stages] == [4, 4, 4, 2]
    models = {s: QwenVLA.from_pretrained(results[s]["checkpoint"]) for s in stages}
    everything = {"vision", "language", "expert"}
    assert moved(models["t2a"], models["cpt"]) == everything
    assert moved(models["cpt"], models["sft"]) == everything
    assert moved(models["sft"], models["rl"]) == {"expert"}
    horizons = {stage: model.contract.tensor_horizon for stage, model in models.items()}
    assert horizons["t2a"] > horizons["cpt"] == horizons["sft"] == horizons["rl"]
    before, after = models["sft"].value_head, models["rl"].value_head
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)
    assert results["eval"]["episodes"] == 4
    assert 0 <= results["eval"]["success_rate"] <= 1
