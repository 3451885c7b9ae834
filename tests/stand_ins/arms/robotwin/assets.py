"""Of `robotwin/assets.py`."""

from pathlib import Path


def validate_root(path):
    root = Path(path).expanduser().resolve()
    for part in ("background_texture", "embodiments/aloha-agilex", "objects"):
        assert (root / "assets" / part).is_dir(), part
    return {"root": str(root), "managed": False}
