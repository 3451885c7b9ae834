"""SimplerEnv (Li et al. 2024, arXiv:2405.05941), from its own package `simpler_env`.

The simulator is not imported here, so that tasks and spec can be read where it is missing.
"""
