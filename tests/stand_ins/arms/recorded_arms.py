"""What RoboTwin's tasks and DOMINO's have in common: `Base_Task`.

As `robotwin/envs/_base_task.py` of `rlinf-robotwin-runtime` 0.1.3 (PyPI) shows it. What happens is
made up: arms are at once where they are sent, and the task is done when both first joints are
beyond 1. Scenes of some seeds are not stable, the expert fails on others.
"""

# ruff: noqa: NPY002 - the simulator draws from the global generator.

import numpy as np


class UnStableError(Exception):
    pass


class Robot:
    """Six joints and a gripper (0 to 1) of each arm."""

    def __init__(self):
        self.left, self.right = [0.0] * 6 + [1.0], [0.0] * 6 + [1.0]

    def get_left_arm_jointState(self):
        return list(self.left)

    def get_right_arm_jointState(self):
        return list(self.right)


class ArmsTask:
    """`Base_Task`."""

    def setup_demo(self, is_test=False, **kwags):
        np.random.seed(kwags["seed"])
        assert kwags["dual_arm_embodied"]
        assert kwags["left_embodiment_config"]["arm_joints_name"]
        self.seed, self.eval_mode = kwags["seed"], kwags["eval_mode"]
        self.lamps = kwags["domain_randomization"]["random_light"]
        self.task_name, self.step_lim = kwags["task_name"], 400
        self.plan_success, self.eval_success = True, False
        self.take_action_cnt, self.drawn = 0, 0
        self.robot, self.scene = Robot(), object()
        self.place = np.random.uniform()
        if self.seed % 7 == 3:
            raise UnStableError(f"Objects is unstable in seed({self.seed})")

    def play_once(self):
        self.plan_success = self.seed % 11 != 4
        self.robot.left[0] = self.robot.right[0] = 1.5
        return {"info": self.get_info()}

    def get_info(self):
        return {"{A}": f"041_shoe/base{self.seed % 10}", "{a}": "left"}

    def check_success(self):
        return self.robot.left[0] > 1 and self.robot.right[0] > 1

    def set_instruction(self, instruction=None):
        self.instruction = instruction

    def take_action(self, action, action_type="qpos"):
        if self.take_action_cnt == self.step_lim or self.eval_success:
            return
        self.take_action_cnt += 1
        print(f"step: {self.take_action_cnt} / {self.step_lim}", end="\r")
        assert action.shape == (14,)
        self.robot.left, self.robot.right = action[:7].tolist(), action[7:].tolist()
        if self.check_success():
            self.eval_success = True
            self.get_obs()

    def get_obs(self):
        self.drawn += 1
        state = np.array(self.robot.left + self.robot.right)
        light = np.random.rand() if self.lamps else 1.0
        views = {}
        for number, name in enumerate(("head_camera", "left_camera", "right_camera")):
            rgb = np.zeros((240, 320, 3), np.uint8)
            rgb[..., 0] = int(255 * self.place * light)
            rgb[..., 1] = int(1000 * abs(state[7 * number - 7 : 7 * number or None].sum())) % 256
            rgb[..., 2] = 40 * number
            views[name] = {"rgb": rgb}
        return {"observation": views, "joint_action": {"vector": state}}

    def close_env(self, clear_cache=False):
        # Before a scene was set up, too.
        self.robot = self.scene = None
