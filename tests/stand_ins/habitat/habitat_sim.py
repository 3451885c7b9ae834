"""A stand-in for habitat-sim: one large room, seen as colors of where one stands and looks.

Names, signatures, shapes and dtypes as in facebookresearch/habitat-sim: `simulator.py` at
02e6853f, `agent/agent.py` at 0a4f9a04, `utils/settings.py` at 03760214, and the bindings of
`PathFinder` (`ShortestPathBindings.cpp`).
"""

from types import SimpleNamespace

import numpy as np

HALF = 8.0
"""Meters from the room's center to its walls."""
SensorType = SimpleNamespace(COLOR="color", DEPTH="depth")
SensorSubType = SimpleNamespace(PINHOLE="pinhole")


class SimulatorConfiguration:
    def __init__(self):
        self.scene_id = ""
        self.enable_physics = True
        self.allow_sliding = True


class CameraSensorSpec:
    def __init__(self):
        self.uuid, self.sensor_type, self.sensor_subtype = "", None, None
        self.resolution, self.position, self.hfov = [1, 1], [0.0, 0.0, 0.0], 90.0


class AgentConfiguration:
    def __init__(self):
        self.height, self.radius, self.sensor_specifications = 1.5, 0.1, []


class AgentState:
    def __init__(self, position=None, rotation=None):
        self.position = np.zeros(3) if position is None else position
        self.rotation = np.array([0.0, 0, 0, 1]) if rotation is None else rotation


agent = SimpleNamespace(AgentConfiguration=AgentConfiguration)


class Configuration:
    def __init__(self, sim_cfg, agents):
        self.sim_cfg, self.agents = sim_cfg, agents


class ShortestPath:
    def __init__(self):
        self.requested_start = self.requested_end = None
        self.geodesic_distance = float("inf")


class PathFinder:
    def try_step(self, start, end):
        """Slides: each coordinate goes as far as it can."""
        assert start.dtype == end.dtype == np.float32
        return np.clip(end, -HALF, HALF).astype(np.float32)

    def try_step_no_sliding(self, start, end):
        assert start.dtype == end.dtype == np.float32
        return end if (np.abs(end) <= HALF).all() else start

    def find_path(self, path):
        ends = np.stack([path.requested_start, path.requested_end])
        if (np.abs(ends) > HALF).any():
            return False
        path.geodesic_distance = float(np.linalg.norm(ends[1] - ends[0]))
        return True


class Agent:
    def set_state(self, state):
        quaternion = np.asarray(state.rotation, float)
        assert quaternion.shape == (4,)
        assert np.isclose(np.linalg.norm(quaternion), 1)
        self.state = state


class Simulator:
    def __init__(self, config):
        self.config, self.pathfinder = config, PathFinder()
        self._agent, self._closed = Agent(), False

    def get_agent(self, agent_id):
        assert agent_id == 0
        return self._agent

    def get_sensor_observations(self):
        assert not self._closed
        camera = self.config.agents[0].sensor_specifications[0]
        x, _, z = self._agent.state.position
        heading = 2 * np.arctan2(self._agent.state.rotation[1], self._agent.state.rotation[3])
        levels = [x / HALF, z / HALF, np.cos(heading), 1.0]
        pixel = np.round((np.array(levels) + 1) * 127).astype(np.uint8)
        return {camera.uuid: np.tile(pixel, (*camera.resolution, 1))}

    def close(self, destroy=True):
        self._closed = True
