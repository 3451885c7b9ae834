"""Suites whose simulators cannot be installed here, made runnable by stand-ins (`stand_ins/arms/`).

Stand-ins have the modules, names, signatures, keys, shapes and types that the simulator's source
shows; adapters run against them unchanged.
"""

import os
import shutil
from pathlib import Path

from envservers.robocasa_gr1.suite import SCENES
from vlarl.config.paths import configs_folder

RECORDED = Path(__file__).parent / "stand_ins" / "arms"
ARMS = ["place_shoe", "click_bell"]


def lay_out(folder):
    """Copy the stand-ins there, with folders for scenes; returns the options of each suite."""
    site = folder / "site"
    shutil.copytree(RECORDED, site, ignore=shutil.ignore_patterns("__pycache__", "domino"))
    checkout = folder / "DOMINO"
    shutil.copytree(RECORDED / "domino", checkout, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SCENES:
        (site / "robocasa_gr1" / "models" / "assets" / name).mkdir(parents=True)
    assets = folder / "robotwin-assets"
    for name in ("background_texture", "objects"):
        (assets / "assets" / name).mkdir(parents=True)
    shutil.copytree(checkout / "assets", assets / "assets", dirs_exist_ok=True)
    return {
        "robocasa-gr1": {},
        "robotwin": {"assets": str(assets), "tasks": ARMS},
        "domino": {"checkout": str(checkout), "tasks": ARMS},
    }


def environment(folder):
    """Variables with which a server finds the stand-ins, and draws nothing by OpenGL."""
    root = str(configs_folder().parent)
    path = [root, str(folder / "site"), os.environ.get("PYTHONPATH", "")]
    # Taken at its word, so that no driver is tried.
    return {"PYTHONPATH": os.pathsep.join(filter(None, path)), "MUJOCO_GL": "glfw"}
