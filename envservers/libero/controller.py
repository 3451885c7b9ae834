"""robosuite's operational space controller, without what it computes again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NULLSPACE_STIFFNESS = 10.0
"""What pulls the arm's elbow to where it was at the beginning, 1/s^2; robosuite's default."""
NULLSPACE_DAMPING = 2 * NULLSPACE_STIFFNESS**0.5


class ArmController:
    """Drives the arm and the gripper as robosuite's Panda does; the goals are robosuite's own.

    Most of a tuned control step would be spent in robosuite's: it looks up names, copies, and
    computes pseudoinverses. This reads MuJoCo's arrays and solves the same equations (Khatib 1987,
    position and orientation decoupled, critically damped); the torques agree to rounding.

    Args:
        mujoco: the module that the scene runs in.
        model: MuJoCo's model.
        data: its state.
        robot: robosuite's Panda. Goal and stiffness are read from its controller at every step.
    """

    def __init__(self, mujoco: Any, model: Any, data: Any, robot: Any) -> None:
        from scipy.linalg.lapack import dposv

        self._mujoco, self._model, self._data, self._robot = mujoco, model, data, robot
        self._solve = dposv
        controller = robot.controller
        self._site = model.site(controller.eef_name).id
        self._velocities = _slice(controller.qvel_index)
        self._positions = _slice(controller.qpos_index)
        self._motors = _slice(robot._ref_joint_actuator_indexes)
        self._fingers = _slice(robot._ref_joint_gripper_actuator_indexes)
        # Of all joints; the arm's are views.
        self._jacobian, self._inertia = np.zeros((6, model.nv)), np.zeros((model.nv, model.nv))
        self._reach = self._jacobian[:, self._velocities]
        self._mass = self._inertia[self._velocities, self._velocities]

    def torques(self) -> NDArray[np.float64]:
        """[7] in Nm, of the state that MuJoCo has just computed, before the motors' limits."""
        data, controller = self._data, self._robot.controller
        moving = self._velocities
        jacobian = self._jacobian
        self._mujoco.mj_jacSite(self._model, data, jacobian[:3], jacobian[3:], self._site)
        self._mujoco.mj_fullM(self._model, self._inertia, data.qM)
        reach, mass, speed = self._reach, self._mass, data.qvel[moving]
        error = np.empty(6)
        error[:3] = controller.goal_pos - data.site_xpos[self._site]
        # Half the sum of the cross products of the axes, as they are and as they should be.
        turn = controller.goal_ori @ data.site_xmat[self._site].reshape(3, 3).T
        error[3] = 0.5 * (turn[2, 1] - turn[1, 2])
        error[4] = 0.5 * (turn[0, 2] - turn[2, 0])
        error[5] = 0.5 * (turn[1, 0] - turn[0, 1])
        wanted = controller.kp * error - controller.kd * (reach @ speed)
        away = controller.initial_joint - data.qpos[self._positions]
        posture = NULLSPACE_STIFFNESS * away - NULLSPACE_DAMPING * speed
        inertia = reach @ self._solved(mass, reach.T)  # [6, 6], inverse, as the hand feels it
        wrench = np.empty(6)
        wrench[:3] = self._solved(inertia[:3, :3], wanted[:3])
        wrench[3:] = self._solved(inertia[3:, 3:], wanted[3:])
        # The posture's torques, less what of them would move the hand.
        wrench -= self._solved(inertia, reach @ posture)
        bias: NDArray[np.float64] = data.qfrc_bias[moving]
        return reach.T @ wrench + mass @ posture + bias

    def drive(self, action: NDArray[np.float64], substeps: int) -> None:
        """One control step.

        Args:
            action: [7] in [-1, 1]; the last entry's sign opens (-) or closes (+) the gripper.
            substeps: physics steps in it.
        """
        model, data, robot = self._model, self._data, self._robot
        # The first one is robosuite's: it sets the goal. Right after a reset it acts on what its
        # controller saw before the episode's state was put in, and so do we.
        self._mujoco.mj_step1(model, data)
        robot.control(action, policy_step=True)
        self._mujoco.mj_step2(model, data)
        low, high = robot.torque_limits
        way = np.array([-1.0, 1.0]) * robot.gripper.speed * np.sign(action[-1])
        steps = np.arange(1, substeps)[:, None]
        commands = np.clip(robot.gripper.current_action + way * steps, -1.0, 1.0)
        limits = model.actuator_ctrlrange[self._fingers]
        fingers = limits.mean(axis=1) + 0.5 * (limits[:, 1] - limits[:, 0]) * commands
        for command in fingers:
            self._mujoco.mj_step1(model, data)
            data.ctrl[self._motors] = np.minimum(np.maximum(self.torques(), low), high)
            data.ctrl[self._fingers] = command
            self._mujoco.mj_step2(model, data)
        robot.gripper.current_action = commands[-1]

    def _solved(self, matrix: Any, right: Any) -> Any:
        """Of a symmetric positive definite matrix; singular ones as robosuite does."""
        _, solution, failed = self._solve(matrix, right)
        return np.linalg.pinv(matrix) @ right if failed else solution


def _slice(indices: Any) -> slice:
    """Numbers that follow each other, as what NumPy takes without copying."""
    first, last = int(indices[0]), int(indices[-1])
    assert list(map(int, indices)) == list(range(first, last + 1)), indices
    return slice(first, last + 1)
