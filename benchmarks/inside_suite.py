"""What runs in a suite's own interpreter for `bench_suites` and `bench_suite_experts`.

    PYTHON inside_suite.py play SUITE OPTIONS_JSON CHUNK [SLOTS]
    PYTHON inside_suite.py peer SUITE SIZE [ROWS]             ROWS: ManiSkill's, on a GPU
    PYTHON inside_suite.py memory SUITE OPTIONS_JSON SLOTS
    PYTHON inside_suite.py experts SUITE OPTIONS_JSON SEEDS
    PYTHON inside_suite.py plans maniskill OPTIONS_JSON SEEDS

Answers are JSON, one a line; of `play` and `peer` one for each line `SECONDS`. Imports what env
servers may import, and nothing of this folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from envservers.registry import make_suite
from vlarl.types import EpisodeStart

ENDLESS = 1_000_000
_SEED = 11


def _play(
    name: str, options: str, chunk: str, slots: str = "1"
) -> tuple[Callable[[], int], Callable[[], float]]:
    """Environments of ours under random actions; their steps, and what drawing took so far."""
    given = {"max_steps": ENDLESS, "terminate_on_success": False, **json.loads(options)}
    suite: Any = make_suite(name, int(slots), **given)
    spec, ids = suite.spec, np.arange(int(slots))
    low = [channel.low for channel in spec.channels]
    high = [channel.high for channel in spec.channels]
    random = np.random.default_rng(_SEED)
    suite.reset(ids, [EpisodeStart(spec.tasks[0], _SEED + slot) for slot in ids.tolist()])

    def advance() -> int:
        shape = len(ids), int(chunk), len(low)
        action = random.uniform(low, high, shape).astype(np.float32)
        return int(suite.step(ids, action).executed.sum())

    return advance, lambda: float(suite.render_seconds)


def _peer(name: str, size: str, *rows: str) -> tuple[Callable[[], int], Callable[[], float]]:
    """The suite's own `step` with an image, as its documentation has it."""
    return PEERS[name](int(size), *map(int, rows)), lambda: 0.0


def _metaworld(size: int) -> Callable[[], int]:
    import os

    os.environ.setdefault("MUJOCO_GL", "egl")
    import gymnasium
    import metaworld  # noqa: F401, registers its environments

    env: Any = gymnasium.make(
        "Meta-World/MT1",
        env_name="reach-v3",
        seed=_SEED,
        render_mode="rgb_array",
        camera_name="corner2",
        width=size,
        height=size,
        max_episode_steps=ENDLESS,
    )
    env.unwrapped.max_path_length = ENDLESS
    env.reset()
    random = np.random.default_rng(_SEED)

    def advance() -> int:
        env.step(random.uniform(-1, 1, 4).astype(np.float32))
        picture = env.render()
        if picture.shape != (size, size, 3):
            raise RuntimeError(f"expected an image of {size} pixels, got {picture.shape}")
        return 1

    return advance


def _libero(size: int) -> Callable[[], int]:
    import os

    os.environ.setdefault("MUJOCO_GL", "egl")
    from libero.libero import get_libero_path
    from libero.libero.envs import OffScreenRenderEnv

    from envservers.libero.tasks import chosen, folder

    task = chosen("object", None)[0]
    file = f"{get_libero_path('bddl_files')}/{folder(task)}/{task.partition('/')[2]}.bddl"
    env: Any = OffScreenRenderEnv(
        bddl_file_name=file, camera_heights=size, camera_widths=size, ignore_done=True
    )
    env.reset()
    random = np.random.default_rng(_SEED)

    def advance() -> int:
        picture = env.step(random.uniform(-1, 1, 7))[0]["agentview_image"]
        if picture.shape != (size, size, 3):
            raise RuntimeError(f"expected an image of {size} pixels, got {picture.shape}")
        return 1

    return advance


def _maniskill(size: int, rows: int = 0) -> Callable[[], int]:
    import gymnasium
    import mani_skill.envs  # noqa: F401, registers its environments

    env: Any = gymnasium.make(
        "PickCube-v1",
        num_envs=rows or 1,
        obs_mode="rgb",
        control_mode="pd_ee_delta_pose",
        sim_backend="physx_cuda" if rows else "physx_cpu",
        robot_uids="panda_wristcam",
        sensor_configs={"width": size, "height": size},
        max_episode_steps=ENDLESS,
    )
    env.reset(seed=_SEED)
    random = np.random.default_rng(_SEED)

    def advance() -> int:
        seen = env.step(random.uniform(-1, 1, (rows or 1, 7)).astype(np.float32))[0]
        pictures = np.asarray(seen["sensor_data"]["base_camera"]["rgb"].cpu())
        if pictures.shape != (rows or 1, size, size, 3):
            raise RuntimeError(f"expected images of {size} pixels, got {pictures.shape}")
        return len(pictures)

    return advance


PEERS: dict[str, Callable[..., Callable[[], int]]] = {
    "metaworld": _metaworld,
    "libero": _libero,
    "maniskill": _maniskill,
}
"""Suite -> its own loop at an image size."""


def _windows(advance: Callable[[], int], drawn: Callable[[], float]) -> None:
    advance()
    _answer({"ready": True})
    for line in sys.stdin:
        steps, started, drawing = 0, time.perf_counter(), drawn()
        cpu = time.process_time()
        while (elapsed := time.perf_counter() - started) < float(line):
            steps += advance()
        _answer(
            {
                "rate": steps / elapsed,
                "cpu_rate": steps / (time.process_time() - cpu),
                "rate_without_drawing": steps / (elapsed - (drawn() - drawing)),
            }
        )


def _memory(name: str, options: str, slots: str) -> None:
    """Resident bytes: with what all environments share, and with so many, all drawn."""
    suite: Any = make_suite(name, int(slots), **json.loads(options))
    before = _resident()
    tasks = suite.spec.tasks
    starts = [EpisodeStart(tasks[slot % len(tasks)], slot) for slot in range(int(slots))]
    suite.reset(np.arange(int(slots)), starts)
    _answer({"loaded": before, "with_environments": _resident(), "tasks": len(tasks)})
    suite.close()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def _experts(name: str, options: str, seeds: str) -> None:
    """Each task's expert from the first seeds: control steps to success, or none."""
    suite: Any = make_suite(name, 1, **json.loads(options))
    simulator = suite._simulator(0)
    for task in suite.spec.tasks:
        steps: list[int] = []
        for seed in range(int(seeds)):
            simulator.reset(EpisodeStart(task, seed))
            for step in range(1, suite.limits[task] + 1):
                outcome = simulator.step(simulator.expert_action())
                if outcome.success:
                    steps.append(step)
                if outcome.success or outcome.failed:
                    break
        _answer({"task": task, "steps": steps})
    suite.close()


def _plans(name: str, options: str, seeds: str) -> None:
    """As `_experts`, of ManiSkill's planners, in their own control steps."""
    import mani_skill.envs  # noqa: F401, its import is what registers the tasks

    from envservers.maniskill.planner import Planner
    from envservers.maniskill.robots import PANDA

    planner = Planner(PANDA.uid)
    for task in json.loads(options)["tasks"]:
        found = [planner.solve(task, seed) for seed in range(int(seeds))]
        steps = [len(motion.poses) for motion in found if motion is not None and motion.success]
        _answer({"task": task, "steps": steps})
    planner.close()


def _answer(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def main() -> None:
    """One of the modes above."""
    mode, *words = sys.argv[1:]
    if mode == "memory":
        _memory(*words)
    elif mode == "experts":
        _experts(*words)
    elif mode == "plans":
        _plans(*words)
    else:
        _windows(*(_peer if mode == "peer" else _play)(*words))


if __name__ == "__main__":
    main()
