"""A share with its interval, and how many observations it takes to tell two shares apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: the number; not a number where there is nothing to measure on.
        low, high: its interval.
        n: what it was measured on.
    """

    value: float
    low: float
    high: float
    n: int


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def wilson(hits: int, n: int) -> Interval:
    """A share with Wilson's interval (1927)."""
    if n == 0:
        return NOTHING
    share, z2 = hits / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the formula gives the end itself, up to rounding.
    low = 0.0 if hits == 0 else middle - half
    high = 1.0 if hits == n else middle + half
    return Interval(share, low, high, n)


def needed_per_arm(one: float, other: float, *, power: float = 0.8) -> int:
    """Observations each of two arms needs for a test of 5 %, two-sided, to tell their shares apart.

    The normal approximation without a correction for continuity (Fleiss 1981, equation 3.14 without its last step),
    for independent observations: several samples of one prompt count for less.

    Args:
        one, other: the shares.
        power: how often the test is to find the difference.

    Raises:
        ValueError: the shares are equal, or one is none.
    """
    if not (0 <= one <= 1 and 0 <= other <= 1) or one == other:
        raise ValueError(f"{one} and {other} are no two different shares")
    mean = (one + other) / 2
    under_null = _Z95 * math.sqrt(2 * mean * (1 - mean))
    under_difference = float(ndtri(power)) * math.sqrt(one * (1 - one) + other * (1 - other))
    return math.ceil(((under_null + under_difference) / (one - other)) ** 2)
