"""Synthesis of language-action trajectories by worker processes, and its audit."""
