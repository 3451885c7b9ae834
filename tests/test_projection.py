"""Projection designs of section 5.2.2: their sizes, and that no embodiment touches another's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from actors import cli
from vlarl.model.dit import ActionExpert
from vlarl.model.expert_config import PROJECTIONS, ExpertConfig
from vlarl.model.parameters import boundary, boundary_formula
from vlarl.model.presets import load_preset
from vlarl.model.projection import first_layers, last_layers

COUNTS = (7, 5, 3)
DESIGNS = pytest.mark.parametrize("design", PROJECTIONS)
SEVERAL = pytest.mark.parametrize("design", ["multi_mlp", "concatenation"])


def expert_of(design: str, preset: str = "tiny") -> ActionExpert:
    """Of three embodiments; nothing is zero any more."""
    sizes = load_preset(preset)
    config = ExpertConfig(
        **sizes.expert,
        channels=max(COUNTS),
        projection=design,
        embodiments=() if design == "zero_pad" else COUNTS,
    )
    torch.manual_seed(0)
    expert = ActionExpert(config, sizes.backbone_config().text_config)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return expert


def velocity_of(
    expert: ActionExpert, which: list[int] | None, repeats: int = 1
) -> tuple[Tensor, Tensor]:
    """Of random contexts and chunks, and the mask of each row's own channels."""
    batch = 4 if which is None else len(which)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(batch, 5, 128, generator=generator)
    mask = torch.ones(batch, 5, dtype=torch.bool)
    positions = torch.arange(5).expand(batch, 3, 5)
    own = torch.zeros(batch, expert.config.horizon, max(COUNTS), dtype=torch.bool)
    for row, place in enumerate(which or [0] * batch):
        own[row, :, : COUNTS[place]] = True
    own = own.repeat_interleave(repeats, dim=0)
    y = torch.randn(own.shape, generator=generator).masked_fill(~own, 0.0)
    tau = torch.rand(len(y), generator=generator)
    embodiment = None if which is None else torch.tensor(which)
    velocity = expert(hidden, mask, positions, y, tau, embodiment=embodiment)
    return velocity.masked_fill(~own, 0.0), own


@DESIGNS
def test_layers_at_the_channels_have_the_papers_counts(design: str) -> None:
    expert = expert_of(design)
    width, channels = expert.config.width, 7 if design == "zero_pad" else 7 + 5 + 3
    assert boundary(expert) == 2 * width * channels == boundary_formula(expert.config)[1]


@SEVERAL
def test_other_embodiments_get_exactly_no_gradient(design: str) -> None:
    expert = expert_of(design)
    velocity_of(expert, [1, 1, 1])[0].square().sum().backward()
    first, last = first_layers(expert.action_in), last_layers(expert.action_out)
    if design == "concatenation":
        inner, outer = first[0].weight.grad, last[0].weight.grad
        assert inner is not None
        assert outer is not None
        columns, rows = inner.abs().sum(0) > 0, outer.abs().sum(1) > 0
        assert columns.tolist() == rows.tolist() == [False] * 7 + [True] * 5 + [False] * 3
        bias = last[0].bias.grad
        assert bias is not None
        assert (bias != 0).tolist() == rows.tolist()
    else:
        for layers in (expert.action_in, expert.action_out):
            reached = [all(p.grad is not None for p in mlp.parameters()) for mlp in layers]
            untouched = [all(p.grad is None for p in mlp.parameters()) for mlp in layers]
            assert reached == [False, True, False]
            assert untouched == [True, False, True]


def test_padded_channels_get_exactly_no_gradient() -> None:
    expert = expert_of("zero_pad")
    velocity_of(expert, [1, 1, 1])[0].square().sum().backward()
    first, last = first_layers(expert.action_in)[0], last_layers(expert.action_out)[0]
    assert first.weight.grad is not None
    assert last.weight.grad is not None
    expected = [True] * 5 + [False] * 2
    assert (first.weight.grad.abs().sum(0) > 0).tolist() == expected
    assert (last.weight.grad.abs().sum(1) > 0).tolist() == expected


@DESIGNS
def test_a_mixed_batch_is_its_rows(design: str) -> None:
    expert, which = expert_of(design), [2, 0, 1, 0]
    together, own = velocity_of(expert, which)
    assert (together[own] != 0).all()
    for place in range(3):
        uniform, _ = velocity_of(expert, [place] * 4)
        rows = [row for row, other in enumerate(which) if other == place]
        torch.testing.assert_close(together[rows], uniform[rows], atol=2e-6, rtol=1e-5)
    absent, _ = velocity_of(expert, None)
    zeros, _ = velocity_of(expert, [0] * 4)
    assert torch.equal(absent, zeros)


@SEVERAL
def test_embodiments_differ_and_repeated_chunks_keep_theirs(design: str) -> None:
    expert = expert_of(design)
    one, _ = velocity_of(expert, [1, 1])
    other, _ = velocity_of(expert, [2, 2])
    assert not torch.isclose(one[..., :3], other[..., :3]).any(dim=-1).all()
    repeated, own = velocity_of(expert, [1, 2], repeats=2)
    assert own[:, 0].sum(1).tolist() == [5, 5, 3, 3]
    assert ((repeated != 0) == own).all()


def test_configs_that_make_no_sense_are_refused() -> None:
    sizes = load_preset("tiny").expert
    for values, words in (
        ({"projection": "zero"}, "allowed: zero_pad, multi_mlp, concatenation"),
        ({"embodiments": (3,)}, "no effect with projection zero_pad"),
        ({"projection": "multi_mlp", "embodiments": (3, 65)}, r"within 1\.\.64"),
    ):
        with pytest.raises(ValueError, match=words):
            ExpertConfig(**sizes, **values)


def test_one_embodiment_of_all_channels_is_the_padded_design() -> None:
    """Without a list of embodiments, the three designs are the same layers."""
    shapes = set()
    for design in PROJECTIONS:
        sizes = load_preset("tiny")
        config = ExpertConfig(**sizes.expert, projection=design)
        expert = ActionExpert(config, sizes.backbone_config().text_config)
        shapes.add(boundary(expert))
    assert shapes == {2 * 96 * 64}


@DESIGNS
def test_the_command_prints_formula_and_count(
    capsys: pytest.CaptureFixture[str], design: str
) -> None:
    words = ["info", "model", "tiny", "embodiments=[widowx_eef, tabletop_arm]"]
    assert cli.run([*words, f"projection={design}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["projection"]: row for row in found["projections"]}
    expected = {"zero_pad": 2 * 96 * 7, "multi_mlp": 2 * 96 * 12, "concatenation": 2 * 96 * 12}
    assert {name: row["boundary"] for name, row in rows.items()} == expected
    assert {name: row["expected"] for name, row in rows.items()} == expected
    assert found["parts"]["expert"]["action projections"] == rows[design]["action projections"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["projection=multi_mpl", "embodiments=[widowx_eef]"], "Did you mean multi_mlp"),
        (["projection=multi_mlp"], "needs embodiments"),
        (["embodiments=[widow_eef]"], "Did you mean widowx_eef"),
    ],
)
def test_mistakes_of_the_command_are_named(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.run(["info", "model", "tiny", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_preset_file_selects_the_design(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: tiny\nexpert: {projection: multi_mlp}\n")
    assert load_preset(str(file)).expert["projection"] == "multi_mlp"
