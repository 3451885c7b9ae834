"""DOMINO (Fang et al. 2026, arXiv:2603.15620): 35 of RoboTwin's tasks with objects that move.

The simulator is not imported here, so that tasks and spec can be read where it is missing.
"""
