"""`gym:ID`: any Gymnasium environment with images, through the same contract as our own suites."""

from typing import ClassVar

import gymnasium
import numpy as np
import pytest

from actors.controller import train
from envservers.inprocess import InprocessClient
from envservers.registry import make_suite
from vlarl.config.load import load_config
from vlarl.errors import UserError
from vlarl.types import EpisodeStart


class Painter(gymnasium.Env):
    """Observes an image pair and a number; succeeds when the sum of actions passes the seed."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.renders = 0
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        box = gymnasium.spaces.Box(0, 255, (8, 12, 3), np.uint8)
        number = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.observation_space = gymnasium.spaces.Dict(left=box, right=box, total=number)

    def _observation(self):
        image = np.full((8, 12, 3), max(0, round(self.total)), np.uint8)
        return {"left": image, "right": image + 1, "total": np.array([self.total])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total, self.goal = 0.0, float(seed)
        return self._observation(), {}

    def step(self, action):
        self.total += float(action.sum())
        success = self.total >= self.goal
        return self._observation(), 1.0, success, False, {"is_success": success}

    def render(self):
        self.renders += 1
        return np.full((8, 12, 3), 7, np.uint8)


class Blank(Painter):
    """As Painter, but the observation is the number alone, so that the image must be rendered."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.observation_space = self.observation_space["total"]

    def _observation(self):
        return np.array([self.total])


class Blind(Blank):
    """Neither observes nor renders an image."""

    metadata: ClassVar = {"render_modes": []}


@pytest.fixture(autouse=True)
def registered():
    names = {"Painter": Painter, "Blank": Blank, "Blind": Blind}
    for name, entry in names.items():
        gymnasium.register(f"vlarl-test/{name}-v0", entry, max_episode_steps=6)
    yield
    for name in names:
        del gymnasium.registry[f"vlarl-test/{name}-v0"]


def starts(*seeds):
    return [EpisodeStart("vlarl-test/Painter-v0", seed) for seed in seeds]


def test_an_episode_ends_by_success_or_by_the_registered_limit():
    client = InprocessClient(make_suite("gym:vlarl-test/Painter-v0", 2))
    assert [c.name for c in client.spec.cameras] == ["ego", "cam_left_wrist"]
    assert client.spec.max_steps == 6
    assert client.spec.state_dim == 1
    client.reset(np.arange(2), starts(3, 100))
    ones = np.ones((2, 4, 2), np.float32)
    after = client.step(np.arange(2), ones, record=True)
    assert after.executed.tolist() == [2, 4]
    assert after.success.tolist() == [True, False]
    assert after.terminated.tolist() == [True, False]
    assert after.reward.tolist() == [2.0, 4.0]
    assert after.images["cam_left_wrist"][:, 0, 0, 0].tolist() == [5, 9]
    assert [len(film) for film in after.frames] == [2, 4]
    last = client.step(np.array([1]), ones[:1])
    assert last.executed.tolist() == [2]
    assert last.truncated.tolist() == [True]
    with pytest.raises(RuntimeError, match="reset it first"):
        client.step(np.array([0]), ones[:1])


def test_rendering_happens_once_a_chunk():
    suite = make_suite("gym:vlarl-test/Blank-v0", 1)
    env = suite._envs[0].unwrapped
    suite.reset(np.array([0]), [EpisodeStart("vlarl-test/Blank-v0", 100)])
    before = env.renders
    answer = suite.step(np.array([0]), np.zeros((1, 5, 2), np.float32))
    assert env.renders == before + 1
    assert answer.images["ego"].shape == (1, 8, 12, 3)


def test_images_are_reduced_by_block_means():
    suite = make_suite("gym:vlarl-test/Painter-v0", 1, image_size=4)
    answer = suite.reset(np.array([0]), starts(9))
    assert answer.images["ego"].shape == (1, 4, 4, 3)
    assert np.unique(answer.images["cam_left_wrist"]).tolist() == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:vlarl-test/Blind-v0", "neither observes nor renders"),
        ("gym:vlarl-test/Paintre-v0", "cannot make"),
        ("gym:no_such_module_here:X-v0", "no_such_module_here"),
    ],
)
def test_what_cannot_join_is_named(name, message):
    with pytest.raises(UserError, match=message):
        make_suite(name, 1)


def trained(folder, suite, *overrides):
    """Two iterations of RL as `configs/rl/debug.yaml` has them, on another suite."""
    config = load_config(
        "configs/rl/debug.yaml", [f"output={folder}", f"env.suite={suite}", *overrides]
    )
    return train(config)


def test_views_are_chosen_by_name():
    options = {"views": {"right": "ego"}}
    suite = make_suite("gym:vlarl-test/Painter-v0", 1, **options)
    assert [camera.name for camera in suite.spec.cameras] == ["ego"]
    answer = suite.reset(np.array([0]), starts(9))
    assert np.unique(answer.images["ego"]).tolist() == [1]
    for views, message in (
        ({"middle": "ego"}, "its images are left, right"),
        ({"left": "front"}, "views are ego, cam_left_wrist, cam_right_wrist"),
        ({"left": "ego", "right": "ego"}, "one view, several images"),
    ):
        with pytest.raises(UserError, match=message):
            make_suite("gym:vlarl-test/Painter-v0", 1, views=views)


def test_rl_runs_on_an_environment_that_says_nothing_of_itself(tmp_path):
    result = trained(tmp_path, "gym:vlarl-test/Painter-v0", "env.max_steps=6")
    assert result["steps"] == 2
    assert (tmp_path / "debug" / "report.html").is_file()


def test_rl_runs_from_the_shipped_checkpoint_on_our_own_task_as_a_gymnasium_environment(tmp_path):
    result = trained(
        tmp_path,
        "gym:envservers.tabletop.gym_env:vlarl/Tabletop-spoon_on_towel-v0",
        "model.preset=tiny",
        "model.checkpoint=tabletop-sft",
        "env.max_steps=8",
    )
    assert result["steps"] == 2


class Unbounded(Painter):
    """Takes any number as an action."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def test_what_a_new_model_cannot_take_is_refused_with_a_remedy(tmp_path):
    gymnasium.register("vlarl-test/Unbounded-v0", Unbounded, max_episode_steps=6)
    try:
        with pytest.raises(UserError, match="RescaleAction"):
            trained(tmp_path, "gym:vlarl-test/Unbounded-v0")
        with pytest.raises(UserError, match=r"multiple of 32\. Try env\.image_size=64"):
            trained(tmp_path, "gym:vlarl-test/Painter-v0", "env.image_size=50")
        with pytest.raises(UserError, match="'other'"):
            trained(tmp_path, "gym:vlarl-test/Painter-v0", "env.tasks=[other]")
    finally:
        del gymnasium.registry["vlarl-test/Unbounded-v0"]
    assert not list(tmp_path.iterdir())
