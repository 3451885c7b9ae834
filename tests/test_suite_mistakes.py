"""What can be wrong with a suite in an environment of its own, refused before anything runs."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from test_slot_suite import make

from actors import cli
from actors.env_host import EnvHost
from actors.experts import is_served
from actors.recording import EpisodeQuota
from actors.server_demonstrations import PERSISTENCE, SLOTS, served_episodes
from actors.suite_checks import check_suites
from envservers import environments, graphics_probe, opengl, registry, usable, vulkan
from envservers.graphics_probe import Graphics
from envservers.inprocess import InprocessClient
from envservers.registry import make_suite
from vlarl.config.data_schema import CollectConfig
from vlarl.config.process_schema import EnvConfig, SuiteConfig
from vlarl.errors import CheckpointError, ConfigError, UserError
from vlarl.model.checkpoint import load_contract

OWN = "elsewhere-made"
"""An environment for the counting suite, as far as these tests are concerned."""


@pytest.fixture
def isolated(monkeypatch, tmp_path):
    """`counting` runs in an environment that is not installed."""
    monkeypatch.setenv("VLARL_SUITES", str(tmp_path / "home"))
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / f"{OWN}.txt").write_text("tinysim==1.0\n")
    monkeypatch.setattr(environments, "_HERE", tmp_path / "pins")
    entry = dataclasses.replace(registry.SUITES["counting"], environment=OWN)
    monkeypatch.setitem(registry.SUITES, "counting", entry)
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """Env servers that were started."""
    found = []
    monkeypatch.setattr("actors.env_host.ServerProcess", lambda *args, **_: found.append(args))
    return found


def pretend_installed(folder, requirements=None):
    place = environments.folder(OWN)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    digest = requirements or environments.requirements_digest(OWN)
    environments.write_record(
        environments.Installed(OWN, digest, "3.11", ("tinysim==1.0",), "2026-01-02")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["eval", "tabletop-sft", "suite=counting"],
            f"not installed; run: vlarl suite install {OWN}",
        ),
        (["eval", "tabletop-sft", "suite=counting", "tasks=fly"], "unknown task"),
        (["eval", "tabletop-sft", "suite=counting", "env.mode=inprocess"], "use env.mode=spawn"),
        (["envserver", "counting"], f"run: vlarl suite install {OWN}"),
        (["envserver", "counting", "options={colour: red}"], "no option 'colour'"),
        (["collect", "counting", "out=x"], "has no scripted expert"),
    ],
)
def test_commands_refuse_what_cannot_run(isolated, started, capsys, monkeypatch, words, message):
    monkeypatch.chdir(isolated)
    assert cli.run(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not started


def test_training_refuses_what_cannot_run(isolated, started, capsys):
    words = ["rl", "configs/rl/debug.yaml", "env.suite=counting", "env.mode=spawn", "env.tasks=[]"]
    assert cli.run([*words, f"output={isolated}", "name=never"]) == 2
    assert f"run: vlarl suite install {OWN}" in capsys.readouterr().err
    assert not (isolated / "never").exists()
    assert not started


def test_other_pins_are_told_from_missing_ones(isolated):
    config = EnvConfig("counting")
    with pytest.raises(UserError, match="is not installed"):
        EnvHost(config)
    pretend_installed(isolated, "of other pins")
    with pytest.raises(UserError, match="installed on 2026-01-02 with other versions"):
        EnvHost(config)
    environments.folder(OWN).rename(isolated / "aside")
    pretend_installed(isolated)
    usable.check_usable("counting")


def test_a_checkpoint_of_another_control_convention_is_refused(isolated):
    pretend_installed(isolated)
    contract = load_contract("tabletop-sft")
    with pytest.raises(CheckpointError, match="does not fit suite 'counting'") as caught:
        check_suites(EnvConfig("counting"), contract)
    assert "action channels" in str(caught.value)
    both = EnvConfig(suites={"own": SuiteConfig("counting"), "table": SuiteConfig("tabletop")})
    with pytest.raises(CheckpointError, match="counting"):
        check_suites(both, contract)
    check_suites(dataclasses.replace(both, mode="connect"))
    with pytest.raises(ConfigError, match=r"env\.suites\.own\.suite = 'counting'"):
        check_suites(dataclasses.replace(both, mode="inprocess"))


def test_suites_are_described_where_they_are_not_installed(isolated, capsys):
    assert cli.run(["info", "suites", "counting", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["suites"]["counting"]
    assert found["environment"] == OWN
    assert found["tasks"] == ["count_red", "count_blue"]


def refuse_missing_scenes(suite):
    raise UserError(f"{suite.spec.suite}: the folder of scenes is missing; run: fetch-scenes")


def test_what_the_suite_itself_finds_missing_is_said_before_it_is_built(monkeypatch):
    monkeypatch.setattr("envservers.counting.no_scenes", refuse_missing_scenes, raising=False)
    entry = dataclasses.replace(registry.SUITES["counting"], check="no_scenes")
    monkeypatch.setitem(registry.SUITES, "counting", entry)
    with pytest.raises(UserError, match="run: fetch-scenes"):
        make_suite("counting", 1)


def test_without_opengl_the_packages_are_named(monkeypatch, isolated):
    pretend_installed(isolated)
    drawn = dataclasses.replace(registry.SUITES["counting"], graphics="opengl")
    monkeypatch.setitem(registry.SUITES, "counting", drawn)
    monkeypatch.setattr(opengl, "probe", lambda kind: Graphics(False, f"lib{kind} is missing"))
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(UserError, match=r"apt install libegl1 .*apt install libosmesa6"):
        EnvHost(EnvConfig("counting"))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(UserError, match="as MUJOCO_GL=osmesa asks") as caught:
        usable.check_usable("counting")
    assert "libegl1" not in str(caught.value)


@pytest.mark.parametrize(
    ("works", "named", "expected"),
    [
        (("egl", "osmesa"), "", "egl"),
        (("osmesa",), "", "osmesa"),
        (("egl", "osmesa"), "osmesa", "osmesa"),
        ((), "glfw", "glfw"),
    ],
)
def test_the_first_opengl_that_works_is_chosen(monkeypatch, works, named, expected):
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if named:
        monkeypatch.setenv("MUJOCO_GL", named)
    monkeypatch.setattr(opengl, "probe", lambda kind: Graphics(kind in works, "", device=3))
    assert opengl.choose() == expected
    assert opengl.os.environ["MUJOCO_GL"] == expected
    if works:
        assert opengl.os.environ["MUJOCO_EGL_DEVICE_ID"] == "3"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Graphics(False, "libvulkan.so.1 is missing"), "apt install libvulkan1"),
        (Graphics(True, "llvmpipe, Mesa 22.3.6", mesa=22), "bookworm-backports"),
        (Graphics(True, "llvmpipe, Mesa 25.0.7", mesa=25), ""),
        (Graphics(True, "NVIDIA H200", hardware=True), ""),
    ],
)
def test_old_software_vulkan_is_not_enough(monkeypatch, found, words):
    monkeypatch.setattr(vulkan, "probe", lambda kind: found)
    if not words:
        assert vulkan.usable() == found
        return
    with pytest.raises(UserError, match=words):
        vulkan.usable()


@pytest.mark.parametrize("kind", ["egl", "osmesa", "vulkan"])
def test_graphics_are_really_tried(kind):
    """Whatever this machine has: an answer with a renderer, or with what is missing."""
    found = graphics_probe.probe.__wrapped__(kind)
    assert found.text
    assert found.ok == ("missing" not in found.text and "no " not in found.text)


def test_a_crash_while_trying_is_an_answer(monkeypatch, tmp_path):
    crash = tmp_path / "crash.py"
    crash.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(graphics_probe, "__file__", str(crash))
    found = graphics_probe.probe.__wrapped__("egl")
    assert not found.ok
    assert "code -11" in found.text


def demonstrate(servers=2, episodes=6, **settings):
    clients = [InprocessClient(make(SLOTS)) for _ in range(servers)]
    quota = EpisodeQuota(("up", "down"), episodes, 3)
    # Scenes of this simulator are numbers to count from: small ones.
    quota.starts = lambda most, draw=quota.starts: [
        dataclasses.replace(start, seed=start.seed % 2) for start in draw(most)
    ]
    return quota, list(served_episodes(clients, quota, CollectConfig(**settings)))


def test_servers_demonstrate_each_task_its_share_and_the_same_again():
    quota, played = demonstrate()
    tasks = [episode.extra["scene_task"] for episode, _ in played]
    assert sorted(tasks) == ["down"] * 3 + ["up"] * 3
    assert quota.attempts == 6
    for episode, success in played:
        assert success == episode.extra["success"]
        sign = 1 if episode.extra["scene_task"] == "up" else -1
        np.testing.assert_array_equal(episode.action, np.full((len(episode), 2), 0.5 * sign))
        # One image before each action, of the state that it was chosen in.
        np.testing.assert_array_equal(episode.images["ego"][:, 0, 0, 0], episode.state[:, 0])
    again = demonstrate()[1]
    for (one, _), (other, _) in zip(played, again, strict=True):
        np.testing.assert_array_equal(one.state, other.state)
        assert one.extra == other.extra


def test_a_task_whose_expert_fails_is_named_before_long():
    quota = EpisodeQuota(("easy", "never"), 200, 0)

    def collect():
        while (start := quota.next()) is not None:
            if start.task == "never":
                quota.give_back("never")

    said = r"never: 40 episodes failed, 0 did not, 100 are missing: .* leave it out of tasks"
    with pytest.raises(UserError, match=said):
        collect()
    assert quota.attempts < 200


def test_a_task_whose_expert_often_fails_gets_its_share_all_the_same():
    quota = EpisodeQuota(("one", "other"), 100, 0)
    random, kept = np.random.default_rng(0), []
    while (start := quota.next()) is not None:
        if start.task == "one" and random.random() < 0.85:
            quota.give_back("one")
        else:
            kept.append(start.task)
    assert sorted(kept) == ["one"] * 50 + ["other"] * 50


def test_what_is_recorded_is_the_experts_action_not_the_noisy_one():
    _, quiet = demonstrate()
    _, noisy = demonstrate(action_noise=0.2)
    assert [e.state.tolist() for e, _ in noisy] != [e.state.tolist() for e, _ in quiet]
    for episode, _ in noisy:
        assert set(np.abs(episode.action).flatten().tolist()) == {0.5}
    steps = np.concatenate([np.diff(episode.state[:, 0]) for episode, _ in noisy])
    assert len(np.unique(steps.round(4))) > 3, "the noise reached the simulator"


def test_demonstrators_take_their_time_each_at_a_pace_of_its_own():
    _, quick = demonstrate()
    _, slow = demonstrate(slowest_pace=0.25)
    paces = [np.unique(np.abs(episode.action)) / 0.5 for episode, _ in slow]
    assert all(len(pace) == 1 and 0.25 <= pace[0] <= 1 for pace in paces)
    assert len({float(pace[0]) for pace in paces}) > 1
    assert sum(len(episode) for episode, _ in slow) > sum(len(episode) for episode, _ in quick)
    for episode, _ in slow:
        moved = np.abs(np.diff(episode.state[:, 0]))
        np.testing.assert_allclose(moved, np.abs(episode.action[:-1]).sum(axis=1), rtol=1e-5)


def test_the_noise_persists_and_spares_nothing_but_the_gripper():
    from actors.server_demonstrations import _persistent

    draw = _persistent(np.array([0.1, 0.0]), [1])
    noise = np.array([draw() for _ in range(20_000)])
    assert not noise[:, 1].any()
    one = noise[:, 0].astype(np.float64)
    assert abs(one.std() - 0.1) < 0.01
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1] - PERSISTENCE) < 0.02


def test_settings_of_other_experts_are_refused(isolated, monkeypatch, capsys):
    entry = dataclasses.replace(registry.SUITES["counting"], experts=True)
    monkeypatch.setitem(registry.SUITES, "counting", entry)
    assert is_served("counting")
    words = ["collect", "counting", f"out={isolated / 'data'}", "episodes=2"]
    assert cli.run([*words, "waypoint_noise=0.1"]) == 2
    assert "collect.waypoint_noise = 0.1: has no effect" in capsys.readouterr().err
    assert cli.run(words) == 2
    assert f"run: vlarl suite install {OWN}" in capsys.readouterr().err
    assert not (isolated / "data").exists()
