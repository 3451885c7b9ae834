"""RoboTwin 2.0 (Chen et al. 2025, arXiv:2506.18088): 50 tasks of two arms in SAPIEN.

The simulator is not imported here, so that tasks and spec can be read where it is missing. DOMINO,
which is built upon it, shares what is here (`envservers/domino`).
"""
