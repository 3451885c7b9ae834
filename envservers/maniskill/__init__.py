"""ManiSkill 3 (`mani-skill` 3.0.1) and Simpler-WidowX. Imports no simulator until one is made."""
