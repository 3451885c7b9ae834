"""Language-action trajectories of arms, without physics or images (paper section 3.2.3)."""
