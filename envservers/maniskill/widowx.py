"""Simpler-WidowX: SIMPLER's four tasks of the WidowX arm, as ManiSkill 3 has them.

Scenes and arm are on no package index. Everything up to them is here; `check_scenes` says what to
download. See docs/suites/maniskill.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envservers import environments
from envservers.held_out import published_start
from envservers.maniskill import robots
from envservers.maniskill.suite import RENDERERS, SceneSuite, check_pictures, spec_of
from envservers.maniskill.tasks import WIDOWX, chosen
from vlarl.env_protocol import Suite
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

if TYPE_CHECKING:
    from envservers.maniskill.scene import Drawing

CAMERA = "3rd_view_camera"
INFO = ("is_src_obj_grasped", "consecutive_grasp", "src_on_target")
DOWNLOADS = {
    "tasks/bridge_v2_real2sim_dataset": "bridge_v2_real2sim",
    "robots/widowx": "widowx250s",
}
"""Folder below ManiSkill's data -> what its downloader calls it."""
_WIDTH, _HEIGHT, _FOCAL = 640, 480, 623.588
_CENTER = 319.501, 239.545
"""Of the BridgeData camera, in pixels."""


class WidowXSuite(SceneSuite):
    """`num_envs` environments of Simpler-WidowX; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: slots.
        image_size: width and height of the picture, in pixels; the camera's 4:3 is squeezed.
        tasks: of the four; None: all.
        max_steps: control steps of an episode; 0: each task's own in ManiSkill.
        renderer: `tuned` draws as few pixels as are asked for; `default` draws 640 x 480 with
            ManiSkill's default shaders and reduces the picture.
        terminate_on_success: whether achieving the goal ends the episode, and the chunk.

    Raises:
        ValueError: for an unknown task or renderer, or a number out of range.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        renderer: str = "tuned",
        terminate_on_success: bool = True,
    ) -> None:
        check_pictures(image_size, max_steps, renderer)
        names = chosen("simpler-widowx", WIDOWX, tasks, tuple(WIDOWX))
        arm = robots.WIDOWX
        spec = spec_of("simpler-widowx", names, WIDOWX, arm, ("ego",), image_size, max_steps)
        self._renderer = renderer
        super().__init__(
            num_envs, spec, arm, WIDOWX, self._to_draw, INFO, terminate_on_success, max_steps
        )

    def reset_options(self, start: EpisodeStart) -> Mapping[str, Any]:
        """Held-out seeds count through the published episodes; others let ManiSkill draw one."""
        number = published_start(start.seed, len(self.spec.tasks), WIDOWX[start.task].starts)
        return {} if number is None else {"episode_id": number}

    def _to_draw(self) -> Drawing:
        from envservers.maniskill.scene import Drawing

        size = self.spec.cameras[0].width
        width, height = (size, size) if self._renderer == "tuned" else (_WIDTH, _HEIGHT)
        camera = {
            "width": width,
            "height": height,
            "intrinsic": _intrinsic(width, height),
            "shader_pack": RENDERERS[self._renderer],
        }
        # Objects and arm are cut out of the photograph by their segmentation.
        return Drawing({"ego": CAMERA}, {CAMERA: camera}, "rgb+segmentation", show_goal=False)


def check_scenes(suite: Suite) -> None:
    """Look for what the tasks are drawn and simulated from.

    Raises:
        UserError: if a part was not downloaded, with the command.
    """
    folder = data_folder()
    missing = [name for part, name in DOWNLOADS.items() if not (folder / part).is_dir()]
    if missing:
        python = environments.interpreter("maniskill")
        commands = " && ".join(
            f"{python} -m mani_skill.utils.download_asset {name} -y" for name in missing
        )
        raise UserError(
            f"suite {suite.spec.suite!r}: its scenes are not in {folder} (MS_ASSET_DIR), and no "
            f"package index has them: run {commands}"
        )


def data_folder() -> Path:
    """Where ManiSkill keeps what it downloads."""
    own = os.environ.get("MS_ASSET_DIR")
    return (Path(own) if own else Path.home() / ".maniskill") / "data"


def _intrinsic(width: int, height: int) -> NDArray[np.float64]:
    """Of the BridgeData camera when its picture is squeezed to this size."""
    across, down = width / _WIDTH, height / _HEIGHT
    camera = [[_FOCAL, 0.0, _CENTER[0]], [0.0, _FOCAL, _CENTER[1]], [0.0, 0.0, 1.0]]
    return np.array(camera) * np.array([[across], [down], [1.0]])
