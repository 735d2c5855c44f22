"""The pictures of lengths and of years."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from baltoro.corpus.card.card import DataCard
from baltoro.corpus.card.svg import GRID, KEPT, MUTED, REJECTED, line, picture, rect, text
from baltoro.corpus.tallies import length_edges

_WIDTH, _HEIGHT = 760.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 16.0, 30.0, 44.0
_BARS = 48
_SHORTEST_RANGE = math.log(4)
_YEARS_SHOWN = 100
_YEARS_ALL_SHOWN = 40
_END_FRACTION = 0.005
_YEARS_LABELLED = 12


def lengths_picture(card: DataCard) -> str:
    """Return the lengths of the kept documents as an SVG file, on a logarithmic axis."""
    title = f"{card.name}: lengths of {card.kept:,} kept documents"
    if not card.length_bins:
        return _nothing(title, "no documents were kept")
    bars = _joined_bins(card.length_bins)
    # Length 0 has no logarithm; lengths close together would fill the picture with a bar or two.
    low, high = math.log(max(bars[0][0], 1)), math.log(bars[-1][1] + 1)
    margin = max(_SHORTEST_RANGE - (high - low), 0) / 2
    low, high = low - margin, high + margin

    def x_of(length: float) -> float:
        return _LEFT + (math.log(max(length, 1)) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    y_of, shapes = _frame(max(documents for _, _, documents in bars), "documents")
    for shortest, longest, documents in bars:
        if documents:
            x, end = x_of(shortest), x_of(longest + 1)
            label = f"{shortest:,} to {longest:,} characters: {documents:,}"
            y = y_of(documents)
            shapes.append(rect(x + 0.5, y, end - x - 1, _HEIGHT - _BOTTOM - y, KEPT, title=label))
    shapes += _log_ticks(math.exp(low), math.exp(high), x_of)
    median = card.lengths_characters["median"]
    x = x_of(median)
    shapes.append(line((x, _TOP - 6, x, _HEIGHT - _BOTTOM), stroke=REJECTED, width=1.5))
    anchor = "start" if x < _WIDTH * 0.75 else "end"
    shift = 6 if anchor == "start" else -6
    shapes.append(text(x + shift, _TOP - 10, f"median {median:,.0f}", anchor=anchor, fill=REJECTED))
    shapes.append(text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "characters", anchor="middle", fill=MUTED))
    return picture(_WIDTH, _HEIGHT, title, shapes)


def _joined_bins(bins: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return at most 48 bars, each of as many bins as the others: joining 3 here and 4 there makes teeth."""
    edges = length_edges()
    places = {int(edge): place for place, edge in enumerate(edges)}
    first, last = places[bins[0][0]], places[bins[-1][0]]
    joined = -(-(last - first + 1) // _BARS)
    counts: dict[int, int] = {}
    for shortest, _, documents in bins:
        bar = (places[shortest] - first) // joined
        counts[bar] = counts.get(bar, 0) + documents
    return [
        (
            int(edges[first + bar * joined]),
            int(edges[min(first + (bar + 1) * joined, len(edges) - 1)]) - 1,
            counts.get(bar, 0),
        )
        for bar in range((last - first) // joined + 1)
    ]


def years_picture(card: DataCard) -> str:
    """Return the years of the kept documents as an SVG file; far years are joined at the ends."""
    counts = {int(year): documents for year, documents in card.years.counts.items()}
    title = f"{card.name}: years of {sum(counts.values()):,} kept documents"
    if not counts:
        return _nothing(title, "no kept document states its year")
    first, last = _window(counts)
    bars = [(str(year), counts.get(year, 0)) for year in range(first, last + 1)]
    before = sum(documents for year, documents in counts.items() if year < first)
    after = sum(documents for year, documents in counts.items() if year > last)
    if before:
        bars.insert(0, (f"before {first}", before))
    if after:
        bars.append((f"after {last}", after))
    y_of, shapes = _frame(max(documents for _, documents in bars), "documents")
    pitch = min((_WIDTH - _LEFT - _RIGHT) / len(bars), 60)
    every = next(step for step in (1, 2, 5, 10, 20, 50) if len(bars) / step <= _YEARS_LABELLED)
    for place, (year, documents) in enumerate(bars):
        x, y = _LEFT + place * pitch, y_of(documents)
        if documents:
            label = f"{year}: {documents:,}"
            shapes.append(rect(x + pitch * 0.1, y, pitch * 0.8, _HEIGHT - _BOTTOM - y, KEPT, title=label))
        if year.isdigit() and int(year) % every == 0:
            shapes.append(text(x + pitch / 2, _HEIGHT - _BOTTOM + 18, year, anchor="middle", fill=MUTED))
    ends = ([f"first bar: before {first}"] if before else []) + ([f"last bar: after {last}"] if after else [])
    if ends:
        shapes.append(
            text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "; ".join(ends), anchor="middle", fill=MUTED)
        )
    return picture(_WIDTH, _HEIGHT, title, shapes)


def _window(counts: dict[int, int]) -> tuple[int, int]:
    """Return the first and last year to show: all of a few decades, else those without the thin ends.

    One wrong year would otherwise press all the others into a corner. At each end at most 1 in 200 documents
    is left out; of what is left, the hundred years with the most documents are shown.
    """
    years = sorted(counts)
    if years[-1] - years[0] < _YEARS_ALL_SHOWN:
        return years[0], years[-1]
    ends = np.cumsum([counts[year] for year in years])
    total = int(ends[-1])
    years = [
        year
        for year, end in zip(years, ends.tolist(), strict=True)
        if end > total * _END_FRACTION and end - counts[year] < total * (1 - _END_FRACTION)
    ]
    inside = {
        start: sum(counts[year] for year in years if start <= year < start + _YEARS_SHOWN) for start in years
    }
    start = max(years, key=lambda year: (inside[year], year))
    return start, max(year for year in years if year < start + _YEARS_SHOWN)


def _nothing(title: str, message: str) -> str:
    return picture(_WIDTH, 90, title, [text(_WIDTH / 2, 50, message, anchor="middle", fill=MUTED)])


def _frame(largest: int, what: str) -> tuple[Callable[[float], float], list[str]]:
    """Return where a count stands on the vertical axis, and the axis with its lines."""
    step = _step(largest)
    top = -(-largest // step) * step
    height = _HEIGHT - _TOP - _BOTTOM

    def y_of(count: float) -> float:
        return _HEIGHT - _BOTTOM - count / top * height

    shapes = [text(4, _TOP - 14, what, fill=MUTED)]
    for count in range(0, top + 1, step):
        y = y_of(count)
        shapes.append(line((_LEFT, y, _WIDTH - _RIGHT, y), stroke=GRID if count else MUTED))
        shapes.append(text(_LEFT - 8, y + 4.5, f"{count:,}", anchor="end", fill=MUTED))
    return y_of, shapes


def _step(largest: int) -> int:
    """Return the distance of the lines, 1, 2 or 5 times a power of ten, so that there are at most five."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if largest <= 5 * step:
                return step
        power *= 10


def _log_ticks(low: float, high: float, x_of: Callable[[float], float]) -> Iterator[str]:
    """Yield the ticks of a logarithmic axis: 1, 2 and 5 of each power of ten, fewer over a long range."""
    steps = (1, 2, 5) if high < 3000 * low else (1,)
    for power, step in itertools.product(range(13), steps):
        tick = step * 10**power
        if low <= tick <= high:
            x = x_of(tick)
            unit = ("", "k", "M", "G", "T")[power // 3]
            yield line((x, _HEIGHT - _BOTTOM, x, _HEIGHT - _BOTTOM + 5), stroke=MUTED)
            label = f"{step * 10 ** (power % 3)}{unit}"
            yield text(x, _HEIGHT - _BOTTOM + 19, label, anchor="middle", fill=MUTED)
