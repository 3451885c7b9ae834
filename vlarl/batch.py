"""The batch that goes from rollout to learner: one flat TensorDict, a row for each decision.

Keys, with `M` decisions: `stream`, `time` (decision within the window), `task`, `version` (of the
weights that acted), all int64; `value`, `reward`, `next_value` float32, the last one of the final
observation where a window or an episode ends; `terminated`, `truncated`, `window_end`, `success`
bool; `chunk`, an `ExploredChunk`; and `context` (the backbone's output, when it is frozen) or
`inputs` (of the processor, when it trains).
"""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

COLUMNS: dict[str, torch.dtype] = {
    **dict.fromkeys(("stream", "time", "task", "version"), torch.int64),
    **dict.fromkeys(("value", "reward", "next_value"), torch.float32),
    **dict.fromkeys(("terminated", "truncated", "window_end", "success"), torch.bool),
}


def validate(batch: TensorDict) -> None:
    """Assert that a batch is what this file says; only our own code makes batches."""
    assert batch.batch_dims == 1, f"a batch is flat, not {tuple(batch.batch_size)}"
    for name, dtype in COLUMNS.items():
        assert name in batch, f"the batch lacks {name}"
        column = batch[name]
        assert column.shape == batch.batch_size, f"{name} is {tuple(column.shape)}"
        assert column.dtype == dtype, f"{name} is {column.dtype}, not {dtype}"
    seen = [name for name in ("context", "inputs") if name in batch]
    assert len(seen) == 1, f"a batch holds either context or inputs, not {seen}"
    for name in ("chunk", *seen):
        assert isinstance(batch[name], TensorDictBase), f"{name} is not a TensorDict"
        assert batch[name].batch_size[:1] == batch.batch_size, f"{name} has other rows"
