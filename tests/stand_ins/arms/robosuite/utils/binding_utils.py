"""Of `robosuite/utils/binding_utils.py`: a simulation draws only with a context that was made."""

from types import SimpleNamespace

import numpy as np


class MjSim:
    """Positions of the robot, and one number that says where the object is."""

    def __init__(self, place):
        self.place, self.qpos = place, {}
        self._render_context_offscreen = None
        self.drawn = 0

    def add_render_context(self, context):
        self._render_context_offscreen = context

    def render(
        self,
        width=None,
        height=None,
        *,
        camera_name=None,
        depth=False,
        mode="offscreen",
        device_id=-1,
        segmentation=False,
    ):
        """[height, width, 3] uint8, rows from the bottom."""
        assert self._render_context_offscreen is not None
        assert camera_name == "egoview"
        self.drawn += 1
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = int(255 * self.place)
        image[..., 1] = int(40 * np.concatenate(list(self.qpos.values())).sum()) % 256
        # The lower half is brighter; collision meshes would be seen.
        image[: height // 2, :, 2] = 200
        if self._render_context_offscreen.vopt.geomgroup[0]:
            image[...] = 255
        return image


class MjRenderContextOffscreen:
    """Adds itself to the simulation; collision meshes are drawn unless told not to."""

    def __init__(self, sim, device_id, max_width=640, max_height=480):
        self.vopt = SimpleNamespace(geomgroup=np.array([1, 1, 1, 0, 0, 0], np.uint8))
        sim.add_render_context(self)
