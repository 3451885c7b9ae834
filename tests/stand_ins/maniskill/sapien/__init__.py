"""Stands in for `sapien` 3.0.3: the GPU's library, as `sapien/physx/__init__.py` has it."""
