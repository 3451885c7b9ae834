"""Habitat's buildings: the way between places, steps along walls, and the view. Holds no episode.

An agent's motion is kinematic, so a building serves any number of slots: each says where it stands.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.vlnce.tasks import Benchmark

_SENSOR = "rgb"


class Building:
    """One scene in habitat-sim.

    Args:
        file: the scene's mesh, with its navigation mesh beside it.
        benchmark: whose agent and camera.
        height: of the picture, in pixels.
        width: of the picture.
    """

    def __init__(self, file: Path, benchmark: Benchmark, height: int, width: int) -> None:
        import habitat_sim

        self._habitat: Any = habitat_sim
        backend = habitat_sim.SimulatorConfiguration()
        backend.scene_id = str(file)
        backend.enable_physics = False
        backend.allow_sliding = benchmark.sliding
        camera = habitat_sim.CameraSensorSpec()
        camera.uuid = _SENSOR
        camera.sensor_type = habitat_sim.SensorType.COLOR
        camera.sensor_subtype = habitat_sim.SensorSubType.PINHOLE
        camera.resolution = [height, width]
        camera.position = [0.0, benchmark.camera_height, 0.0]
        camera.hfov = benchmark.field_of_view
        agent = habitat_sim.agent.AgentConfiguration()
        agent.height, agent.radius = benchmark.agent_height, benchmark.agent_radius
        agent.sensor_specifications = [camera]
        self._simulator = habitat_sim.Simulator(habitat_sim.Configuration(backend, [agent]))
        finder = self._simulator.pathfinder
        self._step = finder.try_step if benchmark.sliding else finder.try_step_no_sliding

    def distance(self, here: NDArray[np.float64], there: NDArray[np.float64]) -> float:
        """Meters of way; infinite if there is none."""
        path = self._habitat.ShortestPath()
        path.requested_start = here.astype(np.float32)
        path.requested_end = there.astype(np.float32)
        if not self._simulator.pathfinder.find_path(path):
            return math.inf
        return float(path.geodesic_distance)

    def step(self, here: NDArray[np.float64], there: NDArray[np.float64]) -> NDArray[np.float64]:
        """[3] where one gets to from `here` towards `there`, both [3]."""
        reached = self._step(here.astype(np.float32), there.astype(np.float32))
        return np.array(reached, np.float64)

    def view(self, place: NDArray[np.float64], heading: float) -> NDArray[np.uint8]:
        """[height, width, 3] what an agent sees from there."""
        turn = np.array([0.0, math.sin(heading / 2), 0.0, math.cos(heading / 2)])
        state = self._habitat.AgentState(position=place.astype(np.float32), rotation=turn)
        self._simulator.get_agent(0).set_state(state)
        picture = self._simulator.get_sensor_observations()[_SENSOR]
        return np.array(picture[..., :3], np.uint8)

    def close(self) -> None:
        """Free the drawing context."""
        self._simulator.close()


class Buildings:
    """Keeps the most recently used ones.

    Args:
        benchmark: whose agent and camera.
        height: of the pictures, in pixels.
        width: of the pictures.
        most: kept at once; another one closes the one that was not used for longest.
    """

    def __init__(self, benchmark: Benchmark, height: int, width: int, most: int) -> None:
        self._drawing = benchmark, height, width
        self._most = most
        self._open: OrderedDict[Path, Building] = OrderedDict()

    def enter(self, file: Path) -> Building:
        """The building of this scene file."""
        if file not in self._open:
            while len(self._open) >= self._most:
                self._open.popitem(last=False)[1].close()
            self._open[file] = Building(file, *self._drawing)
        self._open.move_to_end(file)
        return self._open[file]

    def close(self) -> None:
        """Close all."""
        for building in self._open.values():
            building.close()
        self._open.clear()
