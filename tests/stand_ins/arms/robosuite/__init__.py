"""A stand-in for what `robocasa_gr1` and the adapter use of `praxis-robosuite` 1.5.2.post1."""
