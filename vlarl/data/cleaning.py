"""Filters that keep what is fit for training (paper section 3.2.1), and a report of what went.

A filter looks at one inspected episode and names the frames that it would drop, with a reason. They
compose: a frame is kept if every filter keeps it, what is left of an episode becomes one episode
for each unbroken span, and each dropped frame is counted for the first filter that dropped it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.data import defects
from vlarl.data.defects import Defect, Inspection
from vlarl.data.episode import STATE
from vlarl.data.pseudo_actions import is_gripper

STILL_SECONDS = 2.0
"""A pause is cut from this length on."""
GRIPPER_SHARE = 0.1
"""Of its usual range, below which a gripper did not move."""
_GRASPING = re.compile(r"\b(pick|grasp|grab|place|put|stack|lift|insert|drop|release)", re.I)


@dataclass(frozen=True)
class Corpus:
    """What a filter may hold an episode against."""

    fps: float
    action_names: tuple[str, ...]
    usual_ranges: NDArray[np.float64]
    """[c] of each action channel within an episode, in the median of episodes."""
    largest_ranges: NDArray[np.float64]
    """[c] the same, at most."""
    min_frames: int
    """Of a kept span."""


@dataclass(frozen=True)
class Cut:
    """Frames `first` to `last` of an episode, both included, that go."""

    filter: str
    episode: int
    first: int
    last: int
    reason: str


@dataclass
class CleaningReport:
    """What was kept and why the rest was not."""

    cuts: list[Cut] = field(default_factory=list)
    kept: list[tuple[int, int, int]] = field(default_factory=list)
    """Episode, first frame and the frame after the last of each kept span."""
    episodes: int = 0
    frames: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values; counts by filter, then every cut."""
        filters: dict[str, dict[str, int]] = {}
        for cut in self.cuts:
            row = filters.setdefault(cut.filter, {"episodes": 0, "frames": 0})
            row["frames"] += cut.last - cut.first + 1
        for name, row in filters.items():
            row["episodes"] = len({cut.episode for cut in self.cuts if cut.filter == name})
        return {
            "episodes": self.episodes,
            "frames": self.frames,
            "kept_episodes": len(self.kept),
            "kept_frames": sum(stop - start for _, start, stop in self.kept),
            "filters": filters,
            "dropped": [asdict(cut) for cut in self.cuts],
        }


Span = tuple[int, int, str]
"""First frame, the frame after the last, and why they go."""
Filter = Callable[[Inspection, Corpus], list[Span]]


def drop_broken(inspection: Inspection, corpus: Corpus) -> list[Span]:
    """An episode with a frame that is missing, corrupt or off the time grid goes."""
    return _whole(inspection, (*defects.BROKEN, defects.TIMESTAMP))


def drop_static(inspection: Inspection, corpus: Corpus) -> list[Span]:
    """An episode goes that never moves; so does each pause of two seconds in action and state."""
    whole = _whole(inspection, (defects.STATIC,))
    if whole or not inspection.is_whole:
        return whole
    moving = [inspection.motion[:, corpus.usual_ranges > 0]]
    limits = [defects.STILL * corpus.usual_ranges[corpus.usual_ranges > 0]]
    if STATE in inspection.vectors:
        # A steady command is no pause while the arm follows it.
        state = inspection.vectors[STATE]
        moving.append(state)
        limits.append(defects.STILL * np.ptp(state, axis=0))
    steps = np.concatenate(moving, axis=1)
    return [
        (first, last, f"no motion for {(last - first) / corpus.fps:.1f} s")
        for first, last in still_runs(steps, np.concatenate(limits))
        if last - first >= STILL_SECONDS * corpus.fps
    ]


def still_runs(values: NDArray[np.floating], limits: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Spans of [T, d] within which each channel stays within its limit [d] of where it began.

    Greedy from the left: every frame is in one span, single ones included.
    """
    runs, first = [], 0
    for frame in range(1, len(values) + 1):
        at_end = frame == len(values)
        if at_end or (np.abs(values[frame] - values[first]) > limits).any():
            runs.append((first, frame))
            first = frame
    return runs


def drop_odd_lengths(inspection: Inspection, corpus: Corpus) -> list[Span]:
    """An episode far shorter or longer than the others goes."""
    return _whole(inspection, (defects.LENGTH,))


def drop_wordless(inspection: Inspection, corpus: Corpus) -> list[Span]:
    """An episode whose instruction is missing, blank or unknown goes."""
    return _whole(inspection, (defects.LANGUAGE,))


def drop_inconsistent(inspection: Inspection, corpus: Corpus) -> list[Span]:
    """An episode goes that is said to grasp or release something while no gripper moves.

    Of the paper's check of language against motion, what can be told without a model.
    """
    grippers = [i for i, name in enumerate(corpus.action_names) if is_gripper(name)]
    sentence = inspection.row.instruction
    word = _GRASPING.search(sentence)
    if not grippers or word is None or not inspection.is_whole:
        return []
    moved = np.ptp(inspection.motion[:, grippers], axis=0)
    if (moved >= GRIPPER_SHARE * corpus.largest_ranges[grippers]).any():
        return []
    return [(0, inspection.row.length, f"{sentence!r}, but no gripper moves")]


FILTERS: dict[str, Filter] = {
    "frames": drop_broken,
    "static": drop_static,
    "length": drop_odd_lengths,
    "language": drop_wordless,
    "motion": drop_inconsistent,
}
"""In the order in which they are asked."""
SHORT = "short"
"""Comes last: what the others left of an episode goes if it is shorter than `min_frames`."""


def clean(
    found: Sequence[Inspection],
    fps: float,
    action_names: Sequence[str],
    filters: Sequence[str] = (*FILTERS, SHORT),
    min_frames: int = 2,
) -> CleaningReport:
    """Ask the filters about every episode.

    Args:
        found: all episodes, of `defects.inspect_dataset`.
        fps: control frequency, Hz.
        action_names: of the channels.
        filters: names of `FILTERS`, and `short`.
        min_frames: of a kept span, for `short`.
    """
    ranges = [np.ptp(each.motion, axis=0) for each in found if each.is_whole]
    usual = defects.usual_ranges(found)
    largest = np.max(ranges, axis=0) if ranges else usual
    corpus = Corpus(fps, tuple(action_names), usual, largest, min_frames)
    report = CleaningReport(episodes=len(found), frames=sum(each.row.length for each in found))
    for each in found:
        _clean_episode(each, corpus, [name for name in FILTERS if name in filters], report)
        if SHORT in filters:
            _drop_short(each.row.index, corpus, report)
    return report


def _clean_episode(
    inspection: Inspection, corpus: Corpus, names: Sequence[str], report: CleaningReport
) -> None:
    keeps = np.ones(inspection.row.length, np.bool_)
    for name in names:
        for start, stop, reason in FILTERS[name](inspection, corpus):
            for first, after in _spans(keeps[start:stop]):
                place = (start + first, start + after - 1)
                report.cuts.append(Cut(name, inspection.row.index, *place, reason))
            keeps[start:stop] = False
    report.kept += [(inspection.row.index, *span) for span in _spans(keeps)]


def _drop_short(episode: int, corpus: Corpus, report: CleaningReport) -> None:
    for number, start, stop in [span for span in report.kept if span[0] == episode]:
        if stop - start < corpus.min_frames:
            report.kept.remove((number, start, stop))
            words = f"{stop - start} frames are less than min_frames={corpus.min_frames}"
            report.cuts.append(Cut(SHORT, number, start, stop - 1, words))


def _whole(inspection: Inspection, kinds: Sequence[str]) -> list[Span]:
    """All of the episode if it has a defect of one of `kinds`."""
    found: list[Defect] = [each for each in inspection.defects if each.kind in kinds]
    if not found:
        return []
    at = "" if found[0].frame is None else f"frame {found[0].frame}: "
    return [(0, inspection.row.length, f"{found[0].kind}: {at}{found[0].message}")]


def _spans(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Unbroken spans of True, as start and stop."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
