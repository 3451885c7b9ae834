"""Of `robocasa_gr1/utils/gym_utils/gymnasium_groot.py` and `gymnasium_basic.py`.

Environments `gr1_unified/<task>_GR1ArmsAndWaistFourierHands_Env`: dictionaries of joint positions
go in and come out. What joints do is made up: they go half of the way, and the task is done when
the left shoulder's pitch is beyond 2.
"""

# ruff: noqa: NPY002 - the simulator draws from the global generator.

import gymnasium
import numpy as np
from robosuite.utils.binding_utils import MjSim

PARTS = {"left_arm": 7, "right_arm": 7, "left_hand": 6, "right_hand": 6, "waist": 3}
TASKS = ("PnPCupToDrawerClose", "PnPPotatoToMicrowaveClose", "PnPCanToDrawerClose")


class _Robosuite:
    """What `RoboCasaEnv.env` is: each reset builds the scene anew, drawn from `rng`."""

    render_gpu_device_id = -1

    def __init__(self):
        self.rng = np.random.default_rng()
        self.sim = None

    def reset(self):
        self.sim = MjSim(float(self.rng.uniform()))
        self.object = str(self.rng.choice(["cup", "mug", "glass"]))
        noise = np.random.normal(0, 0.01)
        self.sim.qpos = {part: np.full(size, noise) for part, size in PARTS.items()}

    def get_ep_meta(self):
        return {"lang": f"pick the {self.object} from the counter and place it in the drawer"}


class GrootRoboCasaEnv(gymnasium.Env):
    """`enable_render=False`: pictures in observations are black."""

    def __init__(self, env_name=None, robots_name=None, enable_render=True):
        assert robots_name == "GR1ArmsAndWaistFourierHands"
        self.env_name, self.enable_render = env_name, enable_render
        self.env = _Robosuite()

    @staticmethod
    def process_img(img):
        """Padded to a square, 256 pixels a side."""
        padded = np.pad(img, (((img.shape[1] - img.shape[0]) // 2,) * 2, (0, 0), (0, 0)))
        return _nearest(padded, 256, 256)

    @staticmethod
    def process_img_cotrain(img):
        """Cropped and padded, 256 pixels a side."""
        assert img.shape[:2] == (800, 1280)
        cut = _nearest(img[310:770, 110:1130], 480, 720)
        return _nearest(np.pad(cut, ((120, 120), (0, 0), (0, 0))), 256, 256)

    def reset(self, seed=None, options=None):
        np.random.seed(seed)
        self.env.reset()
        return self._observation(), {"success": False, "grasp_distractor_obj": False}

    def step(self, action):
        for part, size in PARTS.items():
            told = action.pop(f"action.{part}")
            assert told.shape == (size,)
            self.env.sim.qpos[part] = (self.env.sim.qpos[part] + told) / 2
        assert not action, f"Unprocessed actions: {action}"
        reward = float(self.env.sim.qpos["left_arm"][0] > 2)
        info = {"success": reward > 0, "grasp_distractor_obj": False}
        return self._observation(), reward, False, False, info

    def _observation(self):
        seen = {f"state.{part}": q.astype(np.float32) for part, q in self.env.sim.qpos.items()}
        seen["video.ego_view_bg_crop_pad_res256_freq20"] = np.zeros((256, 256, 3), np.uint8)
        words = f"unlocked_waist: {self.env.get_ep_meta()['lang']}"
        seen["annotation.human.coarse_action"] = words
        return seen


def _nearest(image, height, width):
    rows = np.arange(height) * image.shape[0] // height
    return image[rows][:, np.arange(width) * image.shape[1] // width]


for _task in TASKS:
    gymnasium.register(
        f"gr1_unified/{_task}_GR1ArmsAndWaistFourierHands_Env",
        f"{__name__}:GrootRoboCasaEnv",
        kwargs={"env_name": _task, "robots_name": "GR1ArmsAndWaistFourierHands"},
    )
