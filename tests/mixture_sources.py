"""Small sources of every kind, written for tests of mixtures."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from recorded_hands import make_tracks, write

from actors.collect import collect
from vlarl.config.data_schema import CollectConfig
from vlarl.data.hand_fit import fit_hands
from vlarl.data.lerobot_reader import LeRobotReader

SIZE = 32
NAMES = ("tabletop", "navigation", "hands", "conversations")


def write_conversations(file: Path, count: int = 5) -> Path:
    """Samples of different lengths, with none, one or two images of different sizes."""
    rows = []
    for number in range(count):
        shown = []
        for picture in range(number % 3):
            name = f"{number}_{picture}.png"
            Image.new("RGB", (40 + 30 * number, 40), (9 * number, 0, 0)).save(file.parent / name)
            shown.append({"type": "image", "image": name})
        shown.append({"type": "text", "text": "What is it? " * (1 + 3 * number)})
        answer = {"role": "assistant", "content": "a plate " * (number + 1)}
        messages = [{"role": "user", "content": shown}, answer]
        rows.append(json.dumps({"id": f"s{number}", "messages": messages}))
    file.write_text("\n".join(rows))
    return file


def write_sources(folder: Path) -> list[str]:
    """All of `NAMES`, and the overrides that name them."""
    few = CollectConfig(episodes=2, seed=1)
    for suite in ("tabletop", "navigation"):
        collect(suite, folder / suite, few, num_envs=2, image_size=SIZE)
    write(folder / "hands", make_tracks(2, 24))
    fit = fit_hands(LeRobotReader(folder / "hands"), 16)
    (folder / "hands.json").write_text(json.dumps(fit))
    write_conversations(folder / "conversations.jsonl")
    key = "supervised.data.mixture"
    paths = [f"{key}.{name}.path={folder / name}" for name in NAMES[:3]]
    return [
        *paths,
        f"{key}.conversations.path={folder}/conversations.jsonl",
        f"{key}.hands.eigengrasps={folder}/hands.json",
    ]
