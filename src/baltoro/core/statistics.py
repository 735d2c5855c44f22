"""How sure a figure is that was counted on a sample."""

from __future__ import annotations

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
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
