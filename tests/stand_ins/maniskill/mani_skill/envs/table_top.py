"""A table-top task, one row on the processor or several on a GPU that there need not be.

As `envs/sapien_env.py`, `envs/scene.py` and `utils/structs/actor.py` have it: whatever is asked of
a row, all rows step, are drawn and are read together; a state is written through a mask, in the
order of the rows; what the task remembers (as RollBall's `reached_status`) is no part of the state.
"""

from functools import partial
from types import SimpleNamespace

import gymnasium
import torch

BASE = torch.tensor([-0.615, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
REST = torch.tensor([0.0, 0.0, 0.2])
GOAL = torch.tensor([0.15, 0.0, 0.05])
STATE = 12
"""Hand, fingers, ball, its velocity, goal, and how far the hand was turned."""
CAMERAS = ("base_camera", "hand_camera")


class TableTopEnv(gymnasium.Env):
    """A hand and a ball that rolls on by itself."""

    arm_reach = 0.5
    stepped = 0
    """Control steps of all instances, however many rows took them."""
    drawn = 0
    """Likewise observations with pictures."""

    def __init__(
        self, uid, num_envs, obs_mode, reward_mode, control_mode, sim_backend, render_backend,
        sensor_configs, robot_uids,
    ):  # fmt: skip
        assert control_mode == "pd_ee_delta_pose"
        assert robot_uids == "panda_wristcam"
        assert render_backend == "gpu"
        assert sim_backend in ("physx_cpu", "physx_cuda")
        if num_envs > 1 and sim_backend == "physx_cpu":
            raise RuntimeError("Cannot set the sim backend to 'cpu' and have multiple environments")
        self.num_envs, self.obs_mode, self.reward_mode = num_envs, obs_mode, reward_mode
        self.device = torch.device("cpu")
        self.size = sensor_configs.get("width", 128)
        # Not among the environment's own attributes, as PhysX's are not.
        self.px = SimpleNamespace(values=torch.zeros(num_envs, STATE))
        self.reached_status = torch.zeros(num_envs)
        self.goal_mark = SimpleNamespace(shown=False)
        self.goal_mark.show_visual = partial(setattr, self.goal_mark, "shown", True)
        self._hidden_objects = [self.goal_mark]
        self.agent = SimpleNamespace(robot=self)
        self.reset(seed=[2022 + row for row in range(num_envs)], options={"reconfigure": True})

    @property
    def values(self):
        """[rows, d] the physics."""
        return self.px.values

    @property
    def pose(self):
        """Of the arm's base: one for all rows."""
        return SimpleNamespace(raw_pose=BASE[None])

    @property
    def links_map(self):
        """Of the robot: its hand, never turned."""
        return {"panda_hand_tcp": SimpleNamespace(pose=self._upright(self.values[:, :3]))}

    @property
    def scene(self):
        """The things in it."""
        return SimpleNamespace(actors={"ball": SimpleNamespace(pose=self._upright(self._ball))})

    def get_links(self):
        """The first is the base."""
        return [SimpleNamespace(pose=SimpleNamespace(p=BASE[None, :3].repeat(self.num_envs, 1)))]

    @property
    def cube(self):
        """What it is called in PullCubeTool, whose `evaluate` takes the mean of all rows."""
        return SimpleNamespace(pose=SimpleNamespace(p=self._ball))

    def get_qpos(self):
        """Seven joints and two fingers."""
        return torch.cat([torch.zeros(self.num_envs, 7), self.values[:, 3:4].repeat(1, 2)], dim=1)

    def get_state(self):
        """[rows, d]."""
        return self.values.clone()

    def set_state(self, state, env_idx=None):
        """Of the rows that are named, in their order whatever that of the names."""
        mask = torch.zeros(self.num_envs, dtype=torch.bool)
        mask[env_idx] = True
        self.values[mask] = state

    def reset(self, seed=None, options=None):
        """All rows, from the first seed, as the GPU's generator does it."""
        assert not (options or {}).get("env_idx"), "a start would be another scene in other company"
        seed = seed[0] if isinstance(seed, list) else seed
        generator = torch.Generator().manual_seed(seed)
        spread = torch.rand(self.num_envs, 4, generator=generator) - 0.5
        self.values[:, :3], self.values[:, 3] = REST, 0.04
        self.values[:, 4:6], self.values[:, 6] = 0.2 * spread[:, :2], 0.04 * spread[:, 2]
        self.values[:, 7:10] = GOAL + 0.1 * spread[:, 3:]
        self.values[:, 10:] = 0.0
        self.reached_status[:] = 0.0
        return self.get_obs(), self.get_info()

    def step(self, action):
        """Displacements as shares of 0.1 m; the ball rolls on, whoever acts."""
        action = torch.as_tensor(action)
        assert action.shape == (self.num_envs, 7)
        assert action[:, :3].abs().max() <= 1
        TableTopEnv.stepped += 1
        self.values[:, :3] += 0.1 * action[:, :3]
        self.values[:, 3] = 0.02 + 0.02 * action[:, 6]
        self.values[:, 4] += self.values[:, 6]
        self.values[:, 6] *= 0.9
        self.values[:, 10] += action[:, 3:6].sum(dim=1)
        self.reached_status[self._near(self._ball)] = 1.0
        info = self.get_info()
        reward = 1 - (self.values[:, :3] - self.values[:, 7:10]).norm(dim=1)
        ended = torch.zeros(self.num_envs, dtype=torch.bool)
        return self.get_obs(info, unflattened=True), reward, info["success"].clone(), ended, info

    def get_info(self):
        """Truths of `evaluate`."""
        return {
            "success": self._near(self.values[:, 7:10]),
            "is_grasped": self.reached_status > 0,
            "obj_to_goal_dist": (self._ball - self.values[:, 7:10]).norm(dim=1),
            "matrix": torch.eye(self.num_envs + 1),
            "cube_distance": (self._ball - BASE[:3] - torch.tensor([0.05, 0, 0]))
            .norm(dim=1)
            .mean(),
        }

    def get_obs(self, info=None, unflattened=False):
        """Where ball and hand are as the shades of the picture, and whether the goal is marked."""
        if self.obs_mode == "none":
            return {}
        TableTopEnv.drawn += 1
        picture = torch.zeros(self.num_envs, self.size, self.size, 3, dtype=torch.uint8)
        shades = (4000 * (self.values[:, [4, 0, 10]] + 1)).to(torch.int64) % 256
        picture[:] = shades.to(torch.uint8)[:, None, None]
        if self.goal_mark.shown:
            picture[:, 0, 0] = 255
        return {"sensor_data": {camera: {"rgb": picture.clone()} for camera in CAMERAS}}

    @property
    def _ball(self):
        return torch.cat([self.values[:, 4:6], torch.full((self.num_envs, 1), 0.02)], dim=1)

    def _near(self, places):
        return (self.values[:, :3] - places).norm(dim=1) < 0.03

    def _upright(self, places):
        turn = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(self.num_envs, 1)
        return SimpleNamespace(raw_pose=torch.cat([places, turn], dim=1))


for _uid in ("PickCube-v1", "RollBall-v1"):
    gymnasium.register(_uid, partial(TableTopEnv, uid=_uid), disable_env_checker=True)
