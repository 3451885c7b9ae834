"""Simulation as processes: suites of environments, and servers and clients that carry them.

Imports the light modules of `vlarl` only (numpy, msgpack), never torch, Ray or transformers: a
server starts in a second and can live in another virtual environment or on another machine.
"""
