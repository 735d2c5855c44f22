"""Lengths of a set of examples: which are too short or too long to learn from, and their histogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from baltoro.instructions.reviews.config import LongTailConfig


@dataclass(frozen=True, slots=True)
class Lengths:
    """The tokens of one example."""

    input_tokens: int
    response_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an example's lengths must lie within; ``None`` is open."""

    min_input_tokens: int | None
    min_response_tokens: int | None
    max_response_tokens: int | None

    def reason(self, lengths: Lengths) -> tuple[str, str] | None:
        """Return ``(reason, detail)`` if lengths lie outside, else ``None``."""
        for name, value, low in (
            ("input", lengths.input_tokens, self.min_input_tokens),
            ("response", lengths.response_tokens, self.min_response_tokens),
        ):
            if low is not None and value < low:
                return f"long_tail_short_{name}", f"{name} of {value} tokens, at least {low} are kept"
        high = self.max_response_tokens
        if high is not None and lengths.response_tokens > high:
            detail = f"response of {lengths.response_tokens} tokens, at most {high} are kept"
            return "long_tail_long_response", detail
        return None


def bounds_of(lengths: Sequence[Lengths], config: LongTailConfig) -> Bounds:
    """Return the bounds of a set: the stricter of each bound and its quantile.

    A quantile is a value of the set itself (the nearest one from above for a lower bound, from below for an
    upper one), so the same set gives the same bounds whatever its order.
    """
    inputs = sorted(one.input_tokens for one in lengths)
    responses = sorted(one.response_tokens for one in lengths)
    high = None
    if responses and config.response_high_quantile < 1:
        high = _quantile(responses, config.response_high_quantile, "lower")
    highs = [bound for bound in (config.max_response_tokens, high) if bound is not None]
    return Bounds(
        _stricter(config.min_input_tokens, inputs, config.input_low_quantile),
        _stricter(config.min_response_tokens, responses, config.response_low_quantile),
        min(highs, default=None),
    )


def _stricter(bound: int | None, values: Sequence[int], quantile: float) -> int | None:
    if not values or quantile == 0:
        return bound
    return max(bound or 0, _quantile(values, quantile, "higher"))


def _quantile(values: Sequence[int], quantile: float, method: str) -> int:
    return int(np.quantile(np.asarray(values), quantile, method=method))  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many examples have which length.

    Attributes:
        bin_tokens: width of a bin; bin ``i`` holds ``[i * bin_tokens, (i + 1) * bin_tokens)``.
        counts: examples by bin; empty bins are absent.
        quantiles: tokens at 0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99 and 1 (a value of the set each).
    """

    bin_tokens: int
    counts: Mapping[int, int]
    quantiles: Mapping[str, int]

    @property
    def examples(self) -> int:
        """Return the number of examples."""
        return sum(self.counts.values())


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def histogram(tokens: Sequence[int], bin_tokens: int) -> Histogram:
    """Return the histogram of lengths."""
    counts = Counter(value // bin_tokens for value in tokens)
    values = sorted(tokens)
    quantiles = {f"{q:g}": _quantile(values, q, "lower") for q in QUANTILES} if values else {}
    return Histogram(bin_tokens, dict(sorted(counts.items())), quantiles)
