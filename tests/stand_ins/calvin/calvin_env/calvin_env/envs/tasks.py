"""A stand-in for CALVIN's oracle: two of its tests, on the infos of the stand-in beside it.

Signatures as in mees/calvin_env, `envs/tasks.py` at 141fc117.
"""

from functools import partial


class Tasks:
    def __init__(self, tasks):
        self.tasks = {
            name: partial(getattr(self, args[0]), *args[1:]) for name, args in dict(tasks).items()
        }

    def get_task_info_for_set(self, start_info, end_info, task_filter):
        return {
            name
            for name, function in self.tasks.items()
            if name in task_filter and function(start_info=start_info, end_info=end_info)
        }

    @staticmethod
    def move_door_rel(joint_name, threshold, start_info, end_info):
        ends = [
            i["scene_info"]["doors"][joint_name]["current_state"] for i in (start_info, end_info)
        ]
        moved = ends[1] - ends[0]
        return 0 < threshold < moved or 0 > threshold > moved

    @staticmethod
    def never(start_info, end_info):
        return False
