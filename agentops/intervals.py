"""Bounds for a share that was measured on a sample."""

from math import sqrt

Z_95 = 1.959964


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The Wilson 95 % interval for hits of so many; (0, 1) when nothing was measured."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, Z_95 * Z_95
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z_95 / (1 + square / of) * sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)
