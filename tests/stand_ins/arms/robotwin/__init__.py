"""A stand-in for `robotwin`, as `rlinf-robotwin-runtime` 0.1.3 (PyPI) shows its interface."""
