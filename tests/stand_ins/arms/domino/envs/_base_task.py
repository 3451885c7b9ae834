"""Of DOMINO's tasks: `H-EmbodVis/DOMINO`, as `script/eval_policy.py` (commit d5a3da05) uses them.

And as `envs/place_a2b_left.py` of the same commit defines them. What happens is made up: the object
goes along x, a tenth of its speed a step, out of bounds beyond 0.35; a closed left gripper touches
it; it is lifted by the left arm's second joint. Motion is known once the expert has played.
"""

from types import SimpleNamespace

import numpy as np
from recorded_arms import ArmsTask


class _Actor:
    def __init__(self):
        self.p = np.zeros(3)

    def get_pose(self):
        return SimpleNamespace(p=self.p.copy())


class Base_Task(ArmsTask):
    def setup_demo(self, is_test=False, **kwags):
        super().setup_demo(is_test=is_test, **kwags)
        assert kwags["use_dynamic"]
        self.level, self.eval_fail = kwags["dynamic_level"], False
        self._dynamic_object_stopped, self.moving = False, False
        self.object = _Actor()

    def play_once(self):
        self._saved_dynamic_motion_info = {"speed": 0.1 * self.level}
        return super().play_once()

    def init_dynamic_motion_for_eval(self):
        self.moving = True
        self.speed = self._saved_dynamic_motion_info["speed"]
        return self.seed % 13 != 5

    def get_dynamic_motion_config(self):
        return {
            "target_actor": self.object,
            "end_position": np.zeros(3),
            "check_z_threshold": 0.03,
            "check_z_actor": self.object,
        }

    def take_action(self, action, action_type="qpos"):
        if self.moving and not self._dynamic_object_stopped:
            self.object.p[0] += 0.1 * self.speed
        self.object.p[2] = max(0.0, action[1])
        super().take_action(action, action_type)
        self._metrics_tracker.on_step()

    def check_gripper_contact_dynamic_object(self):
        return self.robot.left[6] < 0.2

    def stop_dynamic_object_motion(self):
        self._dynamic_object_stopped = True

    def check_dynamic_object_boundary(self):
        return self.object.p[0] <= 0.35

    def release_episode_resources(self):
        assert self.scene is None, "close_env comes first"
