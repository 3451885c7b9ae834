"""Evaluation's output: statistics of outcomes, curves, videos, the report page."""
