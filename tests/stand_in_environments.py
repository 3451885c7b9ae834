"""Simulators that cannot be installed here, replaced by the stand-ins under `stand_ins/`.

Each gets a virtual environment of its own with the stand-in in it, and the files that its adapter
looks for, so that everything but the simulator itself is what users run.
"""

import gzip
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import yaml

from envservers import environments
from envservers.calvin.tasks import RULES

RECORDED = Path(__file__).parent / "stand_ins"
MODULES = {"vln-ce": "habitat", "calvin": "pybullet", "simpler-env": ""}
"""Suite -> folder of what is installed into its environment."""
SCENE = "mp3d/room/room.glb"


def make_environment(name):
    """The environment of a suite in the home that `VLARL_SUITES` names, and its assets."""
    folder = environments.folder(name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    module = MODULES.get(name, "")
    paths = [
        sysconfig.get_path("purelib"),
        *([str(RECORDED / module)] * bool(module)),
    ]
    (site / "recorded.pth").write_text("\n".join(paths) + "\n")
    digest = environments.requirements_digest(name)
    environments.write_record(environments.Installed(name, digest, "3.11", (), "2026-01-01"))
    make = {"vln-ce": make_walks, "calvin": make_table, "simpler-env": make_clone}.get(name)
    if make is not None:
        make(environments.assets(name))


def make_clone(folder):
    """SimplerEnv's repository, in the places of its own."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(RECORDED / "simpler-env")


def make_table(folder):
    """CALVIN's repository: code, tasks, sentences, and the description of a dataset."""
    conf = folder / "calvin_models" / "conf"
    tasks = {task: ["never"] for task in RULES}
    tasks["open_drawer"] = ["move_door_rel", "base__drawer", 0.12]
    tasks["close_drawer"] = ["move_door_rel", "base__drawer", -0.12]
    files = {
        conf / "callbacks/rollout/tasks/new_playtable_tasks.yaml": {"tasks": tasks},
        conf / "annotations/new_playtable_validation.yaml": {
            task: [f"please {task.replace('_', ' ')}"] for task in RULES
        },
        folder / "dataset/task_ABC_D/validation/.hydra/merged_config.yaml": {},
    }
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content))
    (folder / "calvin_env").symlink_to(RECORDED / "calvin" / "calvin_env")


def make_walks(folder, count=6):
    """Episodes of R2R and RxR in one room: the n-th begins at x = n and leads 5 m along -z."""
    scene = folder / "scene_datasets" / SCENE
    scene.parent.mkdir(parents=True)
    scene.touch()
    bases = {
        "R2R_VLNCE_v1-3_preprocessed": "{split}",
        "RxR_VLNCE_v0": "{split}_guide",
    }
    for base, stem in bases.items():
        for split, language in (("val_unseen", "en-US"), ("train", "en-IN")):
            place = folder / "datasets" / base / split
            place.mkdir(parents=True)
            episodes = [walk(n, split, language) for n in range(count)]
            # Another language, which R2R does not say and RxR's tables leave out.
            episodes.insert(0, walk(99, split, "hi-IN"))
            if base.startswith("R2R"):
                episodes = [without_language(episode) for episode in episodes[1:]]
            truth = {
                str(n): {"locations": [[n, 0, 2.5 - i] for i in range(6)]}
                for n in (*range(count), 99)
            }
            name = stem.format(split=split)
            write(place / f"{name}.json.gz", {"episodes": episodes})
            write(place / f"{name}_gt.json.gz", truth)


def walk(number, split, language):
    """An episode as VLN-CE's files have it."""
    return {
        "episode_id": number,
        "scene_id": SCENE,
        "start_position": [number, 0, 2.5],
        "start_rotation": [0, 0, 0, 1],
        "goals": [{"position": [number, 0, -2.5], "radius": 3.0}],
        "info": {"geodesic_distance": 5.0},
        "instruction": {
            "instruction_text": f"Walk {number} in {split}. ",
            "language": language,
        },
    }


def without_language(episode):
    """The episode, as R2R's files have it."""
    words = {"instruction_text": episode["instruction"]["instruction_text"]}
    return {**episode, "instruction": words}


def write(file, content):
    """Write compressed JSON."""
    with gzip.open(file, "wt") as stream:
        json.dump(content, stream)
