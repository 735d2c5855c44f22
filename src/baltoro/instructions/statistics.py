"""How sure a rate is that a few people counted on a small sample."""

from __future__ import annotations

import math


def wilson_interval(bad: int, n: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Return the score interval of a rate (Wilson 1927), which holds for few items and rates near 0 too.

    >>> [round(bound, 3) for bound in wilson_interval(1, 10)]
    [0.018, 0.404]

    Args:
        bad: items with the property, 0 to ``n``.
        n: items looked at.
        z: quantile of the normal distribution; 1.96 is 95 %.

    Returns:
        Lower and upper bound, fractions of 0 to 1; ``(0, 1)`` of nothing looked at.

    Raises:
        ValueError: more bad items than items, or a negative number.
    """
    if not 0 <= bad <= n:
        raise ValueError(f"{bad} bad items of {n}: give a number from 0 to {n}")
    if n == 0:
        return 0.0, 1.0
    rate = bad / n
    centre = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact bound is 0 or 1; rounding would leave it beside that.
    low = 0.0 if bad == 0 else max((centre - half) / scale, 0.0)
    high = 1.0 if bad == n else min((centre + half) / scale, 1.0)
    return low, high
