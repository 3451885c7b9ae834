"""Prompt wording, special tokens, golden token ids, contract checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vlarl.config.embodiments import embodiment_names, load_embodiment
from vlarl.contract import Contract
from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.presets import tabletop_contract
from vlarl.model.tokenizer import ASSETS, load_tiny_tokenizer, special_tokens, token_id, train
from vlarl.prompt import prompt
from vlarl.types import CameraSpec, EnvSpec

GOLDEN = (
    "The robot is a 6-joint tabletop arm with single arm. The control frequency is 5 Hz. "
    "Please predict the next 16 control actions to execute the following task: "
    "put the carrot on the plate."
)
GOLDEN_IDS = [
    487,
    478,
    265,
    319,
    220,
    21,
    486,
    480,
    434,
    476,
    692,
    434,
    13,
    451,
    445,
    509,
    265,
    220,
    20,
    503,
    13,
    446,
    507,
    258,
    479,
    220,
    16,
    21,
    445,
    508,
    317,
    506,
    258,
    505,
    475,
    25,
    269,
    258,
    340,
    266,
    258,
    339,
    13,
]


def spec_of(contract: Contract) -> EnvSpec:
    return EnvSpec(
        suite="tabletop",
        tasks=("one",),
        cameras=contract.cameras,
        channels=contract.embodiment.channels,
        embodiment=contract.embodiment.name,
        control_hz=contract.embodiment.control_hz,
        max_steps=10,
        state_dim=1,
    )


def test_prompt_is_the_papers_template() -> None:
    robot = load_embodiment("tabletop_arm")
    assert prompt(robot, "put the carrot on the plate", 16) == GOLDEN
    assert prompt(robot, " put the carrot on the plate. ", 16) == GOLDEN


@pytest.mark.parametrize(
    ("dual_arm", "waist", "mobile_base", "words"),
    [
        (True, False, False, "with dual arms. The"),
        (True, True, False, "with dual arms, waist. The"),
        (False, False, True, "with single arm, and mobile base. The"),
        (True, True, True, "with dual arms, waist, and mobile base. The"),
    ],
)
def test_modifiers(dual_arm: bool, waist: bool, mobile_base: bool, words: str) -> None:
    robot = replace(
        load_embodiment("tabletop_arm"), dual_arm=dual_arm, waist=waist, mobile_base=mobile_base
    )
    assert words in prompt(robot, "go", 16)


def test_frequency_is_an_integer_when_it_can_be() -> None:
    robot = load_embodiment("tabletop_arm")
    assert "is 30 Hz" in prompt(replace(robot, control_hz=30.0), "go", 16)
    assert "is 12.5 Hz" in prompt(replace(robot, control_hz=12.5), "go", 16)


def test_empty_instruction_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        prompt(load_embodiment("tabletop_arm"), " . ", 16)


def test_every_special_token_is_one_id() -> None:
    tokenizer = load_tiny_tokenizer()
    ids = [token_id(tokenizer, token) for token in special_tokens()]
    assert len(set(ids)) == len(ids) == 13
    for token, identifier in zip(special_tokens(), ids, strict=True):
        assert tokenizer.convert_ids_to_tokens(identifier) == token
    with pytest.raises(ValueError, match="must be one"):
        token_id(tokenizer, "<|no_such_view_start|>")


def test_digits_are_single_tokens() -> None:
    tokenizer = load_tiny_tokenizer()
    ids = tokenizer.encode("0123456789")
    assert len(set(ids)) == 10
    assert tokenizer.encode("6029") == [ids[6], ids[0], ids[2], ids[9]]


def test_golden_token_ids() -> None:
    tokenizer = load_tiny_tokenizer()
    ids = tokenizer.encode(GOLDEN)
    assert ids == GOLDEN_IDS
    assert tokenizer.decode(ids) == GOLDEN


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = load_tiny_tokenizer()
    text = "Schraube käfig 你好 \n\t ~#7 unfathomable"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_the_tokenizer_again_gives_the_shipped_files(tmp_path: Path) -> None:
    train().save_pretrained(tmp_path)
    shipped = sorted(path.name for path in ASSETS.iterdir())
    assert shipped == sorted(path.name for path in tmp_path.iterdir())
    for name in shipped:
        assert (tmp_path / name).read_bytes() == (ASSETS / name).read_bytes(), name


def test_unknown_embodiment_lists_the_known_ones() -> None:
    assert "tabletop_arm" in embodiment_names()
    with pytest.raises(ConfigError, match="tabletop_arm"):
        load_embodiment("no_such_arm")
    with pytest.raises(ConfigError, match="unknown embodiment"):
        load_embodiment("../embodiments/tabletop_arm")


def test_contract_round_trip_and_fit() -> None:
    contract = tabletop_contract()
    assert Contract.from_dict(contract.to_dict()) == contract
    contract.check(spec_of(contract))
    extra = (CameraSpec("top", 32, 32), *contract.cameras)
    contract.check(replace(spec_of(contract), cameras=extra))


def test_contract_names_every_mismatch() -> None:
    contract = tabletop_contract()
    channels = contract.embodiment.channels
    wrong = replace(
        spec_of(contract),
        cameras=(CameraSpec("ego", 32, 32),),
        channels=(*channels[:4], replace(channels[4], low=0.0)),
        embodiment="other",
        control_hz=10.0,
    )
    with pytest.raises(CheckpointError) as caught:
        contract.check(wrong)
    message = str(caught.value)
    for word in ("ego", "32x32", "cam_right_wrist", "channel 4", "'other'", "10 Hz"):
        assert word in message
    with pytest.raises(CheckpointError, match="action channels"):
        contract.check(replace(spec_of(contract), channels=channels[:3]))


def test_ill_formed_contracts_are_refused() -> None:
    contract = tabletop_contract()
    with pytest.raises(ValueError, match="horizon"):
        replace(contract, horizon=17)
    with pytest.raises(ValueError, match="state_mode"):
        replace(contract, state_mode="telepathy")
    with pytest.raises(ValueError, match="camera"):
        replace(contract, cameras=(), history=2)
    with pytest.raises(ValueError, match="contract"):
        Contract.from_dict({**contract.to_dict(), "colour": "red"})
