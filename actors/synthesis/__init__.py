"""Data made by worker processes and from the simulator itself, and its audit."""
