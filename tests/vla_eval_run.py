"""Runs the real `vla-eval` against a policy server; for the interpreter of its own environment.

    python tests/vla_eval_run.py URL counting|libero_object EPISODES [MAX_STEPS [MAX_TASKS]]

Prints the harness's result as the last line, in JSON. `counting` needs no simulator: it shows what
it was told to do as colors, and records what it is answered.
"""

import json
import sys
import tempfile

import numpy as np
from vla_eval import api
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.benchmarks.libero.benchmark import LIBEROBenchmark

STEPS = 11
"""Of an episode of `Counting`; no multiple of a chunk."""


class Counting(StepBenchmark):
    """Two tasks whose pictures say which step it is; the actions are part of the result."""

    render_backends = frozenset({"gpu", "cpu"})

    @classmethod
    def configure_render(cls, mode):
        return {}

    def __init__(self, send_wrist_image=False):
        super().__init__()
        self.send_wrist_image = send_wrist_image

    def get_tasks(self):
        return [{"name": "count up"}, {"name": "count down"}]

    def reset(self, task):
        self.actions = []
        return 0

    def step(self, action):
        self.actions.append(np.asarray(action["actions"], np.float32).tolist())
        step = len(self.actions)
        return StepResult(obs=step, reward=0.0, done=step == STEPS, info={})

    def make_obs(self, step, task):
        picture = np.full((128, 128, 3), 20 * step, np.uint8)
        images = {"agentview": picture}
        if self.send_wrist_image:
            images["wrist"] = 255 - picture
        return {"images": images, "task_description": task["name"]}

    def get_step_result(self, result):
        return {"success": result.done, "actions": self.actions}

    def get_metadata(self):
        return {"max_steps": 2 * STEPS}

    def get_action_spec(self):
        return {}

    def get_observation_spec(self):
        return {}


class Libero(LIBEROBenchmark):
    """The harness's own, which imports torch for nothing but to let it unpickle initial states.

    LIBERO-PRO's package holds them as plain arrays.
    """

    def _init_libero(self):
        if self._task_suite is None:
            from libero.libero import benchmark

            self._task_suite = benchmark.get_benchmark_dict()[self.suite]()


def main(url, suite, episodes, max_steps="0", max_tasks="1"):
    entry = {"benchmark": "__main__:Counting", "episodes_per_task": int(episodes)}
    if suite != "counting":
        params = {"suite": suite, "seed": 7}
        entry |= {"benchmark": "__main__:Libero", "params": params, "max_tasks": int(max_tasks)}
    if int(max_steps):
        entry["max_steps"] = int(max_steps)
    config = {"server": {"url": url, "timeout": 120.0}, "benchmarks": [entry]}
    # Even unsaved, it keeps a file of its progress.
    with tempfile.TemporaryDirectory() as folder:
        results = api.run(config, docker=False, no_save=True, output_dir=folder)
    print(json.dumps(results, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
