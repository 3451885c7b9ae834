"""Suites that cannot be installed here, through the contract of all, on stand-ins."""

import dataclasses

import pytest
from stand_in_environments import MODULES, make_environment
from test_suite_contract import (  # noqa: F401, collected from here, with this file's client
    options_of,
    test_a_chunk_is_its_control_steps_one_after_the_other,
    test_a_snapshot_goes_on_bit_for_bit,
    test_an_episode_begins_as_its_start_says_in_any_slot_and_after_anything,
    test_an_episode_ends_at_its_limit_and_then_takes_no_more,
    test_closing_leaves_no_process,
    test_experts_answer_within_the_bounds_of_the_channels_or_not_at_all,
    test_the_spec_is_what_the_class_says_without_its_simulator,
    test_what_is_no_action_is_refused,
)

from actors import suite_environments
from envservers import environments
from envservers.client import spawn_server
from envservers.maniskill import widowx
from vlarl.errors import UserError


@pytest.fixture(scope="module", params=list(MODULES))
def client(request, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("VLARL_SUITES", str(tmp_path_factory.mktemp("home")))
    make_environment(request.param)
    found = spawn_server(request.param, 2, options_of(request.param), deadline=60.0)
    yield found
    found.close()
    patch.undo()


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("vln-ce", "data", "download_mp.py"),
        ("calvin", "code", "git clone --recurse-submodules"),
        ("simpler-env", "code", "git clone --recurse-submodules"),
    ],
)
def test_what_is_missing_is_one_message_with_the_command(
    name, option, words, tmp_path, monkeypatch
):
    monkeypatch.setenv("VLARL_SUITES", str(tmp_path / "home"))
    make_environment(name)
    with pytest.raises(UserError, match=words) as error:
        spawn_server(name, 1, {option: str(tmp_path / "nowhere")}, deadline=60.0)
    assert str(tmp_path / "nowhere") in str(error.value)


def test_what_is_put_there_by_hand_is_named_and_is_no_change(tmp_path, monkeypatch):
    monkeypatch.setenv("VLARL_SUITES", str(tmp_path))
    missing = suite_environments.state("vln-ce")
    assert missing.state == "missing"
    assert "then: habitat-sim, episodes" in missing.text
    make_environment("vln-ce")
    there = ["numpy==1.26.4", "habitat_sim==0.3.3"]
    record = environments.record("vln-ce")
    environments.write_record(dataclasses.replace(record, packages=("numpy==1.26.4",)))
    monkeypatch.setattr(suite_environments, "_look", lambda _: {"packages": there})
    assert suite_environments.state("vln-ce").state == "ready"
    there.append("other==1")
    broken = suite_environments.state("vln-ce")
    assert (broken.state, "other==1" in broken.text) == ("broken", True)
    assert "habitat" not in broken.text


def test_an_environment_without_its_scenes_is_not_called_ready(tmp_path, monkeypatch):
    monkeypatch.setenv("VLARL_SUITES", str(tmp_path))
    make_environment("simpler-env")
    there = environments.record("simpler-env").packages
    monkeypatch.setattr(suite_environments, "_look", lambda _: {"packages": there})
    assert suite_environments.state("simpler-env").state == "ready"
    clone = environments.assets("simpler-env")
    clone.rename(tmp_path / "elsewhere")
    incomplete = suite_environments.state("simpler-env")
    assert incomplete.state == "incomplete"
    assert f"git clone --recurse-submodules https://github.com/simpler-env/SimplerEnv {clone}" in (
        incomplete.text
    )


def test_what_is_fetched_by_hand_is_ready_once_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("VLARL_SUITES", str(tmp_path))
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path / "scenes"))

    def state():
        return {each.name: each.state for each in suite_environments.states()}["simpler-widowx"]

    assert state() == "elsewhere"
    make_environment("maniskill")
    there = environments.record("maniskill").packages
    monkeypatch.setattr(suite_environments, "_look", lambda _: {"packages": there})
    assert state() == "elsewhere"
    for part in widowx.DOWNLOADS:
        (widowx.data_folder() / part).mkdir(parents=True)
    assert state() == "ready"
