"""How sure a figure is that was measured on a sample; imports nothing but arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

CONFIDENCE = 0.95
"""Share of samples whose interval holds the true value."""


def wilson_interval(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of a rate (Wilson 1927), which holds for few trials and rates near 0 or 1.

    >>> [round(bound, 3) for bound in wilson_interval(9, 10)]
    [0.596, 0.982]

    Args:
        successes: 0 to ``trials``.
        trials: all of them.
        confidence: of the interval.

    Returns:
        Lower and upper bound, fractions of 0 to 1; ``(0, 1)`` of no trials.

    Raises:
        ValueError: more successes than trials, or a negative number.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: give a number from 0 to {trials}")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At the ends the exact bound is 0 or 1; rounding would leave it beside that.
    low = 0.0 if successes == 0 else max((centre - half) / scale, 0.0)
    high = 1.0 if successes == trials else min((centre + half) / scale, 1.0)
    return low, high


def ratio_interval(
    sums: Sequence[float], counts: Sequence[float], *, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return the interval of a mean whose items come in clusters: what a document gives is not independent.

    The mean is the ratio ``r = Σ sums / Σ counts``; its variance over clusters, linearised, is
    ``n / (n - 1) · Σ (sum - r · count)² / (Σ counts)²`` (Cochran 1977, Sampling Techniques, section 6.4), and
    the interval is Student's with ``n - 1`` degrees of freedom.

    Args:
        sums: of each cluster's items.
        counts: items of each cluster.
        confidence: of the interval.

    Returns:
        Lower and upper bound; ``None`` of fewer than two clusters with items, which say nothing of others.
    """
    clusters = [(total, count) for total, count in zip(sums, counts, strict=True) if count > 0]
    if len(clusters) < 2:
        return None
    items = math.fsum(count for _, count in clusters)
    mean = math.fsum(total for total, _ in clusters) / items
    squares = math.fsum((total - mean * count) ** 2 for total, count in clusters)
    error = math.sqrt(len(clusters) / (len(clusters) - 1) * squares) / items
    half = student_quantile((1 + confidence) / 2, len(clusters) - 1) * error
    return mean - half, mean + half


def student_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t.

    Exact for one and two degrees of freedom, beyond these Cornish and Fisher's expansion (Abramowitz and
    Stegun 1964, 26.7.5), which is within 0.2 % at 0.975.

    >>> round(student_quantile(0.975, 9), 2)
    2.26

    Args:
        probability: between 0 and 1.
        degrees: of freedom, at least 1.
    """
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        return (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))
