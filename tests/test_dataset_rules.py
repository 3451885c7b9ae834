"""Rules of a dataset's robot and cameras."""

from __future__ import annotations

import pytest

from vlarl.config.data_schema import SourceConfig
from vlarl.config.load import load_config
from vlarl.errors import ConfigError

DATA, KEY = "supervised.data", "supervised.data.mixture"
PATH = f"{DATA}.path=x"


def source(**settings: str) -> str:
    words = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return f"{KEY}={{a: {{path: x, {words}}}}}"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([f"{DATA}.embodiment=widowx_eef"], "no effect with supervised.data.path empty"),
        ([f"{DATA}.cameras={{ego: top}}"], "no effect with supervised.data.path empty"),
        (
            [PATH, f"{DATA}.eigengrasps=f", f"{DATA}.embodiment=human_hands"],
            "no effect with supervised.data.eigengrasps",
        ),
        ([PATH, f"{DATA}.embodiment=aloha"], f"{DATA}.embodiment = 'aloha': names no robot"),
        (
            [PATH, f"{DATA}.cameras={{top: ego}}"],
            "'top' is no view of a model. Views are ego, cam_",
        ),
        ([PATH, f"{DATA}.cameras={{ego: a, cam_left_wrist: a}}"], "a camera is named twice"),
        ([PATH, f"{DATA}.cameras=top"], f"{DATA}.cameras = 'top'"),
        ([source(cameras="{top: ego}")], f"{KEY}.a.cameras = {{'top': 'ego'}}: 'top' is no view"),
        ([source(cameras="{ego: x}", kind="conversations")], "no effect with kind=conversations"),
        ([source(), f"{DATA}.embodiment=widowx_eef"], f"no effect with {KEY}"),
        ([source(), f"{DATA}.cameras={{ego: top}}"], f"no effect with {KEY}"),
    ],
)
def test_what_cannot_be_is_one_error(words: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, ["stage=sft", *words])
    assert problem in str(error.value)
    assert str(error.value).startswith("command line: ")


def test_cameras_are_set_together_or_one_by_one() -> None:
    shipped = load_config("configs/sft/aloha.yaml").supervised.data.cameras
    assert shipped["ego"] == "cam_high"
    one = load_config("configs/sft/aloha.yaml", [f"{DATA}.cameras.ego=cam_low"])
    assert one.supervised.data.cameras == {**shipped, "ego": "cam_low"}
    other = load_config("configs/sft/aloha.yaml", [f"{DATA}.cameras={{ego: top}}"])
    assert other.supervised.data.cameras == {"ego": "top"}
    mixed = load_config(None, ["stage=sft", source(), f"{KEY}.a.cameras={{ego: top}}"])
    assert mixed.supervised.data.mixture == {"a": SourceConfig("x", cameras={"ego": "top"})}
