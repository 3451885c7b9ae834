"""Suites that `vlarl suite install` cannot bring here, and what each would take.

No package index has them whole: the program, or the scenes that it needs, come from elsewhere.
"""

from __future__ import annotations

ELSEWHERE = {
    "simpler-widowx": (
        "scenes are not on a package index: vlarl suite install maniskill, then with its Python "
        "python -m mani_skill.utils.download_asset bridge_v2_real2sim -y, and widowx250s -y"
    ),
    "domino": (
        "no package index has it: vlarl suite install robotwin, git clone "
        "https://github.com/H-EmbodVis/DOMINO, then DOMINO_ROOT=FOLDER; see docs/suites/domino.md"
    ),
}
"""Name -> why, and what to do."""
