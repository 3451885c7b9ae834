"""Rules of `supervised.data.conversations`: a file needs a batch, a batch needs a file."""

from __future__ import annotations

from collections.abc import Iterator

from vlarl.config.data_schema import DataConfig
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig

_LEAST_TOKENS = 4


def conversation_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of the vision-language samples' settings."""
    batch, data = config.supervised.conversation_batch_size, config.supervised.data
    key = "supervised.conversation_batch_size"
    if batch < 0:
        yield Problem(key, "must be at least 0", f"Try {key}=0.")
    if batch and not data.conversations:
        file = "supervised.data.conversations"
        yield Problem(file, "is needed by conversation_batch_size", f"Try {file}=FILE.jsonl.")
    if data.conversations and not batch:
        yield Problem(key, "leaves data.conversations without effect", f"Try {key}=8.")
    sources = (data.mixture or {}).values()
    spoken = data.conversations or any(source.kind == "conversations" for source in sources)
    for name in ("conversation_tokens", "image_tokens"):
        budget, own = f"supervised.data.{name}", getattr(data, name)
        if own < _LEAST_TOKENS:
            remedy = f"Try {budget}={_LEAST_TOKENS}."
            yield Problem(budget, f"must be at least {_LEAST_TOKENS}", remedy)
        if not spoken and own != getattr(DataConfig(), name):
            yield Problem(budget, "has no effect without data.conversations", "Remove it.")
