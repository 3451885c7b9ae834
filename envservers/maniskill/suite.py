"""ManiSkill's table-top tasks as a suite: one Panda arm, two cameras, seven-channel delta control.

The class is read where ManiSkill is not installed; its simulator is imported by `load`, or when a
slot is first reset. See docs/suites/maniskill.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envservers.maniskill import cuda
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
PHYSICS = ("cpu", "gpu")
_BUILT_ANEW = ("PegInsertionSide-v1",)
"""Tasks whose things have another size in each episode, which rows that are built once cannot."""


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
        physics: `cpu`, or `gpu`: all slots of a task step together on a GPU.
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
        physics: str = "cpu",
    ) -> None:
        limits = {} if max_steps else {name: tasks[name].max_steps for name in spec.tasks}
        super().__init__(num_envs, spec, self._simulator_of_one, terminate_on_success, limits)
        self._robot, self._tasks, self._drawing = robot, tasks, drawing
        self._info_names = info_names
        self._planned, self._on_gpu = planned, physics == "gpu"
        self._places: Any = None
        self._planner: Any = None
        self._playing = 0

    def reward_mode(self, task: str) -> str:
        """ManiSkill's, for one of its tasks."""
        return "none"

    def reset_options(self, start: EpisodeStart) -> Mapping[str, Any]:
        """ManiSkill's `reset` options, beside the seed."""
        return {}

    def load(self) -> None:
        """Make the first task's scene now, so that what is missing shows before anybody waits.

        Raises:
            UserError: if the GPU is to do the physics and there is none.
        """
        if self._on_gpu:
            cuda.enable(self.spec.suite)
        super().load()
        self._places.give(self._places.take(self.spec.tasks[0]))

    def _simulator_of_one(self) -> ManiSkillSimulator:
        from envservers.maniskill.expert import Expert
        from envservers.maniskill.planner import Planner
        from envservers.maniskill.simulator import ManiSkillSimulator

        if self._places is None:
            self._places = self._all_places()
        if self._planned and self._planner is None:
            self._planner = Planner(self._robot.uid)
        self._playing += 1
        return ManiSkillSimulator(
            self._places,
            self._tasks,
            self.spec.cameras[0].width,
            self._info_names,
            self.reset_options,
            self._one_less,
            Expert(self._planner, self._robot) if self._planned else None,
        )

    def _all_places(self) -> Any:
        from envservers.maniskill.batch import Batch, Batches
        from envservers.maniskill.scene import Drawing, Scene, Scenes

        drawing = self._drawing()

        def scene(task: str, rows: int = 0) -> Scene:
            return Scene(task, self._robot, drawing, self.reward_mode(task), rows)

        def batch(task: str) -> Batch:
            dealer = Scene(task, self._robot, Drawing({}, {}, "none"), "none")
            return Batch(scene(task, self.num_envs), dealer)

        return Batches(batch) if self._on_gpu else Scenes(_SPARE, scene)

    def _play(self, chunks: Mapping[int, NDArray[np.float32]]) -> Iterator[tuple[int, float]]:
        """As `SlotSuite`'s; on a GPU a control step is taken by all slots of a task together."""
        if not self._on_gpu:
            yield from super()._play(chunks)
            return
        from envservers.maniskill.batch import step_rows

        players: dict[int, Any] = {slot: self._simulator(slot) for slot in chunks}
        for actions in zip(*chunks.values(), strict=True):
            now = {
                slot: action
                for slot, action in zip(chunks, actions, strict=True)
                if not self._episode(slot).ended
            }
            results = step_rows({players[slot].place: action for slot, action in now.items()})
            for slot, action in now.items():
                outcome = players[slot].after(action, results[players[slot].place])
                yield slot, self._booked(slot, outcome)

    def _one_less(self) -> None:
        self._playing -= 1
        if not self._playing and self._places is not None:
            self._places.close()
            self._places = None
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
        physics: `cpu`, a scene of its own for each slot, or `gpu`, where all slots of a task step
            together on an NVIDIA GPU.

    Raises:
        ValueError: for an unknown task, camera, renderer or physics, a number out of range, or a
            task that the GPU's physics cannot play.
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
        physics: str = "cpu",
    ) -> None:
        check_pictures(image_size, max_steps, renderer)
        check_choice("physics", physics, PHYSICS)
        if not cameras or set(cameras) - set(CAMERAS) or len(set(cameras)) != len(cameras):
            raise ValueError(f"cameras = {list(cameras)}: choose of {', '.join(CAMERAS)}")
        names = chosen("maniskill", TABLE_TOP, tasks, DEFAULT_TASKS)
        if physics == "gpu" and set(names) & set(_BUILT_ANEW):
            raise ValueError(
                f"physics = gpu: {', '.join(_BUILT_ANEW)} builds other things in each episode, "
                "which ManiSkill does on the processor alone: leave it out, or take physics = cpu"
            )
        spec = spec_of("maniskill", names, TABLE_TOP, PANDA, cameras, image_size, max_steps)
        self._cameras = {view: CAMERAS[view] for view in cameras}
        # A GPU draws the meshes as they are, of all rows at once.
        cells = cells_for(image_size) if renderer == "tuned" and physics == "cpu" else 0
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
            physics=physics,
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
