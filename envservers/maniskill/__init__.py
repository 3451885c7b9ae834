"""ManiSkill 3 (`mani-skill` 3.0.1), and Simpler-WidowX with it; imports neither until one is made."""
