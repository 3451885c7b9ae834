"""VLN-CE (Krantz et al. 2020, arXiv:2004.02857): instructions in scanned buildings, by waypoints.

The simulator is not imported here, so that tasks and spec can be read where it is missing.
"""
