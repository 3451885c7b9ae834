"""The ring of images: where its file goes, and what is written is what is read."""

import os
from pathlib import Path

import numpy as np
import pytest

from envservers import shared_memory
from envservers.registry import make_suite
from envservers.shared_memory import ImageRing, create_ring_file


def test_images_go_to_disk_where_shared_memory_has_no_room(monkeypatch, tmp_path):
    spec = make_suite("counting", 2).spec
    monkeypatch.setattr(shared_memory, "_free_bytes", lambda folder: 1000)
    monkeypatch.setattr(shared_memory.tempfile, "gettempdir", lambda: str(tmp_path))
    path = create_ring_file(spec, 2)
    assert Path(path).parent == tmp_path
    writer, reader = ImageRing(path, spec, 2), ImageRing(path, spec, 2)
    images = {
        name: np.full((2, 16, 16, 3), i, np.uint8)
        for i, name in enumerate(("ego", "cam_right_wrist"))
    }
    writer.write(3, images)
    np.testing.assert_equal(reader.read(3, 2), images)
    with pytest.raises(ValueError, match="the images need"):
        ImageRing(path, spec, 3)
    writer.close()
    reader.close()
    os.unlink(path)
