"""Whether an answer is what its spec promises: right shapes, right types, finite numbers.

Asked twice: where the suite answers, so that a mistake is named where it arises, and where the
answer comes in, so that no server, whatever it runs, puts a wrong transition into a batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlarl.errors import EnvContractError
from vlarl.types import EnvSpec, TimeStep


def check_answer(spec: EnvSpec, answer: TimeStep, env_ids: NDArray[np.int64]) -> None:
    """Hold an answer against what the spec promises for `env_ids` [n].

    Raises:
        EnvContractError: naming the field, what it is and what it should be.
    """
    rows = len(env_ids)
    if not np.array_equal(answer.env_ids, env_ids):
        raise EnvContractError(f"suite {spec.suite!r} answered for other environments than asked")
    cameras = {camera.name: (rows, camera.height, camera.width, 3) for camera in spec.cameras}
    if set(answer.images) != set(cameras):
        raise EnvContractError(
            f"suite {spec.suite!r} returned images of {sorted(answer.images)}, "
            f"its spec promises {sorted(cameras)}"
        )
    arrays: list[tuple[str, NDArray[np.generic], tuple[int, ...], str]] = [
        (f"images[{name!r}]", answer.images[name], shape, "uint8")
        for name, shape in cameras.items()
    ]
    arrays += [
        ("state", answer.state, (rows, spec.state_dim), "float32"),
        ("task_success", answer.task_success, (rows, len(spec.tasks)), "bool"),
        ("seed", answer.seed, (rows,), "int64"),
        ("step", answer.step, (rows,), "int32"),
        ("executed", answer.executed, (rows,), "int32"),
        ("reward", answer.reward, (rows,), "float32"),
        ("success", answer.success, (rows,), "bool"),
        ("terminated", answer.terminated, (rows,), "bool"),
        ("truncated", answer.truncated, (rows,), "bool"),
    ]
    arrays += [(f"info[{name!r}]", v, (rows,), "float32") for name, v in answer.info.items()]
    for name, array, shape, dtype in arrays:
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise EnvContractError(
                f"suite {spec.suite!r} returned {name} as {array.dtype} {list(array.shape)}, "
                f"expected {dtype} {list(shape)}"
            )
    for name, words in (("instruction", answer.instruction), ("task", answer.task)):
        if len(words) != rows:
            raise EnvContractError(
                f"suite {spec.suite!r} returned {len(words)} of {name}, expected {rows}"
            )
    _check_frames(spec, answer)
    _check_finite(spec, answer)


def _check_frames(spec: EnvSpec, answer: TimeStep) -> None:
    """The film of every executed step, if one was made, is the first camera's."""
    if answer.frames is None:
        return
    camera = spec.cameras[0]
    found = [list(film.shape) for film in answer.frames]
    size = [camera.height, camera.width, 3]
    expected = [[steps, *size] for steps in answer.executed.tolist()]
    if found != expected:
        raise EnvContractError(
            f"suite {spec.suite!r} returned frames {found}, expected {expected}: one for each step"
        )


def _check_finite(spec: EnvSpec, answer: TimeStep) -> None:
    rows = len(answer)
    for name, values in (("state", answer.state), ("reward", answer.reward)):
        finite = np.isfinite(values.reshape(rows, -1)).all(axis=1)
        if not finite.all():
            raise EnvContractError(
                f"suite {spec.suite!r} returned NaN or infinity in {name} of environments "
                f"{answer.env_ids[~finite].tolist()}. Look at how the environment computes its "
                f"{name}; if it happens rarely, a larger env.restarts lets the run go on."
            )
