"""Success measured in the course of supervised training, with env servers of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.acting import policy_of
from actors.env_host import EnvAccess, EnvHost
from actors.evaluation import EvaluationRequest, evaluate
from learners.shares import Peers
from learners.supervised import Metrics
from vlarl.config.schema import RunConfig
from vlarl.model.qwen_vla import QwenVLA


@contextmanager
def evaluation_during(
    config: RunConfig, model: QwenVLA
) -> Iterator[Callable[[int], Metrics] | None]:
    """What measures success during training, with servers of its own; None if not asked for."""
    if config.supervised.eval_every == 0 or not Peers.joined().leads:
        yield None
        return
    settings = config.evaluation
    request = EvaluationRequest(settings.episodes, settings.seed, config.env.tasks)
    host = None if config.env.mode == "inprocess" else EnvHost(config.env)
    try:
        access = EnvAccess(config.env, host)
        spec = access.clients[0].spec
        model.contract.check(spec)
        policy = policy_of(model, config, model.contract.place_of(spec.embodiment))

        def judge(step: int) -> Metrics:
            played = evaluate(
                policy,
                access.clients,
                request,
                restart=access.restart,
                max_restarts=config.env.restarts,
            )
            summary = played.summary
            tasks = summary["tasks"].items()
            found = {f"eval_success_rate/{task}": row["success_rate"] for task, row in tasks}
            return {"eval_success_rate": summary["success_rate"], **found}

        yield judge
        access.close()
    finally:
        if host is not None:
            host.close()
