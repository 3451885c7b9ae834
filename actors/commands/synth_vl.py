"""`vlarl synth vl`: conversations about random tables."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation, needed, whole_number

SETTINGS = {
    "out": "folder to write; must not exist",
    "samples": "conversations (1000)",
    "seed": "of tables and questions (0)",
    "image_size": "pixels (128)",
}


def run(invocation: Invocation) -> dict[str, Any]:
    """Make them, with a progress bar."""
    from actors.synthesis.vision_language import synthesize_conversations
    from vlarl.progress import Progress

    settings = invocation.settings
    out = needed(invocation, "synth vl", "out", "DIR")
    samples = whole_number(settings, "samples", 1000)
    seed = whole_number(settings, "seed", 0, least=0)
    image_size = whole_number(settings, "image_size", 128, least=32)
    with Progress("asking", samples, "samples") as progress:
        result = synthesize_conversations(out, samples, seed, image_size, progress.reach)
    print(f"{result['samples']} conversations about {result['scenes']} tables in {out}")
    for kind, number in result["questions"].items():
        yes = f", {result['yes'][kind]:.0%} yes" if kind in result["yes"] else ""
        print(f"  {kind:<12} {number}{yes}")
    return {"out": out, **result}


COMMAND = Command(
    usage="synth vl out=DIR [samples=1000 seed=0 image_size=128]",
    settings=SETTINGS,
    details=(
        "Writes DIR/conversations.jsonl and DIR/images: captions, boxes, points, relations,\n"
        "counting, colors, shapes and questions about two views of random tables."
    ),
    example="vlarl synth vl out=datasets/tables samples=1000",
    run=run,
)
