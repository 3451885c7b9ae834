"""Config of several suites in one run: how it is read, and every rule."""

from __future__ import annotations

import pytest
import yaml

from actors import suite_checks
from vlarl.config.load import dump_config, load_config
from vlarl.config.process_schema import SUITE_FIELDS, EnvConfig, SuiteConfig
from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError

KEY = "env.suites"
TWO = f"{KEY}={{a: {{suite: counting, servers: 1}}, b: {{suite: navigation, image_size: 32}}}}"
HARD = "env.allocation.kind=failure"
SMALL = ["ppo.minibatch=16", "ppo.micro_batch=16"]
MOVING = [TWO, HARD, "env.allocation.suites=true"]


def test_suites_are_read_overridden_and_written(tmp_path):
    file = tmp_path / "run.yaml"
    suites = {"a": {"suite": "counting", "options": {"episode_length": 5}}, "b": {"servers": 3}}
    file.write_text(yaml.safe_dump({"env": {"suites": suites, "restarts": 7}}))
    words = [f"{KEY}.a.servers=1", f"{KEY}.a.options.raise_at=9", f"{KEY}.c.tasks=[x]"]
    config = load_config(file, words)
    options = {"episode_length": 5, "raise_at": 9}
    assert config.env.suites == {
        "a": SuiteConfig("counting", servers=1, options=options),
        "b": SuiteConfig(servers=3),
        "c": SuiteConfig(tasks=("x",)),
    }
    assert config.env.environments == (1 + 3 + 2) * 16
    alone = config.env.groups["a"]
    assert alone == EnvConfig("counting", servers=1, options=options, restarts=7)
    dump_config(config, tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml") == config


def test_without_suites_there_is_one_group_without_a_name():
    env = load_config(None).env
    assert env.groups == {"": env}


def test_what_a_suite_says_is_what_env_says_with_the_same_defaults():
    env, suite = EnvConfig(), SuiteConfig()
    for name in SUITE_FIELDS:
        assert getattr(env, name) == getattr(suite, name), name


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([f"{KEY}={{a: {{suit: counting}}}}"], "Key 'suit' not in 'SuiteConfig'. Did you mean"),
        ([f"{KEY}.a.servers=many"], "mapping such as `{NAME: {suite: tabletop, servers: 2}}`"),
        ([f"{KEY}=[a]"], f"{KEY} = ['a']: "),
        ([f"{KEY}.a.servers=0"], f"{KEY}.a.servers = 0: must be at least 1"),
        ([f"{KEY}.a.envs_per_server=0"], f"{KEY}.a.envs_per_server = 0: must be at least 1"),
        ([f"{KEY}.a.image_size=0"], f"{KEY}.a.image_size = 0: must be at least 1"),
        ([f"{KEY}.a.max_steps=-1"], f"{KEY}.a.max_steps = -1: must be at least 0"),
        ([f"{KEY}.a.suite=''"], f"{KEY}.a.suite = '': names no suite"),
        ([f"{KEY}.a.tasks=[x, x]"], f"{KEY}.a.tasks = ('x', 'x'): names a task twice"),
        ([f"{KEY}.a.embodiment=widowx"], f"{KEY}.a.embodiment = 'widowx': names no robot"),
        ([f"{KEY}.a.addresses=['tcp://h:1']"], "has no effect with env.mode=spawn"),
        ([TWO, "env.mode=connect"], f"{KEY}.a.addresses = (): is empty with mode=connect"),
        ([f"{KEY}={{a/b: {{}}}}"], "'a/b' is no name for a suite"),
        ([f"{KEY}={{a.b: {{}}}}"], "'a.b' is no name for a suite"),
        ([TWO, "env.servers=4"], "env.servers = 4: has no effect with env.suites"),
        ([TWO, "env.tasks=[x]"], "env.tasks = ('x',): has no effect with env.suites"),
        ([TWO, "env.image_size=32"], "env.image_size = 32: has no effect with env.suites"),
        ([TWO, "stage=sft"], "has no effect with stage=sft"),
        ([TWO, "env.allocation.suites=true"], "has no effect with env.allocation.kind=uniform"),
        ([HARD, "env.allocation.suites=true"], "has no effect with a single suite"),
        ([*MOVING, f"{KEY}.a.envs_per_server=8"], "as many environments each"),
        (
            [TWO, f"{KEY}.a.envs_per_server=8", "rollout.batch_environments=9"],
            "have 8 and 16. Use 24 or more",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(words, problem):
    with pytest.raises(ConfigError) as caught:
        load_config(None, words)
    assert str(caught.value).startswith("command line: ")
    assert problem in str(caught.value)


def test_servers_that_others_started_do_not_move():
    words = [*MOVING, "env.mode=connect"]
    words += [
        f"{KEY}.{name}.addresses=['tcp://127.0.0.1:{port}']" for name, port in (("a", 1), ("b", 2))
    ]
    with pytest.raises(ConfigError, match=r"env\.allocation\.suites.*can start and end"):
        load_config(None, words)


def test_suites_with_a_single_task_each_are_allocated_servers():
    words = [*MOVING, f"{KEY}.a.tasks=[x]", f"{KEY}.b.tasks=[y]", "rollout.mode=async"]
    assert load_config(None, words).env.allocation.suites


def test_defaults_name_no_suites():
    assert RunConfig().env.suites == {}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([HARD, "env.tasks=[spoon_on_towel]"], "a single task in env.tasks"),
        (
            [TWO, HARD, f"{KEY}.a.tasks=[count_red]", f"{KEY}.b.tasks=[search_object]"],
            f"a single task in {KEY}.a.tasks and {KEY}.b.tasks",
        ),
        (
            [TWO, HARD, f"{KEY}.a.envs_per_server=1"],
            f"for each of 2 tasks, and there are 1. Use {KEY}.a.envs_per_server=2 or more",
        ),
        (
            [HARD, "env.suite=metaworld", "env.tasks=[MT10]", "env.servers=2",
             "env.envs_per_server=4", *SMALL],
            "for each of 10 tasks, and there are 8. Use env.envs_per_server=5 or more",
        ),
        (
            [*MOVING, f"{KEY}.a.envs_per_server=2", f"{KEY}.b.envs_per_server=2",
             f"{KEY}.a.servers=2", f"{KEY}.b.servers=2", "rollout.workers=2", *SMALL],
            f"Use {KEY}.b.servers=4 or more",
        ),
    ],
)  # fmt: skip
def test_an_allocation_needs_tasks_and_an_environment_for_each(words, problem, monkeypatch):
    """Of the tasks that names of groups stand for; before anything is started."""
    monkeypatch.setattr(suite_checks, "check_usable", lambda suite: None)
    config = load_config(None, ["stage=rl", *words])
    with pytest.raises(ConfigError) as caught:
        suite_checks.check_run(config)
    assert problem in str(caught.value)


def test_a_group_of_tasks_can_be_allocated_among(monkeypatch):
    monkeypatch.setattr(suite_checks, "check_usable", lambda suite: None)
    words = ["stage=rl", HARD, "env.suite=metaworld", "env.tasks=[MT10]"]
    suite_checks.check_run(load_config(None, words))
