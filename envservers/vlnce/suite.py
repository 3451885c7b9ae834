"""VLN-CE as a suite: its spec, and agents that share buildings."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from envservers import environments
from envservers.held_out import HELD_OUT
from envservers.options import check_least
from envservers.slot_suite import SlotSuite
from envservers.vlnce.dataset import Dataset
from envservers.vlnce.scenes import Buildings
from envservers.vlnce.simulator import VlnSimulator
from envservers.vlnce.tasks import MAX_ACTIONS, find_benchmark
from vlarl.errors import UserError
from vlarl.types import CameraSpec, Channel, EnvSpec

CONTROL_HZ = 2.0
_STATE_DIM = 3
_CHANNELS = (
    Channel("dx", "m", "waypoint", -2.0, 2.0),
    Channel("dy", "m", "waypoint", -2.0, 2.0),
    Channel("dtheta", "rad", "waypoint", -3.1416, 3.1416),
)


class VlnSuite(SlotSuite):
    """`num_envs` slots of one of VLN-CE's benchmarks.

    Args:
        num_envs: slots.
        image_size: height of the camera's picture, in pixels; its width follows the benchmark's.
        benchmark: `r2r` or `rxr`.
        tasks: the benchmark's name; nothing else.
        split: whose episodes the held-out seeds are.
        training_split: from which the other seeds draw.
        max_steps: waypoints until truncation (0: 500).
        data: folder that holds `datasets` and `scene_datasets` (default: where `vlarl suite list`
            says).
        scenes: buildings kept in memory at once.
        terminate_on_success: whether a stop at the goal ends the episode; one elsewhere always
            does.

    Raises:
        UserError: for a benchmark or task that there is none of, or a number that is not positive.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        benchmark: str = "r2r",
        tasks: Sequence[str] | None = None,
        split: str = "val_unseen",
        training_split: str = "train",
        max_steps: int = 0,
        data: str = "",
        scenes: int = 2,
        terminate_on_success: bool = True,
    ) -> None:
        own = find_benchmark(benchmark)
        if tasks is not None and list(tasks) != [benchmark]:
            raise UserError(
                f"tasks = {list(tasks)}: the one task of benchmark={benchmark} is "
                f"{benchmark!r}; the other benchmark is another suite: benchmark=r2r or rxr"
            )
        check_least(1, image_size=image_size, scenes=scenes)
        height, width = image_size, image_size * own.aspect[1] // own.aspect[0]
        spec = EnvSpec(
            suite="vln-ce",
            tasks=(benchmark,),
            cameras=(CameraSpec("ego", height, width),),
            channels=_CHANNELS,
            embodiment="vln_agent",
            control_hz=CONTROL_HZ,
            max_steps=max_steps or MAX_ACTIONS,
            state_dim=_STATE_DIM,
        )
        folder = Path(data).expanduser() if data else environments.assets("vln-ce")
        self.dataset = Dataset(folder, own, split, training_split)
        self._buildings = Buildings(own, height, width, scenes)
        turn = math.radians(own.turn)
        super().__init__(
            num_envs,
            spec,
            lambda: VlnSimulator(self.dataset, self._buildings, turn),
            terminate_on_success,
        )

    def load(self) -> None:
        """Open the first building now, so that what is missing shows before anybody waits."""
        self._buildings.enter(self.dataset.scene_file(self.dataset.episode(HELD_OUT)))

    def close(self) -> None:
        """Close every building."""
        super().close()
        self._buildings.close()


def check(suite: VlnSuite) -> None:
    """Look for the simulator, the dataset and the scenes.

    Raises:
        UserError: if they are not there, with what to do.
    """
    if importlib.util.find_spec("habitat_sim") is None:
        raise UserError(
            f"suite 'vln-ce': no habitat-sim in {sys.prefix}. No package index has it for this "
            f"Python: build it from source (docs/suites/vln-ce.md), then {sys.prefix}/bin/pip "
            "install PATH_TO_SOURCE"
        )
    missing = suite.dataset.missing()
    if missing:
        raise UserError(
            f"suite 'vln-ce': missing {', '.join(str(path) for path in missing)}. Episodes: "
            "download R2R_VLNCE_v1-3_preprocessed and RxR_VLNCE_v0 from the page of VLN-CE "
            "(https://github.com/jacobkrantz/VLN-CE) into its folder datasets; scenes: "
            "download_mp.py --task habitat -o scene_datasets/mp3d, as Matterport3D grants it; "
            "or name a folder that has both: env.options.data=DIR"
        )
