"""`vlarl merge`: a checkpoint with adapters becomes one without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """Add the adapters to the weights under them and write the result.

    Raises:
        UserError: without `out`, or for a checkpoint without adapters.
    """
    from vlarl.model.lora import merge_adapters
    from vlarl.model.qwen_vla import QwenVLA
    from vlarl.runs import checkpoint_of

    (name,), out = invocation.arguments, invocation.settings.get("out", "")
    if not out:
        raise UserError(f"merge needs out=. Usage: vlarl {COMMAND.usage}")
    if Path(out).exists():
        raise UserError(f"merge: out = {out!r} exists already. Name a new folder.")
    model = QwenVLA.from_pretrained(checkpoint_of(name))
    if model.lora is None:
        raise UserError(f"merge: checkpoint {name} has no adapters; it can be used as it is.")
    merged = model.lora
    merge_adapters(model.backbone)
    model.lora = None
    model.save_pretrained(out)
    print(f"{out}: adapters of rank {merged.rank} are in the weights")
    return {"checkpoint": out, "rank": merged.rank}


COMMAND = Command(
    usage="merge CHECKPOINT out=DIR",
    arguments=("CHECKPOINT",),
    settings={"out": "folder to write, which must not exist"},
    details=(
        "Adds LoRA adapters to the weights under them and writes a checkpoint without adapters,\n"
        "for `vlarl eval`, serving or a further stage. In bfloat16 the sums are rounded."
    ),
    example="vlarl merge runs/lora out=merged",
    run=run,
)
