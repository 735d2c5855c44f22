"""Counts that add up in any order and stay small: of names, and of lengths.

What tasks count of their own papers is joined by ``+``; the sum depends on what was counted alone, neither
on the order nor on the cut into tasks.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_NAME_BYTES = 120


def clip_bytes(text: str, most_bytes: int) -> str:
    """Return a text of at most ``most_bytes`` bytes in UTF-8; a longer one is cut and ends in ``…``."""
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    return data[: most_bytes - len("…".encode())].decode(errors="ignore") + "…"


@dataclass(frozen=True, slots=True)
class Tally:
    """How often each name occurs: exact up to ``bound`` names, beyond it in as many groups.

    A group holds the names whose hash falls to it, counted together under one of them: the one that the
    paper with the smallest draw in the group bears, so nearly always the most frequent. Frequent names thus
    keep their place, each count with the few papers of the rare names beside it (on average ``total /
    bound``), and the sum stays exact. Draws decide the same whatever the order of adding; a sketch that
    drops the rarest as it goes would not.

    Attributes:
        bound: names, or groups, at most.
        missing: papers without a name.
        entries: occurrences and smallest draw (32 bits) by name.
        grouped: whether there were more than ``bound`` names.
    """

    bound: int = 1024
    missing: int = 0
    entries: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    grouped: bool = False

    @classmethod
    def of(cls, counts: Mapping[str | None, tuple[int, int]], *, bound: int) -> Self:
        """Return the tally of some papers.

        Args:
            counts: occurrences and smallest draw by name; a missing name is ``None`` or empty. Names of more
                than 120 bytes are cut.
            bound: names, or groups, at most.
        """
        missing = 0
        entries: dict[str, tuple[int, int]] = {}
        for name, (count, draw) in counts.items():
            if name:
                _put(entries, clip_bytes(name, _NAME_BYTES), count, draw)
            else:
                missing += count
        return cls(bound, missing, *_bounded(entries, bound, grouped=False))

    def __add__(self, other: Tally) -> Tally:
        if self.bound != other.bound:
            raise ValueError(f"tallies of {self.bound} and {other.bound} names do not add up")
        entries = dict(self.entries)
        for name, (count, draw) in other.entries.items():
            _put(entries, name, count, draw)
        grouped = self.grouped or other.grouped
        return Tally(
            self.bound, self.missing + other.missing, *_bounded(entries, self.bound, grouped=grouped)
        )

    @property
    def total(self) -> int:
        """All papers with a name."""
        return sum(count for count, _ in self.entries.values())

    def most_frequent(self, number: int) -> dict[str, int]:
        """Return the counts of the most frequent names, falling; equal ones by name."""
        ranked = sorted(self.entries.items(), key=lambda item: (-item[1][0], item[0]))
        return {name: count for name, (count, _) in ranked[:number]}

    def to_plain(self) -> dict[str, Any]:
        """Return the tally as plain values, names in order."""
        return {
            "bound": self.bound,
            "missing": self.missing,
            "grouped": self.grouped,
            "entries": {name: list(self.entries[name]) for name in sorted(self.entries)},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the tally that :meth:`to_plain` wrote."""
        entries = {name: (count, draw) for name, (count, draw) in plain["entries"].items()}
        return cls(plain["bound"], plain["missing"], entries, plain["grouped"])


def _put(entries: dict[str, tuple[int, int]], name: str, count: int, draw: int) -> None:
    there = entries.get(name)
    entries[name] = (count, draw) if there is None else (there[0] + count, min(there[1], draw))


def _bounded(
    entries: dict[str, tuple[int, int]], bound: int, *, grouped: bool
) -> tuple[dict[str, tuple[int, int]], bool]:
    if not grouped and len(entries) <= bound:
        return entries, False
    groups: dict[int, tuple[int, int, str]] = {}
    for name, (count, draw) in entries.items():
        group = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % bound
        there = groups.get(group)
        if there is None:
            groups[group] = (count, draw, name)
        else:
            groups[group] = (there[0] + count, *min(there[1:], (draw, name)))
    return {name: (count, draw) for count, draw, name in groups.values()}, True


QUANTILE_ERROR_FRACTION = 0.01
"""A quantile of :class:`Lengths` is off by at most this part of itself."""

_LONGEST = 1 << 40


@functools.cache
def length_edges() -> npt.NDArray[np.int64]:
    """Return the bins' bounds: bin ``i`` holds lengths from ``edges[i]`` to ``edges[i + 1] - 1``.

    Up to 50 each length has a bin of its own; above, a bin reaches 2 % further than it begins. Integers
    alone decide, so the bins are the same on every machine.
    """
    edges = [0]
    while edges[-1] < _LONGEST:
        edges.append(max(edges[-1] + 1, edges[-1] * 51 // 50))
    return np.array(edges, np.int64)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A histogram of lengths in logarithmic bins, with exact count, sum, smallest and largest.

    Attributes:
        bins: count by bin number (:func:`length_edges`); at most some 1,200.
        total: sum of all lengths.
        smallest: ``None`` of nothing.
        largest: ``None`` of nothing.
    """

    bins: Mapping[int, int] = field(default_factory=dict)
    total: int = 0
    smallest: int | None = None
    largest: int | None = None

    @classmethod
    def of(cls, lengths: npt.NDArray[np.int64]) -> Self:
        """Return the histogram of some lengths, of which none is negative."""
        if not len(lengths):
            return cls()
        edges = length_edges()
        places = np.minimum(np.searchsorted(edges, lengths, side="right") - 1, len(edges) - 2)
        numbers, counts = np.unique(places, return_counts=True)
        bins = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        return cls(bins, int(lengths.sum()), int(lengths.min()), int(lengths.max()))

    def __add__(self, other: Lengths) -> Lengths:
        if self.smallest is None or self.largest is None:
            return other
        if other.smallest is None or other.largest is None:
            return self
        bins = dict(self.bins)
        for number, count in other.bins.items():
            bins[number] = bins.get(number, 0) + count
        return Lengths(
            bins,
            self.total + other.total,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
        )

    @property
    def count(self) -> int:
        """How many lengths there are."""
        return sum(self.bins.values())

    def quantile(self, fraction: float) -> float:
        """Return a quantile, between neighbours as ``numpy.quantile`` does, off by at most 1 %.

        Raises:
            ValueError: there is no length.
        """
        if self.smallest is None or self.largest is None:
            raise ValueError("a quantile of no lengths")
        numbers = sorted(self.bins)
        ends = np.cumsum([self.bins[number] for number in numbers])
        position = fraction * (int(ends[-1]) - 1)
        edges = length_edges()

        def at(rank: int) -> float:
            number = numbers[int(np.searchsorted(ends, rank, side="right"))]
            middle = (int(edges[number]) + int(edges[number + 1]) - 1) / 2
            return float(min(max(middle, self.smallest or 0), self.largest or 0))

        below = int(position)
        above = min(below + 1, int(ends[-1]) - 1)
        return at(below) + (position - below) * (at(above) - at(below))

    def to_plain(self) -> dict[str, Any]:
        """Return the histogram as plain values."""
        return {
            "bins": [[number, self.bins[number]] for number in sorted(self.bins)],
            "total": self.total,
            "smallest": self.smallest,
            "largest": self.largest,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the histogram that :meth:`to_plain` wrote."""
        return cls(dict(plain["bins"]), plain["total"], plain["smallest"], plain["largest"])
