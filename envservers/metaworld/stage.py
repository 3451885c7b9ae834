"""One task's scene, live in this process, on which several environments take turns.

A scene weighs tens of megabytes (meshes, textures, drawing context), its state a few kilobytes: so
a process holds one scene a task and each environment keeps its own state while others play. What
is swapped: MuJoCo's integration state, the positions in the model that `reset` changes, and the
numbers among the attributes of MetaWorld's object.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from numpy.typing import NDArray

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_NUMBERS = (bool, int, float, np.generic)
_UNSTABLE = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)
_UNLIMITED = 2**31 - 1
_OBSERVATION = "observation of the stage"
_PHYSICAL = ("physics", "body_pos", "site_pos")
_CLOSE_UP = (0.75, 0.075, 0.7)
"""Where the camera of public demonstrations of the 50 tasks is (`lerobot/metaworld_mt50`)."""


class Player(Protocol):
    """Whose state is on a stage."""

    def leave(self) -> None:
        """Give the stage up, keeping the state."""
        ...


@dataclass
class Parked:
    """The state of one episode, off the stage."""

    place: object
    """What the stage that it was on is known by; a reference to the stage would keep it alive."""
    physics: NDArray[np.float64]
    """MuJoCo's integration state."""
    body_pos: NDArray[np.float64]
    site_pos: NDArray[np.float64]
    attributes: dict[str, Any]
    """Arrays and numbers of MetaWorld's object, but for views of MuJoCo's memory: those follow."""


class Stage:
    """MetaWorld's object of one task.

    Args:
        task: one of `tasks.TASKS`.
        close_up: whether the camera `corner2` stands nearer.
    """

    def __init__(self, task: str, close_up: bool = False) -> None:
        # MuJoCo would print each warning and write MUJOCO_LOG.TXT; `unstable` reads them.
        mujoco.set_mju_user_warning(lambda message: None)
        # The policies' gains are higher than the actions allow; they are clipped on purpose.
        warnings.filterwarnings("ignore", "Constant.s. may be too high", module="metaworld")
        self.owner: Player | None = None
        """Whose state is on the stage."""
        self.env: Any = ALL_V3_ENVIRONMENTS[task]()
        self.env.seeded_rand_vec = True
        self.env._set_task_called = True
        # Its observation must hold the goal: the expert reads it, the policy is not shown it.
        self.env._partially_observable = False
        del self.env.sawyer_observation_space
        self.env.max_path_length = _UNLIMITED
        if close_up:
            self.env.model.cam_pos[self.env.model.camera("corner2").id] = _CLOSE_UP
        self.observation: NDArray[np.float64] = np.zeros(39)
        """MetaWorld's own, with the goal."""
        self._place = object()
        self._policy = ENV_POLICY_MAP[task]()
        self._bare = self.park()

    def begin(self, seed: int) -> None:
        """Start the episode of `seed`: its object and goal are drawn from the task's own space.

        First a reset that draws until the task accepts, then one with what was accepted: the
        draws move bodies of the model, which must be in place when the hand goes to its start.
        """
        self.load(self._bare)
        self.env.np_random = np.random.default_rng(seed)
        self.env._freeze_rand_vec = False
        mujoco.mj_resetData(self.env.model, self.env.data)
        self.env.reset_model()
        self.env._freeze_rand_vec = True
        mujoco.mj_resetData(self.env.model, self.env.data)
        observation = np.asarray(self.env.reset_model(), np.float64)
        self.env.curr_path_length = 0
        self.env._prev_obs = observation[:18].copy()
        observation[18:36] = observation[:18]
        self.observation = observation
        self._forward()

    def step(self, action: NDArray[np.float64]) -> tuple[float, dict[str, Any]]:
        """One of MetaWorld's steps, `action` [4] in [-1, 1]; returns its reward and info."""
        self.observation, reward, _, _, info = self.env.step(action)
        return float(reward), info

    def unstable(self) -> bool:
        """Whether MuJoCo has met numbers that are not finite in this episode."""
        return any(self.env.data.warning[kind].number for kind in _UNSTABLE)

    def expert_action(self) -> NDArray[np.float64]:
        """[4] what MetaWorld's policy would do now, in [-1, 1]."""
        return np.clip(np.asarray(self._policy.get_action(self.observation), np.float64), -1, 1)

    def park(self) -> Parked:
        """The state on the stage, copied."""
        model, data = self.env.model, self.env.data
        physics = np.empty(mujoco.mj_stateSize(model, _STATE))
        mujoco.mj_getState(model, data, physics, _STATE)
        attributes = _copied({**self._numbers(), _OBSERVATION: self.observation})
        places = model.body_pos.copy(), model.site_pos.copy()
        return Parked(self._place, physics, *places, attributes)

    def resume(self, seed: int, parked: Parked) -> None:
        """Put a parked state of an episode of `seed` here, perhaps of a stage that is gone."""
        if parked.place is self._place:
            self.load(parked)
        else:
            self.thaw(seed, freeze(parked))

    def thaw(self, seed: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Put here what `freeze` gave, of an episode of `seed`."""
        self.begin(seed)
        attributes = self.park().attributes
        for name, value in arrays.items():
            if name not in _PHYSICAL:
                attributes[name] = value if value.ndim else value.item()
        physics, body_pos, site_pos = (arrays[name] for name in _PHYSICAL)
        self.load(Parked(self._place, physics, body_pos, site_pos, attributes))

    def load(self, parked: Parked) -> None:
        """Put a state of this stage here."""
        model, data = self.env.model, self.env.data
        model.body_pos[:], model.site_pos[:] = parked.body_pos, parked.site_pos
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, parked.physics, _STATE)
        self._forward()
        attributes = _copied(parked.attributes)
        self.observation = attributes.pop(_OBSERVATION)
        for name in self._numbers().keys() - attributes.keys():
            delattr(self.env, name)
        vars(self.env).update(attributes)

    def close(self) -> None:
        """Free MetaWorld's object."""
        self.env.close()

    def _forward(self) -> None:
        """Positions of everything, without a change to where the solver starts next."""
        start = self.env.data.qacc_warmstart.copy()
        mujoco.mj_forward(self.env.model, self.env.data)
        self.env.data.qacc_warmstart[:] = start

    def _numbers(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(self.env).items()
            if isinstance(value, _NUMBERS)
            or (isinstance(value, np.ndarray) and value.dtype != object and not _is_live(value))
        }


def freeze(parked: Parked) -> dict[str, NDArray[Any]]:
    """What `Stage.thaw` needs of a state, as arrays that can be written down."""
    physical = {name: getattr(parked, name) for name in _PHYSICAL}
    return {**physical, **{name: np.asarray(value) for name, value in parked.attributes.items()}}


def _is_live(value: NDArray[Any]) -> bool:
    """Whether it is a view of MuJoCo's memory, which moves with the simulation."""
    owner: Any = value
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return not isinstance(owner, np.ndarray)


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in attributes.items()
    }
