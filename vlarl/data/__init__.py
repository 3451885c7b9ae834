"""Datasets: LeRobot folders on disk, training samples in memory, grounding questions."""
