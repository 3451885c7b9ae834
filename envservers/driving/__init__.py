"""Roads, a car that follows them, and what its camera sees: trajectories in the ground plane."""
