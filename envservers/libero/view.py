"""What the expert sees: a scene's objects, places and joints, by the names its goal uses."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envservers.libero.goals import Goal
from envservers.libero.grasps import Boxes, boxes_of
from envservers.libero.scene import Scene

_COLLISION_GROUP = 0


class Joint(NamedTuple):
    """Of a drawer, a door or a knob."""

    name: str
    position: float
    low: float
    high: float
    axis: NDArray[np.float64]
    """[3] along which it slides, about which it turns."""
    anchor: NDArray[np.float64]
    body: int
    slides: bool


class View:
    """Privileged state of the episode that is in a scene."""

    def __init__(self, scene: Scene) -> None:
        import mujoco

        self.scene, self._mujoco = scene, mujoco
        self.model, self.data = scene.model, scene.data
        self.problem = scene.problem

    @property
    def hand(self) -> NDArray[np.float64]:
        """[3] where the fingers meet."""
        return np.array(self.data.site_xpos[self.scene.robot.eef_site_id])

    @property
    def hand_axes(self) -> NDArray[np.float64]:
        """[3, 3] its rotation."""
        return np.array(self.data.site_xmat[self.scene.robot.eef_site_id]).reshape(3, 3)

    @property
    def opening(self) -> float:
        """Between the fingers."""
        fingers = self.data.qpos[self.scene.robot._ref_gripper_joint_pos_indexes]
        return float(fingers[0] - fingers[1])

    def holds(self, goal: Goal) -> bool:
        """Whether a condition is met now."""
        words = [goal.predicate, goal.subject, *([goal.place] if goal.place else [])]
        return bool(self.scene.env._eval_predicate(words))

    def root(self, name: str) -> int:
        """The body of an object or fixture."""
        return int(self.model.body(self.scene.env.get_object(name).root_body).id)

    def position(self, name: str) -> NDArray[np.float64]:
        """[3] of an object, as its conditions measure it."""
        return np.array(self.data.xpos[self.root(name)])

    def boxes(self, name: str) -> Boxes:
        """What an object or fixture collides with."""
        return self._boxes(self._within(self.root(name)))

    def body_boxes(self, body: int) -> Boxes:
        """What one body collides with."""
        return self._boxes(np.arange(self.model.nbody) == body)

    def surroundings(self, *without: str) -> Boxes:
        """What everything collides with that is neither robot nor one of these objects."""
        names = [*self.problem.objects, *self.problem.fixtures]
        bodies = np.zeros(self.model.nbody, bool)
        for name in names:
            if name not in without and self.scene.env.get_object(name) is not None:
                bodies |= self._within(self.root(name))
        return self._boxes(bodies)

    def site(self, region: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Center [3] and half extents [3] in the world of a region."""
        site = self.model.site(region).id
        axes = np.array(self.data.site_xmat[site]).reshape(3, 3)
        return np.array(self.data.site_xpos[site]), np.abs(axes @ self.model.site_size[site])

    def walls(self, region: str) -> float:
        """Height of what surrounds a region: the top of the part that it belongs to."""
        body = int(self.model.site_bodyid[self.model.site(region).id])
        while body and not len(self.body_boxes(body).corners):
            body = int(self.model.body_parentid[body])
        return self.body_boxes(body).top if body else -np.inf

    def joint(self, subject: str) -> Joint | None:
        """The joint that opens or turns a fixture, or the part of it that a region names."""
        names = self.scene.env.object_states_dict[subject]
        joints = (
            self.scene.env.object_sites_dict[subject].joints
            if names.object_state_type == "site"
            else self.scene.env.get_object(subject).joints
        )
        kinds = (self._mujoco.mjtJoint.mjJNT_SLIDE, self._mujoco.mjtJoint.mjJNT_HINGE)
        for name in joints or ():
            if name is None:
                continue
            joint = self.model.joint(name)
            if joint.type[0] in kinds:
                return Joint(
                    name=name,
                    position=float(self.data.qpos[joint.qposadr[0]]),
                    low=float(joint.range[0]),
                    high=float(joint.range[1]),
                    axis=np.array(self.data.xaxis[joint.id]),
                    anchor=np.array(self.data.xanchor[joint.id]),
                    body=int(joint.bodyid[0]),
                    slides=bool(joint.type[0] == kinds[0]),
                )
        return None

    def _within(self, root: int) -> NDArray[np.bool_]:
        """[nbody] whether a body is the root or hangs on it."""
        inside = np.zeros(self.model.nbody, bool)
        for body in range(root, self.model.nbody):
            inside[body] = body == root or inside[self.model.body_parentid[body]]
        return inside

    def _boxes(self, bodies: NDArray[np.bool_]) -> Boxes:
        model, data = self.model, self.data
        chosen: Any = bodies[model.geom_bodyid] & (model.geom_group == _COLLISION_GROUP)
        chosen &= (model.geom_contype > 0) | (model.geom_conaffinity > 0)
        # A geom's bounding box, in its own frame, whatever its shape.
        centers, half = model.geom_aabb[chosen, :3], model.geom_aabb[chosen, 3:]
        axes = data.geom_xmat[chosen].reshape(-1, 3, 3)
        return boxes_of(data.geom_xpos[chosen] + np.einsum("nij,nj->ni", axes, centers), axes, half)
