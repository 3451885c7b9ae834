"""CALVIN's own code, from a clone of its repositories, which are on no package index."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlarl.errors import UserError

_CONF = Path("calvin_models", "conf")
_TASKS = _CONF / "callbacks" / "rollout" / "tasks" / "new_playtable_tasks.yaml"
_SENTENCES = _CONF / "annotations" / "new_playtable_validation.yaml"
_OBSERVATIONS = {"rgb_obs": ["rgb_static", "rgb_gripper"], "depth_obs": []}
_WITHOUT_CLIENT = ("createVisualShape", "createMultiBody", "computeDofCount")
"""Functions of pybullet's that calvin_env calls without saying for which simulation."""


class Repository:
    """A clone of github.com/mees/calvin with its submodule calvin_env.

    Args:
        folder: of the clone.
        dataset: folder whose `.hydra/merged_config.yaml` describes cameras and scene.
    """

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.folder, self._dataset = folder, dataset

    def missing(self) -> list[Path]:
        """What is needed and is not there."""
        needed = (
            self.folder / "calvin_env" / "calvin_env",
            self.folder / _TASKS,
            self.folder / _SENTENCES,
            self._dataset / ".hydra" / "merged_config.yaml",
        )
        return [path for path in needed if not path.exists()]

    def environment(self) -> Any:
        """A new `PlayTableSimEnv` with the static and the gripper's camera."""
        self._import()
        import pybullet
        from calvin_env.envs.play_table_env import get_env

        with _newest_client(pybullet):
            return get_env(self._dataset, obs_space=_OBSERVATIONS, show_gui=False)

    def oracle(self) -> Any:
        """CALVIN's `Tasks`, which say what a change of the scene has achieved."""
        self._import()
        from calvin_env.envs.tasks import Tasks

        return Tasks(self._yaml(_TASKS)["tasks"])

    def sentences(self) -> dict[str, str]:
        """Task -> the sentence of the published evaluation."""
        return {task: words[0] for task, words in self._yaml(_SENTENCES).items()}

    def _yaml(self, file: Path) -> Any:
        import yaml

        return yaml.safe_load((self.folder / file).read_text())

    def _import(self) -> None:
        source = str(self.folder / "calvin_env")
        if source not in sys.path:
            sys.path.append(source)


@contextmanager
def _newest_client(pybullet: Any) -> Iterator[None]:
    """While a simulation is made, calls that name none are meant for it, not for the first one."""
    before = {name: getattr(pybullet, name) for name in (*_WITHOUT_CLIENT, "connect")}
    newest: list[int] = []

    def connect(*args: Any, **options: Any) -> int:
        newest.append(int(before["connect"](*args, **options)))
        return newest[-1]

    def meant(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            if newest:
                options.setdefault("physicsClientId", newest[-1])
            return function(*args, **options)

        return called

    try:
        pybullet.connect = connect
        for name in _WITHOUT_CLIENT:
            setattr(pybullet, name, meant(before[name]))
        yield
    finally:
        for name, function in before.items():
            setattr(pybullet, name, function)


def check_repository(repository: Repository) -> None:
    """Look for the clone and the dataset's description.

    Raises:
        UserError: if they are not there, with the commands.
    """
    missing = repository.missing()
    if missing:
        folder = repository.folder
        raise UserError(
            f"suite 'calvin': missing {', '.join(str(path) for path in missing)}. Code: git clone "
            f"--recurse-submodules https://github.com/mees/calvin {folder}; the table's "
            f"description: cd {folder}/dataset && sh download_data.sh ABC (or debug, and then "
            "env.options.dataset=DIR/calvin_debug_dataset/validation)"
        )
