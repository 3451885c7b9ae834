"""Learning: the supervised trainer and the PPO learner. No Ray, no simulator."""
