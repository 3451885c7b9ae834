"""Processes: rollout, learning and env hosts, and the command line. The only package with Ray."""
