"""LIBERO (Liu et al. 2023, arXiv:2306.03310): 130 tasks of a Franka Panda in MuJoCo, with language.

The simulator is not imported here, so that tasks and spec can be read where it is missing.
"""
