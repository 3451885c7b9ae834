"""Every suite: where its class is, what it needs, about how much memory it takes.

Data alone; what is looked up in it, and checked by it, is `registry.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SuiteEntry:
    """Where a suite's class lives, and about how much memory it takes."""

    module: str
    class_name: str
    process_mib: int
    """MiB of interpreter, libraries and whatever all environments of a process share."""
    env_kib: int
    """KiB of each environment, without its images."""
    pixel_bytes: int
    """For each of the `image_size ** 2` pixels of an environment, all cameras together."""
    scene_mib: int = 0
    """MiB of each task's scene, where environments of the same task share one."""
    scenes: int = 0
    """Those that a process keeps even with fewer environments, if it plays so many tasks."""
    environment: str = ""
    """The virtual environment that the suite's processes run in (`envservers.environments`); empty:
    this one."""
    graphics: str = ""
    """`opengl` or `vulkan`, if it cannot be without; looked for before a process is started."""
    experts: bool = False
    """Whether its servers have scripted experts (`expert_actions`) of its tasks."""
    check: str = ""
    """Function of the module that is called with the suite where its simulator is installed, before
    the first instance is made: raises UserError for what is missing, such as a folder of scenes."""
    start_seconds: float = 60.0
    """Until a server of it is ready, at most."""
    metrics: tuple[str, ...] = ()
    """Those of `TimeStep.info` that the suite's published tables hold beside success: what they are
    when an episode ends."""
    groups: str = ""
    """The module whose `GROUPS` (`envservers.task_groups`) names several tasks at once."""

    def kept_scenes(self, tasks: int, num_envs: int) -> int:
        """Scenes that a process with so many environments keeps of so many tasks."""
        return min(tasks, max(self.scenes, num_envs))


# Of our own: peak resident memory over 1 to 256 environments with images of 8 to 512 pixels, then
# rounded up. Tabletop: 125 bytes a pixel while rays are cast (directions and normals of 24 each,
# distances, geoms, shades, two cameras' colors); counting: 34. On top of it come the image ring
# (4 slots of 2 x 3 bytes) and the copy that its reader takes (6). Gymnasium environments are too
# different to be measured: each is granted 4 MiB, and its images what the counting suite's need.
_OWN = {
    "tabletop": SuiteEntry("envservers.tabletop.suite", "TabletopSuite", 60, 64, 160),
    "navigation": SuiteEntry(
        "envservers.navigation.suite", "NavigationSuite", 60, 64, 160, metrics=("spl",)
    ),
    "counting": SuiteEntry("envservers.counting", "CountingSuite", 30, 16, 64),
    "gym": SuiteEntry("envservers.gym_suite", "GymSuite", 60, 4096, 64),
}
# MetaWorld: 200 MiB of libraries and 70 MiB for each task's scene, of which there are at most four
# more than slots. LIBERO: 572 MiB with its first scene, about 190 for each further one, of ten.
# ManiSkill: torch, SAPIEN and a software renderer's first scene made 1180 MB, each further one 4.
_RUN = {
    "metaworld": SuiteEntry(
        "envservers.metaworld.suite",
        "MetaWorldSuite",
        process_mib=480,
        env_kib=72 * 1024,
        pixel_bytes=64,
        environment="metaworld",
        graphics="opengl",
        experts=True,
        groups="envservers.metaworld.groups",
    ),
    "libero": SuiteEntry(
        "envservers.libero.suite",
        "LiberoSuite",
        process_mib=760,
        env_kib=1024,
        pixel_bytes=64,
        scene_mib=160,
        scenes=10,
        environment="libero",
        graphics="opengl",
        experts=True,
        start_seconds=180.0,
        groups="envservers.libero.groups",
    ),
    "maniskill": SuiteEntry(
        "envservers.maniskill.suite",
        "ManiSkillSuite",
        process_mib=1300,
        env_kib=16 * 1024,
        pixel_bytes=160,
        environment="maniskill",
        graphics="vulkan",
        experts=True,
        start_seconds=600.0,
        groups="envservers.maniskill.groups",
    ),
}
# Never run here: estimates. Of VLN-CE's buildings, each of hundreds of megabytes, two are kept.
_ESTIMATED = {
    "simpler-widowx": SuiteEntry(
        "envservers.maniskill.widowx",
        "WidowXSuite",
        process_mib=1300,
        env_kib=64 * 1024,
        pixel_bytes=160,
        environment="maniskill",
        graphics="vulkan",
        check="check_scenes",
        start_seconds=600.0,
        groups="envservers.maniskill.tasks",
    ),
    "simpler-env": SuiteEntry(
        "envservers.simpler.suite",
        "SimplerSuite",
        process_mib=1500,
        env_kib=300 * 1024,
        pixel_bytes=64,
        environment="simpler-env",
        graphics="vulkan",
        check="check",
        start_seconds=180.0,
        groups="envservers.simpler.groups",
    ),
    "robocasa-gr1": SuiteEntry(
        "envservers.robocasa_gr1.suite",
        "RobocasaGr1Suite",
        process_mib=1500,
        env_kib=500 * 1024,
        pixel_bytes=64,
        environment="robocasa-gr1",
        graphics="opengl",
        check="check",
        start_seconds=300.0,
        groups="envservers.robocasa_gr1.tasks",
    ),
    "robotwin": SuiteEntry(
        "envservers.robotwin.suite",
        "RoboTwinSuite",
        process_mib=4000,
        env_kib=500 * 1024,
        pixel_bytes=192,
        environment="robotwin",
        graphics="vulkan",
        check="check",
        start_seconds=300.0,
        groups="envservers.robotwin.tasks",
    ),
    "domino": SuiteEntry(
        "envservers.domino.suite",
        "DominoSuite",
        process_mib=4000,
        env_kib=500 * 1024,
        pixel_bytes=192,
        environment="robotwin",
        graphics="vulkan",
        check="check",
        start_seconds=300.0,
        metrics=("manipulation_score", "route_completion"),
        groups="envservers.domino.tasks",
    ),
    "calvin": SuiteEntry(
        "envservers.calvin.suite",
        "CalvinSuite",
        process_mib=600,
        env_kib=150 * 1024,
        pixel_bytes=64,
        environment="calvin",
        graphics="opengl",
        check="check",
        start_seconds=120.0,
        metrics=("tasks_done",),
        groups="envservers.calvin.groups",
    ),
    "vln-ce": SuiteEntry(
        "envservers.vlnce.suite",
        "VlnSuite",
        process_mib=3000,
        env_kib=1024,
        pixel_bytes=64,
        environment="vln-ce",
        graphics="opengl",
        check="check",
        start_seconds=180.0,
        metrics=("distance_to_goal", "oracle_success", "spl", "ndtw"),
        groups="envservers.vlnce.groups",
    ),
}
SUITES = _OWN | _RUN | _ESTIMATED
"""Name -> entry; `gym` stands for every `gym:ID`."""
