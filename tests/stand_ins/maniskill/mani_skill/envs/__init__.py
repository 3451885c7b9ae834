"""The tasks, registered with Gymnasium by being imported, as in the package."""

from functools import partial
from types import SimpleNamespace

import gymnasium
import numpy as np
import torch

from mani_skill import ASSET_DIR
from mani_skill.envs import table_top  # noqa: F401, its import is what registers its tasks

CONTROL_MODE = "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"
CAMERA = "3rd_view_camera"
BASE = torch.tensor([[0.147, 0.028, 0.870, 0.0, 0.0, 0.0, 1.0]])
TRIALS = {
    "PutSpoonOnTableClothInScene-v1": 24,
    "PutCarrotOnPlateInScene-v1": 24,
    "StackGreenCubeOnYellowCubeBakedTexInScene-v1": 24,
    "PutEggplantInBasketScene-v1": 64,
}
TARGET = np.array([0.30, 0.0, 0.05])
"""Where the object belongs, in the arm's frame."""


class BaseBridgeEnv(gymnasium.Env):
    """One task; tensors have a leading axis of the one environment."""

    SUPPORTED_OBS_MODES = ("rgb+segmentation",)
    SUPPORTED_REWARD_MODES = ("none",)
    drawn = 0
    """Observations made by all instances."""

    def __init__(
        self,
        uid,
        num_envs=1,
        obs_mode=None,
        reward_mode=None,
        control_mode=None,
        render_mode=None,
        sensor_configs=None,
        sim_backend="auto",
        render_backend="gpu",
    ):
        if obs_mode not in self.SUPPORTED_OBS_MODES:
            raise NotImplementedError(f"Unsupported obs mode: {obs_mode}")
        if reward_mode not in self.SUPPORTED_REWARD_MODES:
            raise NotImplementedError(f"Unsupported reward mode: {reward_mode}")
        photograph = ASSET_DIR / "tasks/bridge_v2_real2sim_dataset/real_inpainting"
        if not photograph.exists() or not (ASSET_DIR / "robots/widowx").exists():
            raise FileNotFoundError(f"rgb_overlay_path {photograph} is not found.")
        assert (num_envs, control_mode, sim_backend) == (1, CONTROL_MODE, "physx_cpu")
        self.camera = {"width": 640, "height": 480, **sensor_configs[CAMERA]}
        self.trials = TRIALS[uid]
        self._hidden_objects = []
        self.agent = SimpleNamespace(robot=self)
        self.pose = SimpleNamespace(raw_pose=BASE)
        self.reset(seed=2022, options={"reconfigure": True})

    @property
    def links_map(self):
        """Of the robot: its hand, turned as the base is."""
        place = torch.tensor(self.hand * (-1, -1, 1), dtype=torch.float32)[None]
        pose = torch.cat([BASE[:, :3] + place, BASE[:, 3:]], dim=1)
        return {"ee_gripper_link": SimpleNamespace(pose=SimpleNamespace(raw_pose=pose))}

    def get_qpos(self):
        """Six joints and two fingers."""
        return torch.cat([torch.zeros(1, 6), torch.full((1, 2), self.finger)], dim=1)

    def reset(self, seed=None, options=None):
        """Episodes are numbered; without a number the seed draws one."""
        options = options or {}
        generator = torch.Generator().manual_seed(int(seed))
        number = options.get("episode_id", torch.randint(0, self.trials, (1,), generator=generator))
        if isinstance(number, int):
            number = torch.tensor([number])
        assert number.shape == (1,)
        number = int(number % self.trials)
        self.hand, self.finger = np.array([0.15, 0.0, 0.15]), 0.037
        self.object = np.array([0.20 + 0.002 * (number % 8), 0.01 * (number // 8) - 0.03, 0.05])
        self.grasped, self.elapsed = False, 0
        info = self.get_info()
        return self.get_obs(info), {**info, "reconfigure": False}

    def step(self, action):
        """Target-delta control: meters, radians, and the gripper between -1 and 1."""
        (action,) = action
        assert action.shape == (7,)
        assert action.dtype == np.float32
        self.hand = np.clip(self.hand + action[:3], [0.1, -0.2, 0.05], [0.4, 0.2, 0.3])
        self.finger = 0.015 + 0.022 * (float(np.clip(action[6], -1, 1)) + 1) / 2
        near = bool(np.linalg.norm(self.hand - self.object) < 0.03)
        self.grasped = self.finger < 0.02 and (near or self.grasped)
        if self.grasped:
            self.object = self.hand.copy()
        self.elapsed += 1
        info = self.get_info()
        observation = self.get_obs(info, unflattened=True)
        nothing = torch.zeros(1, dtype=torch.bool)
        return observation, torch.zeros(1), info["success"].clone(), nothing, info

    def get_info(self):
        """Counts and truths of `evaluate`."""
        there = bool(np.linalg.norm(self.object - TARGET) < 0.03) and not self.grasped
        return {
            "elapsed_steps": torch.tensor([self.elapsed], dtype=torch.int32),
            "is_src_obj_grasped": torch.tensor([self.grasped]),
            "consecutive_grasp": torch.tensor([self.grasped]),
            "src_on_target": torch.tensor([there]),
            "success": torch.tensor([there]),
        }

    def get_obs(self, info=None, unflattened=False):
        """Where the object is and how high the hand, as the shade of the picture."""
        BaseBridgeEnv.drawn += 1
        width, height = self.camera["width"], self.camera["height"]
        picture = torch.zeros(1, height, width, 3, dtype=torch.uint8)
        for color in (0, 1):
            picture[..., color] = int(4000 * (self.object[color] + 0.2)) % 256
        picture[..., 2] = int(800 * self.hand[2])
        labels = torch.zeros(1, height, width, 1, dtype=torch.int16)
        return {
            "agent": {"qpos": self.get_qpos(), "qvel": torch.zeros(1, 8)},
            "extra": {},
            "sensor_param": {CAMERA: {}},
            "sensor_data": {CAMERA: {"rgb": picture, "segmentation": labels}},
        }


for _uid in TRIALS:
    gymnasium.register(_uid, partial(BaseBridgeEnv, uid=_uid), disable_env_checker=True)
