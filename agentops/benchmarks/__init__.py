"""Benchmarks: what the engine costs, as ratios to a baseline taken in the same run on the same server."""
