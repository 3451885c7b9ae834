"""A stand-in for CALVIN's simulation: the hand goes where it is sent, and moves what it is near.

Names, signatures, keys and shapes as in mees/calvin_env: `envs/play_table_env.py` at 141fc117,
`robot/robot.py` and `scene/play_table_scene.py` at 2312e993.
"""

from pathlib import Path

import numpy as np
import pybullet as p


class Camera:
    def __init__(self, name, size, env):
        self.name, self.width, self.height, self._env = name, size, size, env
        self.renders = 0

    def render(self):
        self.renders += 1
        shades = np.abs(np.concatenate([self._env.hand, self._env.scene]))
        levels = (shades * 255).astype(int) % 256
        rgb = np.resize(levels, (self.height, self.width, 3)).astype(np.uint8)
        return rgb, np.zeros((self.height, self.width), np.float32)


class PlayTableSimEnv:
    def __init__(self):
        self.cid = p.connect(p.DIRECT, options="--width=200 --height=200")
        # As `Robot.add_base_cylinder`, which names no client.
        p.createMultiBody(baseVisualShapeIndex=p.createVisualShape(shapeType=3))
        self.hand, self.scene, self.gripper = np.zeros(6), np.zeros(24), 1
        self.cameras = [Camera("static", 200, self), Camera("gripper", 84, self)]

    def reset(self, robot_obs=None, scene_obs=None):
        assert robot_obs.shape == (15,)
        assert scene_obs.shape == (24,)
        self.hand, self.gripper = robot_obs[:6].copy(), 1
        self.scene = scene_obs.copy()
        return self.get_obs()

    def get_camera_obs(self):
        assert self.cameras is not None
        drawn = {camera.name: camera.render() for camera in self.cameras}
        return (
            {f"rgb_{name}": rgb for name, (rgb, _) in drawn.items()},
            {f"depth_{name}": depth for name, (_, depth) in drawn.items()},
        )

    def get_state_obs(self):
        robot = np.concatenate([self.hand, [0.08], np.zeros(7), [self.gripper]])
        return {"robot_obs": robot, "scene_obs": self.scene.copy()}

    def get_obs(self):
        rgb, depth = self.get_camera_obs()
        return {"rgb_obs": rgb, "depth_obs": depth, **self.get_state_obs()}

    def get_info(self):
        doors = {"base__slide": {"current_state": self.scene[0]}}
        doors["base__drawer"] = {"current_state": self.scene[1]}
        lights = {"led": {"logical_state": int(self.scene[5])}}
        lights["lightbulb"] = {"logical_state": int(self.scene[4])}
        return {"robot_info": {"uid": 1}, "scene_info": {"doors": doors, "lights": lights}}

    def step(self, action):
        assert len(action) == 7
        assert action[6] in (-1, 1)
        # As `Robot.relative_to_absolute`, which scales what it was given in place.
        rel_pos, rel_orn, self.gripper = action[:3], action[3:6], int(action[6])
        rel_pos *= 0.02
        rel_orn *= 0.05
        self.hand += np.concatenate([rel_pos, rel_orn])
        # Up opens the drawer, down closes it; left and right move the slider.
        self.scene[1] = np.clip(self.scene[1] + rel_pos[2], 0, 0.24)
        self.scene[0] = np.clip(self.scene[0] + rel_pos[0], 0, 0.56)
        return self.get_obs(), 0, False, self.get_info()

    def close(self):
        self.cameras = None


def get_env(dataset_path, obs_space=None, show_gui=True, **kwargs):
    assert (Path(dataset_path) / ".hydra" / "merged_config.yaml").is_file()
    assert obs_space["rgb_obs"] == ["rgb_static", "rgb_gripper"]
    assert not show_gui
    return PlayTableSimEnv()
