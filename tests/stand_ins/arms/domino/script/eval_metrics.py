"""Of DOMINO's `script/eval_metrics.py`: the score is a route's share times penalties."""

from types import SimpleNamespace


class EvalMetricsTracker:
    def __init__(self, env, args):
        assert args["use_dynamic"]
        self.steps, self.factor = None, 1.0

    def on_episode_start(self):
        self.steps, self.factor = 0, 1.0

    def on_step(self, out_of_bounds=False):
        self.steps += 1

    def record_out_of_bounds(self):
        self.factor *= 0.5

    def get_episode_metrics(self, success, fail_reason=None, seed=None):
        route = 100.0 if success else min(self.steps, 50.0)
        return SimpleNamespace(
            success=success,
            route_completion=route,
            manipulation_score=route * self.factor,
            total_penalty_factor=self.factor,
        )
