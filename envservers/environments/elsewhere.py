"""Suites that `vlarl suite install` cannot bring here, and what each would take.

No package index has them whole: the program, or the scenes that it needs, come from elsewhere.
"""

from __future__ import annotations

ELSEWHERE = {
    "simpler-widowx": (
        "scenes are not on a package index: python -m mani_skill.utils.download_asset "
        "bridge_v2_real2sim, then widowx250s, in the environment of maniskill"
    ),
    "robocasa-gr1": (
        "scenes are not on a package index: pip install praxis-robocasa-gr1, then "
        "python -m robocasa_gr1.scripts.download_tabletop_assets -y"
    ),
    "robotwin": (
        "scenes are not on a package index: pip install rlinf-robotwin-runtime, then "
        "robotwin-download-assets"
    ),
    "domino": "no package index has it",
}
"""Name -> why, and what to do."""
