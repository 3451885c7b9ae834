"""Conversations about random tables, with pictures, as JSONL (paper section 3.2.5).

Composition root: the workbench on one side, `vlarl.data.conversations`' format on the other.
Kinds of questions come equally often; of yes-or-no questions, as many are answered yes as no.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actors.synthesis.output import new_folder
from actors.synthesis.questions import OPEN, YES_NO, Question
from actors.synthesis.seen import Seen, look
from envservers.tabletop.layouts import Layout, sample_layout
from envservers.tabletop.workbench import Workbench

FILE, PICTURES = "conversations.jsonl", "images"
_SCENES_AT_ONCE = 16
_QUESTIONS_PER_SCENE = 6
_LONGEST = 3
"""Questions of one conversation, at most."""


def synthesize_conversations(
    out: str | Path,
    samples: int,
    seed: int = 0,
    image_size: int = 128,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write `samples` conversations and their pictures to the folder `out`.

    Returns:
        `samples`, `scenes`, `questions` by kind, share of `yes` by kind of yes-or-no question.

    Raises:
        UserError: if `out` exists already.
    """
    bench = Workbench(_SCENES_AT_ONCE, image_size)
    asker = _Asker()
    asked: Counter[str] = Counter()
    yes: Counter[str] = Counter()
    scenes, written, round_number = 0, 0, 0
    with new_folder(out) as folder, (folder / FILE).open("w", encoding="utf-8") as file:
        (folder / PICTURES).mkdir()
        while written < samples:
            random = np.random.default_rng([seed, 0x51, round_number])
            for seen in _tables(bench, random):
                rows = asker.conversations(seen, random)[: samples - written]
                if rows:
                    names = _save(seen, folder, scenes)
                    scenes += 1
                for row in rows:
                    sample = _sample(f"{scenes - 1:06d}-{written:06d}", row, names)
                    file.write(json.dumps(sample) + "\n")
                    written += 1
                    asked.update(question.kind for question in row)
                    yes.update(question.kind for question in row if question.answer == "yes")
            round_number += 1
            if progress is not None:
                progress(written)
    return {
        "samples": written,
        "scenes": scenes,
        "questions": dict(sorted(asked.items())),
        "yes": {kind: yes[kind] / asked[kind] for kind in sorted(yes)},
    }


def random_table(random: np.random.Generator) -> Layout:
    """A table with something stacked now and then, and the arm anywhere above it."""
    layout = sample_layout(random, stacks=int(random.integers(0, 3)))
    tool = random.uniform([0.18, -0.20, 0.14, -0.5], [0.45, 0.20, 0.28, 0.5])
    return replace(layout, tool=tool)


def _tables(bench: Workbench, random: np.random.Generator) -> list[Seen]:
    """One batch of tables, those that are physically valid."""
    ids = np.arange(bench.num_envs)
    defects = bench.lay(ids, [random_table(random) for _ in ids])
    valid = np.array([sim for sim, defect in zip(ids, defects, strict=True) if not defect], int)
    return look(bench, valid)


class _Asker:
    """Asks every kind of question as often as any other, and keeps books."""

    def __init__(self) -> None:
        self._yes: Counter[str] = Counter()
        self._no: Counter[str] = Counter()
        self._coming: list[int] = []

    def conversations(self, seen: Seen, random: np.random.Generator) -> list[list[Question]]:
        """A scene's questions, grouped: those about the same views may share a conversation."""
        questions = [
            question
            for _ in range(_QUESTIONS_PER_SCENE)
            if (question := self._next(seen, random)) is not None
        ]
        groups: list[list[Question]] = []
        for question in questions:
            last = groups[-1] if groups else []
            fits = 0 < len(last) < _LONGEST and last[0].views == question.views
            fresh = question.text not in [other.text for other in last]
            if fits and fresh and random.random() < 0.5:
                last.append(question)
            else:
                groups.append([question])
        return groups

    def _next(self, seen: Seen, random: np.random.Generator) -> Question | None:
        kinds = len(OPEN) + len(YES_NO)
        if not self._coming:
            self._coming = random.permutation(kinds).tolist()
        place = self._coming.pop()
        if place < len(OPEN):
            return OPEN[place](seen, random)
        ask = YES_NO[place - len(OPEN)]
        # Whatever was said less often so far; by chance when neither was.
        lead = self._yes[ask.__name__] - self._no[ask.__name__]
        wanted = lead < 0 or (lead == 0 and bool(random.integers(2)))
        question = ask(seen, random, wanted)
        if question is not None:
            (self._yes if wanted else self._no)[ask.__name__] += 1
        return question


def _save(seen: Seen, folder: Path, scene: int) -> dict[str, str]:
    """Write a scene's pictures; their names by camera."""
    names = {}
    for camera, pixels in seen.images.items():
        names[camera] = f"{PICTURES}/{scene:06d}-{camera}.png"
        Image.fromarray(pixels).save(folder / names[camera])
    return names


def _sample(identity: str, questions: list[Question], names: dict[str, str]) -> dict[str, Any]:
    """One line of the file; several views are tagged, a single one needs no tag."""
    views = questions[0].views
    shown = [{"type": "image", "image": names[camera]} for camera in views]
    if len(views) > 1:
        shown = [part | {"view": camera} for part, camera in zip(shown, views, strict=True)]
    messages: list[dict[str, Any]] = []
    for question in questions:
        text = [{"type": "text", "text": question.text}]
        messages.append({"role": "user", "content": [*shown, *text] if not messages else text})
        messages.append({"role": "assistant", "content": question.answer})
    return {"id": identity, "kinds": [q.kind for q in questions], "messages": messages}
