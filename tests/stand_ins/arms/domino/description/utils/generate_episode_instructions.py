"""Of DOMINO's module of this name."""

from robotwin.description import generate_episode_descriptions  # noqa: F401, the same in both
