"""CALVIN (Mees et al. 2022, arXiv:2112.03227): chains of five instructions at one table.

The simulator is not imported here, so that tasks and spec can be read where it is missing.
"""
