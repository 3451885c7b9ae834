"""Successful motion programs as LeRobot datasets, whole and in segments, with captions.

DIR/full            each trajectory with the instruction of its task
DIR/segments        its stages (where there are several) and their motions, pick and place
DIR/captions.jsonl  frames of each trajectory, and step by step what happens (section 3.2.5)
DIR/report.json     what was tried, and why it failed
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actors.synthesis.motions import MotionStudio, Recording
from actors.synthesis.output import new_folder
from envservers.tabletop.facts import region
from envservers.tabletop.renderer import CAMERAS
from vlarl.config.embodiments import load_embodiment
from vlarl.data.episode import Episode
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.errors import UserError
from vlarl.types import CameraSpec

FULL, SEGMENTS, CAPTIONS, REPORT = "full", "segments", "captions.jsonl", "report.json"
EMBODIMENT = "tabletop_arm"
_PICTURES = "images"
_TABLES_AT_ONCE = 16
_FRAMES = 8
"""Frames of a captioned trajectory."""
_TURNED = 10.0
"""Degrees of the gripper from which a caption mentions them."""
_MAX_TABLES = 20
"""Tables for each wanted episode after which the search is given up."""


@dataclass(frozen=True)
class Segment:
    """A part of a trajectory that has an instruction of its own."""

    level: str
    """`stage` (one object from here to there) or `motion` (the picking or the placing of it)."""
    instruction: str
    stage: int
    first: int
    end: int
    """Frames `first` to `end - 1`."""


def synthesize_motions(
    out: str | Path,
    episodes: int,
    horizon: str = "both",
    seed: int = 0,
    image_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write `episodes` successful trajectories, their segments and captions to the folder `out`.

    Returns:
        `episodes`, `frames`, `segments`, `kinds`, `failures` by reason, `tables` (tried) and
        `surplus`: successes of the last batch beyond what was wanted.

    Raises:
        UserError: if `out` exists already, or nearly everything fails.
    """
    studio = MotionStudio(_TABLES_AT_ONCE, image_size, horizon, seed)
    kinds: Counter[str] = Counter()
    kept = frames = segments = 0
    with new_folder(out) as folder:
        with ExitStack() as stack:
            full, parts = (
                stack.enter_context(_writer(folder / name, image_size)) for name in (FULL, SEGMENTS)
            )
            captions = stack.enter_context((folder / CAPTIONS).open("w", encoding="utf-8"))
            (folder / _PICTURES).mkdir()
            while kept < episodes:
                if studio.tables >= _MAX_TABLES * episodes + 10 * _TABLES_AT_ONCE:
                    raise UserError(
                        f"{studio.tables} tables gave {kept} of {episodes} episodes: "
                        f"{dict(studio.failures)}"
                    )
                for recording in studio.round()[: episodes - kept]:
                    full.add(_whole(recording))
                    for segment in cut(recording):
                        parts.add(_part(recording, segment, kept))
                        segments += 1
                    captions.write(json.dumps(_captioned(recording, folder, kept)) + "\n")
                    kinds[recording.program.kind] += 1
                    kept, frames = kept + 1, frames + len(recording)
                if progress is not None:
                    progress(kept)
        result = {
            "episodes": kept,
            "frames": frames,
            "segments": segments,
            "tables": studio.tables,
            "kinds": dict(sorted(kinds.items())),
            "failures": dict(sorted(studio.failures.items())),
            "surplus": studio.tables - kept - studio.failures.total(),
        }
        (folder / REPORT).write_text(json.dumps(result, indent=2))
    return result


def cut(recording: Recording) -> Iterator[Segment]:
    """The segments of a trajectory, in order; the whole is none of them."""
    name = recording.layout.name
    for index, stage in enumerate(recording.program.stages):
        first, grasped, end = recording.bounds(index)
        thing = name(stage.carried)
        if len(recording.program.stages) > 1:
            yield Segment("stage", f"put the {thing} {stage.where}", index, first, end)
        yield Segment("motion", f"pick up the {thing}", index, first, grasped)
        yield Segment("motion", f"place the {thing} {stage.where}", index, grasped, end)


def caption(recording: Recording) -> str:
    """Step by step, from where to where, with the turn of the gripper, as Table 3 shows."""
    name, steps = recording.layout.name, []
    for index, stage in enumerate(recording.program.stages):
        before, after = recording.facts[index], recording.facts[index + 1]
        _, grasped, _ = recording.bounds(index)
        degrees = float(np.degrees(recording.states[grasped - 1][-1]))
        turn = ""
        if abs(degrees) > _TURNED:
            way = "counterclockwise" if degrees > 0 else "clockwise"
            turn = f", the gripper turned {round(abs(degrees), -1):.0f} degrees {way} (from above)"
        thing = name(stage.carried)
        steps.append(f"Pick up the {thing} from the {region(before, stage.carried)}{turn}.")
        steps.append(f"Place it {stage.where}, at the {region(after, stage.carried)}.")
    return " ".join(f"Step {number}: {text}" for number, text in enumerate(steps, 1))


def _writer(path: Path, image_size: int) -> LeRobotWriter:
    embodiment = load_embodiment(EMBODIMENT)
    return LeRobotWriter(
        path,
        fps=embodiment.control_hz,
        cameras=[CameraSpec(camera, image_size, image_size) for camera in CAMERAS],
        action_names=[channel.name for channel in embodiment.channels],
        state_dim=11,
        robot_type=embodiment.name,
    )


def _whole(recording: Recording) -> Episode:
    program, controller = recording.program, recording.layout.controller
    extra: dict[str, int | float | str | bool] = {
        "kind": program.kind,
        "horizon": program.horizon,
        "stages": len(program.stages),
        "success_test": program.to_json(),
        "pace": controller.pace,
        "stiffness": controller.stiffness,
        "damping": controller.damping,
        "action_noise": controller.action_noise,
    }
    return _episode(recording, 0, len(recording), program.instruction, extra)


def _part(recording: Recording, segment: Segment, number: int) -> Episode:
    extra: dict[str, int | float | str | bool] = {
        "full_episode": number,
        "first_frame": segment.first,
        "level": segment.level,
        "stage": segment.stage,
    }
    return _episode(recording, segment.first, segment.end, segment.instruction, extra)


def _episode(
    recording: Recording,
    first: int,
    end: int,
    instruction: str,
    extra: dict[str, int | float | str | bool],
) -> Episode:
    return Episode(
        images={camera: np.stack(own[first:end]) for camera, own in recording.images.items()},
        state=np.stack(recording.states[first:end]),
        action=np.stack(recording.actions[first:end]),
        instruction=instruction,
        extra=extra,
    )


def _captioned(recording: Recording, folder: Path, number: int) -> dict[str, Any]:
    """A conversation about frames of the fixed camera, which it writes beside it."""
    frames = np.unique(np.linspace(0, len(recording) - 1, _FRAMES).round().astype(int))
    rate, shown = load_embodiment(EMBODIMENT).control_hz, []
    for frame in frames.tolist():
        name = f"{_PICTURES}/{number:06d}-{frame:03d}.png"
        Image.fromarray(recording.images[CAMERAS[0]][frame]).save(folder / name)
        shown.append({"type": "image", "image": name, "seconds": round(frame / rate, 3)})
    text = {"type": "text", "text": "Describe step by step what the robot does."}
    messages = [
        {"role": "user", "content": [*shown, text]},
        {"role": "assistant", "content": caption(recording)},
    ]
    return {"id": f"{number:06d}", "instruction": recording.program.instruction} | {
        "messages": messages
    }
