"""A running env server is light: nothing of torch, Ray or transformers is in its process."""

import numpy as np
import pytest

from envservers.client import spawn_server
from vlarl.types import EpisodeStart


@pytest.mark.parametrize("suite", ["counting", "tabletop", "navigation"])
def test_no_heavy_module_in_a_running_server(suite):
    client = spawn_server(suite, 2)
    try:
        client.reset(np.arange(2), [EpisodeStart(client.spec.tasks[0], seed) for seed in (1, 2)])
        channels = client.spec.channels
        middle = np.array([(c.low + c.high) / 2 for c in channels], np.float32)
        client.step(np.arange(2), np.broadcast_to(middle, (2, 2, len(channels))))
        stats = client.stats()
    finally:
        client.close()
    imported = {name: value for name, value in stats.items() if name.startswith("imported_")}
    assert imported == dict.fromkeys(
        ("imported_torch", "imported_ray", "imported_transformers", "imported_omegaconf"), 0.0
    )
    assert stats["env_steps"] == 4
    assert stats["memory_bytes"] < 150 * 2**20
