"""`vlarl generate`: what a checkpoint's language model says of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.commands.command import Command, Invocation, whole_number
from vlarl.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlarl.contract import Contract


def run(invocation: Invocation) -> dict[str, Any]:
    """Answer the question."""
    from vlarl.model.answer import answer
    from vlarl.model.qwen_vla import QwenVLA
    from vlarl.runs import checkpoint_of

    settings = invocation.settings
    for key in ("question", "images"):
        if not settings.get(key):
            raise UserError(f"generate needs {key}=. Usage: vlarl {COMMAND.usage}")
    max_tokens = whole_number(settings, "max_tokens", 64)
    model = QwenVLA.from_pretrained(checkpoint_of(invocation.arguments[0])).eval()
    images = _images(settings["images"].split(","), model.contract)
    try:
        (text,) = answer(model, images, [settings["question"]], max_tokens)
    except ValueError as error:
        raise UserError(f"generate: {error}") from error
    print(text)
    return {"question": settings["question"], "answer": text}


def _images(files: list[str], contract: Contract) -> dict[str, NDArray[np.uint8]]:
    """Camera -> [1, height, width, 3], the files in the order of the contract's cameras."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    names = [camera.name for camera in contract.cameras]
    if len(files) != len(names):
        raise UserError(
            f"generate: {len(files)} images; the checkpoint sees {len(names)}: {', '.join(names)}"
        )
    found = {}
    for camera, file in zip(contract.cameras, files, strict=True):
        try:
            with Image.open(Path(file)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"generate: {file} is no image that can be read: {error}") from error
        if pixels.shape[:2] != (camera.height, camera.width):
            height, width, _ = pixels.shape
            raise UserError(
                f"generate: {file} is {width}x{height}; camera {camera.name} has "
                f"{camera.width}x{camera.height}. Resize it."
            )
        found[camera.name] = pixels[None]
    return found


COMMAND = Command(
    usage="generate CHECKPOINT question=TEXT images=FILE,FILE [max_tokens=64]",
    arguments=("CHECKPOINT",),
    settings={
        "question": "what is asked",
        "images": "one file for each camera, in the checkpoint's order (`vlarl info model`)",
        "max_tokens": "of the answer, at most (64)",
    },
    details="Greedy. Places and boxes are spoken on a scale of 1000, horizontal before vertical.",
    example='vlarl generate runs/sft question="Where is the spoon?" images=ego.png,wrist.png',
    run=run,
)
