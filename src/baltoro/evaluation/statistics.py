"""How sure a mean is whose items come in clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from baltoro.core.statistics import CONFIDENCE


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
    from scipy.stats import t as student

    clusters = [(total, count) for total, count in zip(sums, counts, strict=True) if count > 0]
    if len(clusters) < 2:
        return None
    items = math.fsum(count for _, count in clusters)
    mean = math.fsum(total for total, _ in clusters) / items
    squares = math.fsum((total - mean * count) ** 2 for total, count in clusters)
    error = math.sqrt(len(clusters) / (len(clusters) - 1) * squares) / items
    half = float(student.ppf((1 + confidence) / 2, len(clusters) - 1)) * error
    return mean - half, mean + half
