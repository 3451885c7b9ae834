"""ManiSkill's table-top tasks as a suite: one Panda arm, two cameras, seven-channel delta control.

The class is read where ManiSkill is not installed; its simulator is imported by `load`, or when a
slot is first reset. See docs/suites/maniskill.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from envservers.maniskill.robots import PANDA, Robot
from envservers.maniskill.tasks import TABLE_TOP, Task, chosen
from envservers.mesh_detail import cells_for
from envservers.options import check_choice, check_least
from envservers.slot_suite import SlotSuite
from vlarl.types import CameraSpec, EnvSpec, EpisodeStart

if TYPE_CHECKING:
    from envservers.maniskill.scene import Drawing
    from envservers.maniskill.simulator import ManiSkillSimulator

CAMERAS = {"ego": "base_camera", "cam_right_wrist": "hand_camera"}
"""Ours -> ManiSkill's."""
RENDERERS = {"tuned": "minimal", "default": "default"}
"""Ours -> ManiSkill's shaders."""
DEFAULT_TASKS = ("PickCube-v1", "PushCube-v1", "PullCube-v1", "StackCube-v1", "PlaceSphere-v1")
INFO = (
    "is_grasped", "is_obj_placed", "is_robot_static", "is_cubeA_grasped", "is_cubeA_on_cubeB",
    "is_cubeA_static", "is_obj_grasped", "is_obj_on_bin", "is_obj_static", "is_peg_grasped",
    "is_cube_placed", "is_peg_cube_fit", "cube_distance", "obj_to_goal_dist", "obj_to_goal_angle",
)  # fmt: skip
"""ManiSkill's figures of these tasks; a task has some of them."""
STATE_DIM = 8
_SPARE = 4
"""Scenes that a process keeps beyond one for each slot, for tasks that nobody plays now."""
_NO_DENSE = ("StackPyramid-v1", "PlugCharger-v1")
"""Tasks that ManiSkill rewards for success alone."""


class SceneSuite(SlotSuite):
    """Slots that play ManiSkill's tasks with one robot; what the two suites share.

    Args:
        num_envs: slots.
        spec: what they simulate.
        robot: in every task.
        tasks: that there are.
        drawing: makes what the cameras draw; called where ManiSkill is installed.
        info_names: what `info` holds.
        terminate_on_success: whether achieving the goal ends the episode.
        max_steps: control steps of an episode of any task; 0: each task's own.
        planned: whether ManiSkill's motion planners are the tasks' experts.
    """

    def __init__(
        self,
        num_envs: int,
        spec: EnvSpec,
        robot: Robot,
        tasks: Mapping[str, Task],
        drawing: Callable[[], Drawing],
        info_names: Sequence[str],
        terminate_on_success: bool,
        max_steps: int,
        planned: bool = False,
    ) -> None:
        limits = {} if max_steps else {name: tasks[name].max_steps for name in spec.tasks}
        super().__init__(num_envs, spec, self._simulator_of_one, terminate_on_success, limits)
        self._robot, self._tasks, self._drawing = robot, tasks, drawing
        self._info_names = info_names
        self._planned = planned
        self._scenes: Any = None
        self._planner: Any = None
        self._playing = 0

    def reward_mode(self, task: str) -> str:
        """ManiSkill's, for one of its tasks."""
        return "none"

    def reset_options(self, start: EpisodeStart) -> Mapping[str, Any]:
        """ManiSkill's `reset` options, beside the seed."""
        return {}

    def _simulator_of_one(self) -> ManiSkillSimulator:
        from envservers.maniskill.expert import Expert
        from envservers.maniskill.planner import Planner
        from envservers.maniskill.scene import Scene, Scenes
        from envservers.maniskill.simulator import ManiSkillSimulator

        if self._scenes is None:
            drawing = self._drawing()
            self._scenes = Scenes(
                _SPARE, lambda task: Scene(task, self._robot, drawing, self.reward_mode(task))
            )
        if self._planned and self._planner is None:
            self._planner = Planner(self._robot.uid)
        self._playing += 1
        return ManiSkillSimulator(
            self._scenes,
            self._tasks,
            self.spec.cameras[0].width,
            self._info_names,
            self.reset_options,
            self._one_less,
            Expert(self._planner, self._robot) if self._planned else None,
        )

    def load(self) -> None:
        """Make the first task's scene now, so that what is missing shows before anybody waits."""
        super().load()
        self._scenes.give(self._scenes.take(self.spec.tasks[0]))

    def _one_less(self) -> None:
        self._playing -= 1
        if not self._playing and self._scenes is not None:
            self._scenes.close()
            self._scenes = None
            if self._planner is not None:
                self._planner.close()
                self._planner = None


class ManiSkillSuite(SceneSuite):
    """`num_envs` environments of ManiSkill; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: slots.
        image_size: width and height of every picture, in pixels.
        tasks: names of ManiSkill's, with or without `-v1`; None: the five that the expert
            does within their limits.
        max_steps: control steps of an episode; 0: each task's own in ManiSkill.
        cameras: of `ego` (ManiSkill's `base_camera`) and `cam_right_wrist` (`hand_camera`).
        renderer: `tuned` (ManiSkill's `minimal` shaders, coarser meshes) or `default`.
        show_goal: whether goals are drawn that ManiSkill hides from its cameras.
        terminate_on_success: whether achieving the goal ends the episode, and the chunk.

    Raises:
        ValueError: for an unknown task, camera or renderer, or a number out of range.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        cameras: Sequence[str] = tuple(CAMERAS),
        renderer: str = "tuned",
        show_goal: bool = True,
        terminate_on_success: bool = True,
    ) -> None:
        check_pictures(image_size, max_steps, renderer)
        if not cameras or set(cameras) - set(CAMERAS) or len(set(cameras)) != len(cameras):
            raise ValueError(f"cameras = {list(cameras)}: choose of {', '.join(CAMERAS)}")
        names = chosen("maniskill", TABLE_TOP, tasks, DEFAULT_TASKS)
        spec = spec_of("maniskill", names, TABLE_TOP, PANDA, cameras, image_size, max_steps)
        self._cameras = {view: CAMERAS[view] for view in cameras}
        cells = cells_for(image_size) if renderer == "tuned" else 0
        self._picture = image_size, RENDERERS[renderer], show_goal, cells
        super().__init__(
            num_envs,
            spec,
            PANDA,
            TABLE_TOP,
            self._to_draw,
            INFO,
            terminate_on_success,
            max_steps,
            planned=True,
        )

    def reward_mode(self, task: str) -> str:
        """Dense, between 0 and 1, where ManiSkill has it."""
        return "sparse" if task in _NO_DENSE else "normalized_dense"

    def _to_draw(self) -> Drawing:
        from envservers.maniskill.scene import Drawing

        size, shaders, show_goal, cells = self._picture
        sensors = {"width": size, "height": size, "shader_pack": shaders}
        return Drawing(self._cameras, sensors, show_goal=show_goal, cells=cells)


def check_pictures(image_size: int, max_steps: int, renderer: str) -> None:
    """Raise ValueError for an option of these that is out of range."""
    check_least(1, image_size=image_size)
    check_least(0, max_steps=max_steps)
    check_choice("renderer", renderer, RENDERERS)


def spec_of(
    suite: str,
    names: tuple[str, ...],
    tasks: Mapping[str, Task],
    robot: Robot,
    cameras: Sequence[str],
    image_size: int,
    max_steps: int,
) -> EnvSpec:
    """What a suite of these tasks simulates."""
    return EnvSpec(
        suite=suite,
        tasks=names,
        cameras=tuple(CameraSpec(view, image_size, image_size) for view in cameras),
        channels=robot.channels,
        embodiment=robot.embodiment,
        control_hz=robot.control_hz,
        max_steps=max_steps or max(tasks[name].max_steps for name in names),
        state_dim=STATE_DIM,
    )
