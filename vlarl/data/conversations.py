"""Vision-language samples: conversations about any number of images (paper section 3.2.5).

Two formats, told apart by the file's name:

- `.json`, as LLaVA has it: a list of `{"id", "image" | "images", "conversations": [{"from":
  "human" | "gpt", "value"}]}`, where each `<image>` in a value stands for the next image. `views`
  and `seconds`, lists as long as `images`, may name cameras and times.
- `.jsonl`, one `{"id", "messages": [{"role", "content"}]}` a line; content is a string or a list of
  `{"type": "text", "text"}` and `{"type": "image", "image", "view"?, "seconds"?}`.

Images are files beside the set. A `.jsonl` may be larger than memory: what is kept of it is where
each line starts. Every defect is a `UserError` with file, line (or entry) and the sample's id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.data.pictures import Picture
from vlarl.errors import UserError

PLACEHOLDER = "<image>"
ROLES = ("system", "user", "assistant")
_LLAVA_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


@dataclass(frozen=True)
class Turn:
    """What one side says: pieces of text and pictures, in order."""

    role: str
    content: tuple[str | Picture, ...]


@dataclass(frozen=True)
class Conversation:
    """One sample: perhaps a system turn, then user and assistant in turns, the assistant last.

    Raises:
        ValueError: for an unknown role, roles out of order, no assistant turn, a turn that says
            nothing, or a picture outside the user's turns.
    """

    identity: str
    turns: tuple[Turn, ...]
    place: str = ""
    """File and line it comes from, for messages."""

    def __post_init__(self) -> None:
        roles = [turn.role for turn in self.turns]
        unknown = [role for role in roles if role not in ROLES]
        if unknown:
            raise ValueError(f"role {unknown[0]!r} is unknown; allowed: {', '.join(ROLES)}")
        if "assistant" not in roles:
            raise ValueError("no assistant turn: there is nothing to learn")
        spoken = roles[1:] if roles[0] == "system" else roles
        if spoken != ["user", "assistant"] * (len(spoken) // 2):
            raise ValueError(
                f"roles are {', '.join(roles)}; user and assistant must take turns, the user "
                "first and the assistant last, after at most one system turn"
            )
        for number, turn in enumerate(self.turns, 1):
            if not any(isinstance(p, Picture) or p.strip() for p in turn.content):
                raise ValueError(f"turn {number} ({turn.role}) is empty")
            if turn.role != "user" and any(isinstance(p, Picture) for p in turn.content):
                raise ValueError(f"turn {number} ({turn.role}) shows an image; only users may")

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them, in the order in which they are shown."""
        return tuple(p for turn in self.turns for p in turn.content if isinstance(p, Picture))


class ConversationSet:
    """A file of conversations; each is read, and held against the rules, when it is asked for.

    Raises:
        UserError: if the file is missing, of another kind, no JSON, or empty.
    """

    def __init__(self, path: str | Path) -> None:
        """Find out where the samples are; their content is not looked at yet."""
        self.path = Path(path)
        if self.path.suffix not in (".json", ".jsonl"):
            raise UserError(
                f"{self.path}: conversations are read from .json (LLaVA's format) or .jsonl"
            )
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file of conversations")
        self._entries: list[Any] = []
        self._lines, self._offsets = np.zeros((2, 0), np.int64)
        if self.path.suffix == ".json":
            self._entries = _entries(self.path)
        else:
            self._lines, self._offsets = _line_starts(self.path)
        if not len(self):
            raise UserError(f"{self.path} holds no conversations")

    def __len__(self) -> int:
        return len(self._entries) or len(self._offsets)

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Conversation:
        """Sample `index`.

        Raises:
            UserError: naming file, line, sample and what is wrong with it.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._entries:
            place, entry = f"{self.path}, entry {index + 1}", self._entries[index]
        else:
            place = f"{self.path}, line {self._lines[index]}"
            entry = self._line(index, place)
        if not isinstance(entry, dict):
            raise UserError(f"{place}: {entry!r:.60} is no sample: it must be a JSON object")
        identity = str(entry.get("id", index))
        read = _llava_turns if self.path.suffix == ".json" else _message_turns
        try:
            return Conversation(identity, read(entry, self.path.parent), place)
        except ValueError as error:
            raise UserError(f"{place}, sample {identity!r}: {error}") from error

    def _line(self, index: int, place: str) -> Any:
        with self.path.open("rb") as file:
            file.seek(int(self._offsets[index]))
            try:
                return json.loads(file.readline())
            except ValueError as error:
                raise UserError(f"{place}: no JSON: {error}") from error


def _entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: no JSON: {error}") from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: a list of samples is expected; one object a line is .jsonl")
    return entries


def _line_starts(path: Path) -> NDArray[np.int64]:
    """[2, samples] number (from 1) and byte offset of every line that is not blank."""
    found, offset = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                found.append((number, offset))
            offset += len(line)
    return np.array(found, np.int64).reshape(-1, 2).T


def _llava_turns(entry: Mapping[str, Any], folder: Path) -> tuple[Turn, ...]:
    names = entry.get("images", entry.get("image", []))
    names = [names] if isinstance(names, str) else names
    details = {}
    for key in ("views", "seconds"):
        details[key] = entry.get(key, [None] * len(names))
        if len(details[key]) != len(names):
            raise ValueError(f"{len(details[key])} {key} for {len(names)} images")
    pictures = [
        _picture(folder, *described)
        for described in zip(names, details["views"], details["seconds"], strict=True)
    ]
    turns: list[Turn] = []
    shown = 0
    for turn in _rows(entry, "conversations", ("from", "value")):
        if turn["from"] not in _LLAVA_ROLES:
            allowed = ", ".join(_LLAVA_ROLES)
            raise ValueError(f"from = {turn['from']!r} is unknown; allowed: {allowed}")
        pieces = str(turn["value"]).split(PLACEHOLDER)
        content: list[str | Picture] = [pieces[0]]
        for piece in pieces[1:]:
            content += [*pictures[shown : shown + 1], piece]
            shown += 1
        turns.append(Turn(_LLAVA_ROLES[turn["from"]], _tidy(content)))
    if shown != len(pictures):
        raise ValueError(f"{shown} {PLACEHOLDER} placeholders for {len(pictures)} images")
    return tuple(turns)


def _message_turns(entry: Mapping[str, Any], folder: Path) -> tuple[Turn, ...]:
    if "images" in entry or "image" in entry:
        raise ValueError("images of messages stand in their content: {type: image, image: FILE}")
    turns = []
    for message in _rows(entry, "messages", ("role", "content")):
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise ValueError(f"content is {parts!r:.60}, neither text nor a list of parts")
        turns.append(Turn(message["role"], _tidy([_part(part, folder) for part in parts])))
    return tuple(turns)


def _part(part: Any, folder: Path) -> str | Picture:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in ("text", "image") or not isinstance(part.get(kind), str):
        raise ValueError(f"part {part!r:.80} must be a text or an image: {{type, text | image}}")
    if kind == "text":
        return str(part["text"])
    return _picture(folder, part["image"], part.get("view"), part.get("seconds"))


def _picture(folder: Path, name: Any, view: Any, seconds: Any) -> Picture:
    if not isinstance(name, str):
        raise ValueError(f"image {name!r:.60} is no file name")
    if view is not None and not isinstance(view, str):
        raise ValueError(f"view {view!r} of image {name} is no name")
    if seconds is not None and not isinstance(seconds, int | float):
        raise ValueError(f"seconds {seconds!r} of image {name} is no number")
    return Picture.open(folder / name, view or "", None if seconds is None else float(seconds))


def _rows(entry: Mapping[str, Any], key: str, needed: tuple[str, str]) -> list[dict[str, Any]]:
    """The turns of a sample, each with the keys it needs."""
    rows = entry.get(key)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"no {key}: a list of turns is needed")
    for row in rows:
        if not isinstance(row, dict) or not set(needed) <= row.keys():
            raise ValueError(f"turn {row!r:.60} needs {' and '.join(needed)}")
        if not isinstance(row[needed[0]], str):
            raise ValueError(f"{needed[0]} = {row[needed[0]]!r:.60} is no name")
    return rows


def _tidy(content: list[str | Picture]) -> tuple[str | Picture, ...]:
    """Without white space at the turn's ends, where the chat template has its own."""
    tidied = list(content)
    if tidied and isinstance(tidied[0], str):
        tidied[0] = tidied[0].lstrip()
    if tidied and isinstance(tidied[-1], str):
        tidied[-1] = tidied[-1].rstrip()
    return tuple(piece for piece in tidied if piece != "")
