"""Any Gymnasium environment with images as a suite: `gym:ID`, `gym:module:ID`.

Environments are made singly and reset by hand, so that no vector environment's autoreset hides a
final observation. Images are, in this order: the image entries of a dictionary observation, an
image observation, or `render()`; the last is called once a chunk. An image that is named like a
view (`ego`, ...) is that camera; the others become the views that are left, in order, unless
`views` says which. What is not an image is the state. An environment may say in its `metadata` what
it is (`embodiment`, `channels`), and in `info["instruction"]` what to do. Success is
`info["success"]` or `info["is_success"]`; where an environment reports neither, an episode that
terminates with a positive reward counts as one. No snapshots: a run resumes at episode boundaries.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envservers.resize import resized
from vlarl.errors import UserError
from vlarl.types import VIEWS, CameraSpec, Channel, EnvSpec, EpisodeStart, TimeStep

_SUCCESS_KEYS = ("success", "is_success")


@dataclass
class _Slot:
    observation: Any
    start: EpisodeStart
    step: int = 0
    instruction: str = ""
    success: bool = False
    terminated: bool = False
    truncated: bool = False


class GymSuite:
    """`num_envs` instances of one registered environment.

    Args:
        num_envs: environments.
        env_id: Gymnasium id; `module:ID` imports the module first.
        image_size: height and width that images are reduced to; 0 keeps their own.
        max_steps: control steps of an episode; 0 means the registered limit.
        instruction: the sentence the policy is told; empty means `info["instruction"]` of the
            reset or, without one, the id.
        control_hz: control rate; 0 means the environment's `render_fps`.
        embodiment: name of the embodiment that words the prompt; empty means the environment's
            own or, without one, `gym`.
        views: image -> view (`ego`, `cam_left_wrist`, `cam_right_wrist`), only these are shown;
            empty means all.
        tasks: if given, must hold the id alone.
        make_options: keyword arguments of `gymnasium.make`.

    Raises:
        UserError: if there is no such environment, or it has no images, no time limit or an
            action space that is neither a one-dimensional Box nor Discrete.
    """

    def __init__(
        self,
        num_envs: int,
        env_id: str,
        image_size: int = 0,
        max_steps: int = 0,
        instruction: str = "",
        control_hz: float = 0.0,
        embodiment: str = "",
        tasks: Sequence[str] = (),
        views: dict[str, str] | None = None,
        make_options: dict[str, Any] | None = None,
    ) -> None:
        if tasks and tuple(tasks) != (env_id,):
            raise UserError(f"suite gym:{env_id} has one task, {env_id!r}; got {list(tasks)}")
        self.num_envs = num_envs
        self._instruction = instruction
        options = make_options or {}
        self._envs = [_make(env_id, options)]
        first = self._envs[0]
        registered = first.spec.max_episode_steps if first.spec is not None else None
        limit = max_steps or registered or 0
        if limit < 1:
            raise UserError(f"environment {env_id!r} has no time limit: give env.max_steps")
        observation, _ = first.reset(seed=0)
        images = _images_of(first, observation)
        self._sources = _sources(env_id, list(images), views or {})
        self.spec = EnvSpec(
            suite=f"gym:{env_id}",
            tasks=(env_id,),
            cameras=tuple(
                CameraSpec(
                    view, image_size or images[name].shape[0], image_size or images[name].shape[1]
                )
                for view, name in self._sources.items()
            ),
            channels=first.metadata.get("channels") or _channels(env_id, first.action_space),
            embodiment=embodiment or first.metadata.get("embodiment", "gym"),
            control_hz=control_hz or float(first.metadata.get("render_fps") or 10.0),
            max_steps=limit,
            state_dim=len(_state_of(observation)),
        )
        self._envs += [_make(env_id, options) for _ in range(num_envs - 1)]
        self._slots: list[_Slot | None] = [None] * num_envs

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """Start episodes; the seed is the environment's own `reset(seed=...)`."""
        for env_id, start in zip(env_ids.tolist(), starts, strict=True):
            observation, info = self._envs[env_id].reset(seed=start.seed)
            self._slots[env_id] = _Slot(
                observation,
                start,
                instruction=start.instruction
                or self._instruction
                or str(info.get("instruction") or self.spec.tasks[0]),
                success=_reported_success(info) or False,
            )
        rows = len(env_ids)
        return self._observe(env_ids, np.zeros(rows, np.int32), np.zeros(rows, np.float32), None)

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """Execute a chunk in each environment, one after the other.

        Raises:
            ValueError: for a slot that was never reset or whose episode has ended.
        """
        for env_id in env_ids.tolist():
            slot = self._slots[env_id]
            if slot is None or slot.terminated or slot.truncated:
                raise ValueError(f"environment {env_id} has no running episode: reset it first")
        executed = np.zeros(len(env_ids), np.int32)
        rewards = np.zeros(len(env_ids), np.float32)
        films: list[NDArray[np.uint8]] = []
        for row, env_id in enumerate(env_ids.tolist()):
            executed[row], rewards[row], film = self._execute(env_id, actions[row], record)
            films.append(film)
        return self._observe(env_ids, executed, rewards, tuple(films) if record else None)

    def snapshot(self) -> bytes:
        """Not possible for environments in general."""
        raise NotImplementedError("Gymnasium environments cannot be snapshot")

    def restore(self, blob: bytes) -> None:
        """Not possible for environments in general."""
        raise NotImplementedError("Gymnasium environments cannot be restored")

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()
        self._envs = []

    def _execute(
        self, env_id: int, actions: NDArray[np.float32], record: bool
    ) -> tuple[int, float, NDArray[np.uint8]]:
        env, slot = self._envs[env_id], self._slots[env_id]
        assert slot is not None
        total, executed = 0.0, 0
        film = []
        for action in actions:
            slot.observation, reward, terminated, truncated, info = env.step(self._action(action))
            slot.step += 1
            executed += 1
            total += float(reward)
            reported = _reported_success(info)
            slot.success = bool(terminated and reward > 0) if reported is None else reported
            slot.terminated = bool(terminated)
            slot.truncated = (
                bool(truncated) or slot.step >= self.spec.max_steps
            ) and not terminated
            if record:
                film.append(next(iter(self._images(env_id).values())))
            if slot.terminated or slot.truncated:
                break
        first = self.spec.cameras[0]
        shape = (len(film), first.height, first.width, 3)
        return executed, total, np.array(film, np.uint8).reshape(shape)

    def _action(self, action: NDArray[np.float32]) -> Any:
        space = self._envs[0].action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            return int(np.clip(np.rint(action[0]), 0, space.n - 1) + space.start)
        assert isinstance(space, gymnasium.spaces.Box)
        return np.clip(action, space.low, space.high).astype(space.dtype)

    def _images(self, env_id: int) -> dict[str, NDArray[np.uint8]]:
        slot = self._slots[env_id]
        assert slot is not None
        images = _images_of(self._envs[env_id], slot.observation)
        return {
            camera.name: resized(images[self._sources[camera.name]], camera.height, camera.width)
            for camera in self.spec.cameras
        }

    def _observe(
        self,
        env_ids: NDArray[np.int64],
        executed: NDArray[np.int32],
        rewards: NDArray[np.float32],
        films: tuple[NDArray[np.uint8], ...] | None,
    ) -> TimeStep:
        ids = env_ids.tolist()
        slots = [slot for slot in (self._slots[env_id] for env_id in ids) if slot is not None]
        pictures = [self._images(env_id) for env_id in ids]
        success = np.array([slot.success for slot in slots], bool)
        return TimeStep(
            env_ids=env_ids.copy(),
            images={
                camera.name: np.stack([images[camera.name] for images in pictures])
                for camera in self.spec.cameras
            },
            state=np.stack([_state_of(slot.observation) for slot in slots]),
            instruction=tuple(slot.instruction for slot in slots),
            task=tuple(slot.start.task for slot in slots),
            seed=np.array([slot.start.seed for slot in slots], np.int64),
            step=np.array([slot.step for slot in slots], np.int32),
            executed=executed,
            reward=rewards,
            success=success,
            task_success=success[:, None].copy(),
            terminated=np.array([slot.terminated for slot in slots], bool),
            truncated=np.array([slot.truncated for slot in slots], bool),
            frames=films,
        )


def _make(env_id: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """A single environment that can be rendered to arrays, where it renders at all."""
    try:
        registered = gymnasium.spec(_imported(env_id))
        modes = _render_modes(registered)
        if "rgb_array" in modes:
            options = {"render_mode": "rgb_array", **options}
        return gymnasium.make(env_id, **options)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise UserError(f"cannot make the environment {env_id!r}: {error}") from error


def _imported(env_id: str) -> str:
    """The id without its `module:` part, that module imported."""
    module, separator, name = env_id.partition(":")
    if separator:
        importlib.import_module(module)
        return name
    return env_id


def _render_modes(registered: gymnasium.envs.registration.EnvSpec) -> Sequence[str]:
    entry = registered.entry_point
    creator = (
        gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    )
    return getattr(creator, "metadata", {}).get("render_modes", [])


def _sources(env_id: str, images: list[str], views: dict[str, str]) -> dict[str, str]:
    """View -> the image that is shown as it."""
    for name, view in views.items():
        if name not in images or view not in VIEWS:
            raise UserError(
                f"environment {env_id!r}: views = {views}: {name!r} -> {view!r}: its images are "
                f"{', '.join(images)}; views are {', '.join(VIEWS)}"
            )
    if len(set(views.values())) < len(views):
        raise UserError(f"environment {env_id!r}: views = {views}: one view, several images")
    if views:
        return {view: name for name, view in views.items()}
    found = {name: name for name in images if name in VIEWS}
    free = [view for view in VIEWS if view not in found]
    others = [name for name in images if name not in VIEWS]
    if len(others) > len(free):
        raise UserError(
            f"environment {env_id!r} has {len(images)} images, a policy sees {len(VIEWS)}: choose, "
            f"as in env.options.views={{{others[0]}: ego}}"
        )
    return found | dict(zip(free, others, strict=False))


def _channels(env_id: str, space: gymnasium.Space[Any]) -> tuple[Channel, ...]:
    if isinstance(space, gymnasium.spaces.Discrete):
        return (Channel("choice", "1", "absolute_joint", 0.0, float(space.n - 1)),)
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        bounds = zip(space.low.tolist(), space.high.tolist(), strict=True)
        return tuple(
            Channel(f"action_{i}", "1", "absolute_joint", low, high)
            for i, (low, high) in enumerate(bounds)
        )
    raise UserError(
        f"environment {env_id!r} has the action space {space}; "
        "supported are a one-dimensional Box and Discrete"
    )


def _reported_success(info: dict[str, Any]) -> bool | None:
    for key in _SUCCESS_KEYS:
        if key in info:
            return bool(info[key])
    return None


def _entries(observation: Any) -> dict[str, Any]:
    return observation if isinstance(observation, dict) else {"image": observation}


def _is_image(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == 3
        and value.shape[2] == 3
    )


def _images_of(env: gymnasium.Env[Any, Any], observation: Any) -> dict[str, NDArray[np.uint8]]:
    """Images by camera name: observed ones, else one that is rendered now."""
    images = {name: value for name, value in _entries(observation).items() if _is_image(value)}
    if images:
        return images
    rendered: Any = env.render() if env.render_mode == "rgb_array" else None
    if not _is_image(rendered):
        raise UserError(
            f"environment {env.spec and env.spec.id!r} neither observes nor renders images"
        )
    return {"render": rendered}


def _state_of(observation: Any) -> NDArray[np.float32]:
    """Every array of the observation that is not an image, as one vector."""
    vectors = [
        np.ravel(value)
        for value in _entries(observation).values()
        if isinstance(value, np.ndarray | np.number) and not _is_image(value)
    ]
    return np.concatenate([np.zeros(0), *vectors]).astype(np.float32)
