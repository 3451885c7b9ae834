"""A stand-in for `robocasa_gr1`, as `praxis-robocasa-gr1` 0.2.0 (PyPI) shows its interface.

Of its `__init__`: it prints as it is imported.
"""

print("WARNING: mimicgen environments not imported since mimicgen is not installed!")
