"""RoboCasa's 24 tabletop tasks of a Fourier GR-1 (Bjorck et al. 2025, arXiv:2503.14734).

The simulator is not imported here, so that tasks and spec can be read where it is missing.
"""
