"""Data of `bench_stages.py`, made by the project's own commands and kept in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.collect import collect
from actors.commands import synth_t2a
from actors.commands.command import Invocation
from actors.synthesis.vision_language import synthesize_conversations
from envservers.tabletop.tasks import TASKS
from vlarl.config.data_schema import CollectConfig
from vlarl.progress import Progress

HELD_OUT = "carrot_on_plate"
"""The task that no stage before SFT has seen."""
_KNOWN = tuple(task.name for task in TASKS if task.name != HELD_OUT)
_CLUMSY: dict[str, Any] = {
    "waypoint_noise": 0.005,
    "action_noise": 0.03,
    "slowest_pace": 0.25,
    "clumsy_steps": 24,
    "max_steps": 144,
}
"""Demonstrators, as of the policy that ships (`configs/sft/tabletop.yaml`)."""
_SIZES = {
    "pretraining": 600,
    "turned": 400,
    "navigation": 120,
    "synthetic": 3600,
    "questions": 3000,
    "turned_few": 40,
}
_FEW = {
    "pretraining": 6,
    "turned": 8,
    "navigation": 4,
    "synthetic": 36,
    "questions": 24,
    "turned_few": 4,
}


def data_in(folder: Path, few: bool = False) -> Mapping[str, tuple[str, ...]]:
    """Stage -> settings that name its data, which are made unless they are there already."""
    sizes = _FEW if few else _SIZES
    path = {name: folder / "data" / name for name in sizes}
    demonstrated: tuple[tuple[str, str, tuple[str, ...], dict[str, Any]], ...] = (
        ("pretraining", "tabletop", _KNOWN, {}),
        ("turned", "tabletop", (), {"frame": "base"}),
        ("navigation", "navigation", (), {}),
        ("turned_few", "tabletop", (), {"frame": "base"}),
    )
    for seed, (name, suite, tasks, options) in enumerate(demonstrated):
        noise = {} if suite == "navigation" else _CLUMSY
        wanted = CollectConfig(episodes=sizes[name], seed=seed, **noise)
        if not path[name].exists():
            with Progress(name, wanted.episodes, "episodes") as progress:
                collect(
                    suite,
                    path[name],
                    wanted,
                    tasks,
                    progress=lambda kept, _wanted, shown=progress: shown.reach(kept),
                    options=options,
                )
    if not path["questions"].exists():
        with Progress("questions", sizes["questions"], "samples") as progress:
            synthesize_conversations(
                path["questions"], sizes["questions"], image_size=64, progress=progress.reach
            )
    if not path["synthetic"].exists():
        wanted_here = {"out": str(path["synthetic"]), "trajectories": str(sizes["synthetic"])}
        synth_t2a.run(Invocation(settings=wanted_here))
    mixture = "supervised.data.mixture"
    return {
        "t2a": (
            f"supervised.data.t2a.synthetic={path['synthetic']}",
            f"supervised.data.t2a.real={path['pretraining']}",
        ),
        "images": (f"supervised.data.path={path['pretraining']}",),
        "cpt": (
            f"{mixture}.tabletop.path={path['pretraining']}",
            f"{mixture}.navigation.path={path['navigation']}",
            f"{mixture}.questions.path={path['questions']}/conversations.jsonl",
        ),
        "sft": (f"supervised.data.path={path['turned']}",),
        "few": (f"supervised.data.path={path['turned_few']}",),
    }
