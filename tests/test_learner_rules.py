"""`runtime.learners`, `runtime.shard`, `runtime.offload`: what is refused, and what is not."""

from __future__ import annotations

import pytest

from actors.learner_group import divide
from actors.stage_run import process_group
from vlarl.config.load import load_config
from vlarl.errors import ConfigError, UserError

RL, SFT = "configs/rl/tabletop.yaml", "configs/sft/debug.yaml"
FULL = ["runtime.shard=full"]
SHARED = ["runtime.learners=2", *FULL]
NO_SCENES = ["supervised.grounding_batch_size=0", "supervised.data.grounding_images=0"]


@pytest.mark.parametrize(
    ("file", "overrides", "key", "words"),
    [
        (RL, ["runtime.shard=ful"], "runtime.shard", "Did you mean full?"),
        (RL, ["runtime.offload=all"], "runtime.offload", "none, optimizer"),
        (RL, ["runtime.learners=0"], "runtime.learners", "at least 1"),
        (RL, FULL, "runtime.shard", "no effect with runtime.learners=1"),
        (RL, ["runtime.learners=1000"], "runtime.learners", "without a row of ppo.minibatch"),
        (
            RL,
            ["runtime.kind=inprocess", "runtime.learners=2"],
            "runtime.learners",
            "no effect with runtime.kind=inprocess",
        ),
        (
            RL,
            ["runtime.device=cpu", "runtime.offload=optimizer"],
            "runtime.offload",
            "no effect with runtime.device=cpu",
        ),
        (
            RL,
            [*SHARED, "runtime.device=auto", "cluster.learner.gpus=0.5"],
            "cluster.learner.gpus",
            "share a GPU",
        ),
        (RL, [*SHARED, "model.compile=true"], "model.compile", "needs whole layers"),
        (SFT, ["runtime.learners=2"], "runtime.learners", "torchrun starts"),
        (SFT, [*FULL, "supervised.eval_every=2"], "supervised.eval_every", "vlarl eval"),
        ("configs/sft/mixture_debug.yaml", FULL, "supervised.data.mixture", "none"),
        (
            SFT,
            [
                *FULL,
                "supervised.data.conversations=x.jsonl",
                "supervised.conversation_batch_size=4",
            ],
            "supervised.conversation_batch_size",
            "runtime.shard=none",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(file, overrides, key, words):
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides)
    assert f"{key} = " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(("file", "overrides"), [(RL, SHARED), (SFT, FULL)])
def test_what_can_be_divided_is_not_refused(file, overrides):
    assert load_config(file, overrides).runtime.shard == "full"


def test_an_evaluation_has_no_learners():
    for setting in ("runtime.learners=2", "runtime.shard=full", "runtime.offload=optimizer"):
        with pytest.raises(ConfigError, match="no effect with stage=eval"):
            load_config(RL, ["stage=eval", setting])


def test_a_single_process_has_nobody_to_share_a_model_with(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with (
        pytest.raises(UserError, match=r"runtime\.shard=none"),
        process_group(load_config(SFT, FULL)),
    ):
        pass


def test_offloading_a_model_on_the_cpu_is_refused():
    from tiny_model import make_model

    config = load_config(RL, ["runtime.device=auto", "runtime.offload=optimizer"])
    with pytest.raises(ConfigError, match="on the CPU already"):
        divide(config, make_model())
