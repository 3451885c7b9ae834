"""Stands in for `mani_skill` 3.0.1 where SIMPLER's scenes or a GPU are not; names are real.

What the adapter uses of the WidowX tasks, as the package's source has it: `envs/sapien_env.py`
(`BaseEnv`), `envs/tasks/digital_twins/bridge_dataset_eval/base_env.py` and `put_on_in_scene.py`,
`sensors/camera.py`, `utils/registration.py` of the wheel `mani_skill-3.0.1-py3-none-any.whl`.
Physics is a hand that goes where it is sent and an object that it may carry. `envs/table_top.py` is
what the adapter uses of a task with a Panda, of which a GPU plays several at once.
"""

import os
from pathlib import Path

__version__ = "3.0.1"
ASSET_DIR = Path(os.getenv("MS_ASSET_DIR", str(Path.home() / ".maniskill"))) / "data"
