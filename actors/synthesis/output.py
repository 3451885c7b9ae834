"""A folder that appears only once it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlarl.errors import UserError


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`, which takes its name when the block succeeds.

    Raises:
        UserError: if `path` exists already.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already: choose another folder or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield folder
        # mkdtemp made it private; a dataset is read by whoever may read its parent.
        folder.chmod(0o755)
        os.replace(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
