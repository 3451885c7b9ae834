"""What the metrics of a run mean, and their units: for `vlarl info metrics` and Prometheus.

Where names belong together, the part after the slash says which: `success_rate/TASK`.
"""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """Of one metric."""

    unit: str
    """Empty for a plain number."""
    text: str
    label: str = ""
    """What the part after the slash is; empty where there is none."""


METRICS = {
    "success_rate": Meaning("share", "episodes that ended in the window with success"),
    "success_rate/*": Meaning("share", "episodes of one task with success", "task"),
    "success_rate_smooth": Meaning("share", "running mean of success_rate; 0.9 of the old"),
    "eval_success_rate": Meaning("share", "success on the held-out states, while training"),
    "eval_success_rate/*": Meaning("share", "held-out success of one task", "task"),
    "reward": Meaning("", "mean reward of a decision"),
    "episodes": Meaning("episodes", "ended in the window"),
    "episode_length": Meaning("control steps", "mean, of episodes that ended"),
    "decisions": Meaning("decisions", "decisions in the batch"),
    "decisions_per_second": Meaning("1/s", "decisions in a second of the window"),
    "env_steps_per_second": Meaning("1/s", "control steps in a second of the window"),
    "iteration_seconds": Meaning("s", "collecting the window, update and publishing"),
    "rollout_seconds": Meaning("s", "collecting the window"),
    "policy_seconds": Meaning("s", "of the window: deciding"),
    "waiting_seconds": Meaning("s", "of the window: nothing to do but wait for env servers"),
    "waiting_simulation_seconds": Meaning("s", "of the waiting: until a chunk was executed"),
    "waiting_reset_seconds": Meaning("s", "of the waiting: until ended episodes were replaced"),
    "policy_calls": Meaning("calls", "of the policy, to decide"),
    "batch_fill": Meaning("share", "mean environments of a call over rollout.batch_environments"),
    "waiting_share": Meaning("share", "waiting_seconds of iteration_seconds"),
    "learner_waiting_seconds": Meaning("s", "learning had too few decisions; async"),
    "update_seconds": Meaning("s", "learning"),
    "publishing_seconds": Meaning("s", "giving weights to workers of their own processes"),
    "evaluation_seconds": Meaning("s", "evaluating after this iteration"),
    "saving_seconds": Meaning("s", "writing the checkpoint of the iteration before"),
    "server_simulation_seconds": Meaning("s", "env servers, together: physics and resets"),
    "server_render_seconds": Meaning("s", "env servers, together: drawing images"),
    "server_steps_per_second": Meaning("1/s", "control steps of one env server while it works"),
    "restarts": Meaning("restarts", "env servers replaced in the window"),
    "restarts_total": Meaning("restarts", "env servers replaced since the run began"),
    "dropped_episodes": Meaning("episodes", "lost to restarts in the window"),
    "dropped_episodes_total": Meaning("episodes", "lost to restarts since the run began"),
    "dropped_decisions": Meaning("decisions", "lost to restarts in the window"),
    "host_restarts": Meaning("restarts", "hosts of env servers replaced in the window"),
    "worker_restarts": Meaning("restarts", "rollout workers replaced in the window"),
    "learner_restarts": Meaning("restarts", "of the learners, since the run's start or resume"),
    "checkpoints_failed": Meaning("checkpoints", "not written, since the run's start or resume"),
    "batch_age": Meaning("updates", "age of the oldest decision that was learned from"),
    "batch_age_mean": Meaning("updates", "mean age of what was learned from; async"),
    "dropped_over_age": Meaning("decisions", "of the batch, too old to learn from; async"),
    "dropped_queue_full": Meaning("decisions", "that learning was too slow for; async"),
    "batch_bytes_per_decision": Meaning("bytes", "size of the batch for each decision"),
    "learner_memory_bytes": Meaning("bytes", "resident, of the process that learns"),
    "worker_memory_bytes": Meaning("bytes", "resident, of workers of their own, together"),
    "server_memory_bytes": Meaning("bytes", "proportional share, of the env servers, together"),
    "learner_gpu_memory_bytes": Meaning("bytes", "tensors on the GPU after the update"),
    "learner_gpu_memory_peak_bytes": Meaning("bytes", "most of them since the row before"),
    "learner_gpu_utilization": Meaning("share", "of the last moment, in which the GPU worked"),
    "worker_gpu_memory_bytes": Meaning("bytes", "tensors on the workers' GPUs, together"),
    "worker_gpu_memory_peak_bytes": Meaning("bytes", "most of them since the row before"),
    "worker_gpu_utilization": Meaning("share", "of the last moment, in which their GPUs worked"),
    "policy_loss": Meaning("", "clipped surrogate"),
    "value_loss": Meaning("", "clipped squared error of the value head"),
    "approximate_kl": Meaning("nats", "of the new policy from the one that acted"),
    "approximate_kl/*": Meaning("nats", "KL at one denoising step", "step"),
    "clip_fraction": Meaning("share", "ratios beyond the clip range"),
    "clip_fraction/*": Meaning("share", "ratios beyond the clip range, one denoising step", "step"),
    "ratio_start": Meaning("", "mean |ratio - 1| before the first step; 0 up to rounding"),
    "log_prob_gap": Meaning("nats", "largest |log ratio| before it, of the rollout's own density"),
    "behavior_weight_mean": Meaning("", "mean weight of the proximal against the acting policy"),
    "behavior_weight_truncated": Meaning("share", "of these weights, at ppo.behavior_weight_cap"),
    "behavior_kl": Meaning("nats", "of the proximal policy from the one that acted; async"),
    "explained_variance": Meaning("", "of the returns by the value head; 1 is all of it"),
    "value_mean": Meaning("", "mean value"),
    "return_mean": Meaning("", "mean target of the value"),
    "advantage_std": Meaning("", "standard deviation of advantages, not normalized"),
    "epochs_run": Meaning("epochs", "of the policy until target_kl ended them"),
    "grad_norm/*": Meaning("", "gradient norm of one part before clipping", "part"),
    "learning_rate/*": Meaning("", "learning rate of one part", "part"),
    "allocation/*": Meaning("environments", "given to one task in the window", "task"),
    "running_success/*": Meaning("share", "running success, which the allocation follows", "task"),
}
"""Name of an RL run's metric -> what it says; `*` stands for the part after the slash."""


def meaning(name: str) -> Meaning | None:
    """What a metric says, None for one of other stages."""
    return METRICS.get(f"{name.partition('/')[0]}/*" if "/" in name else name)
