"""A stand-in for SimplerEnv: a tool that goes where it is sent, an object, and a goal of its own.

Names, signatures, keys, shapes and dtypes as in simpler-env/SimplerEnv, `simpler_env/__init__.py`
at 17bbe7eb, and simpler-env/ManiSkill2_real2sim, `envs/sapien_env.py` and
`envs/custom_scenes/{base_env,put_on_in_scene,grasp_single_in_scene}.py` at 16a9ba9c and 049e14cb.
"""

from types import SimpleNamespace

import numpy as np

_CAMERAS = {"widowx": ("3rd_view_camera", 480), "google": ("overhead_camera", 512)}


class Pose:
    """As `sapien.core.Pose`, but that it never turns."""

    def __init__(self, p):
        self.p, self.q = np.asarray(p, np.float32), np.array([1, 0, 0, 0], np.float32)

    def inv(self):
        return Pose(-self.p)

    def __mul__(self, other):
        return Pose(self.p + other.p)


class Environment:
    def __init__(self, task_name):
        self.task, self._obs_mode, self.renders = task_name, "image", 0
        self.agent = SimpleNamespace(robot=SimpleNamespace(pose=Pose([0.147, 0.028, 0.87])))
        self._xy_configs = [np.array([[-0.2, i / 100], [0.1, 0.0]]) for i in range(12)]
        self._quat_configs = [np.tile([1.0, 0, 0, 0], (2, 1)), np.tile([0, 0, 0, 1.0], (2, 1))]
        self.closed = False

    @property
    def unwrapped(self):
        return self

    def reset(self, seed=None, options=None):
        options = dict(options or {})
        own = options.get("obj_init_options", {})
        random = np.random.RandomState(seed)
        self.object = np.asarray(own.get("init_xy", random.uniform(-0.3, 0.3, 2)), float)
        self.turn = 0.0
        if self.task.startswith("widowx"):
            many = len(self._xy_configs) * len(self._quat_configs)
            number = own.get("episode_id", random.randint(many)) % many
            self.object = np.array(self._xy_configs[number // len(self._quat_configs)][0])
            self.turn = self._quat_configs[number % len(self._quat_configs)][0][0]
        self._tool, self._elapsed_steps, self.opened = np.zeros(3), 0, False
        return self.get_obs(), {}

    @property
    def tcp(self):
        return SimpleNamespace(pose=Pose(self._tool))

    def step(self, action):
        assert action.shape == (7,)
        self._tool = self._tool + action[:3]
        self.gripper = action[6]
        self._elapsed_steps += 1
        self.opened |= bool(self._tool[2] > 0.2)
        success = bool(np.linalg.norm(self._tool[:2] - self.object) < 0.02)
        info = {"elapsed_steps": self._elapsed_steps, "success": success}
        return self.get_obs(), float(success), success, False, info

    def get_obs(self):
        if self._obs_mode == "none":
            return {}
        assert self._obs_mode == "image"
        self.renders += 1
        camera, height = _CAMERAS[self.task.split("_")[0]]
        levels = np.array([*self._tool, *self.object, self.turn, 1.0]) % 1.0
        color = np.resize(levels, (height, 640, 4)).astype(np.float32)
        return {"image": {camera: {"Color": color}}}

    def get_language_instruction(self):
        if "drawer" not in self.task:
            return f"do {self.task}"
        return "place apple into top drawer" if self.opened else "open top drawer"

    def close(self):
        self.closed = True


def make(task_name):
    return Environment(task_name)
