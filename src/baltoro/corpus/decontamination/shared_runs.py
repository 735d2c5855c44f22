"""Runs of words that documents share with items: what is indexed of the items, and what a document hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from baltoro.corpus.decontamination.vocabulary import weights_of
from baltoro.corpus.words import Hashes, ngram_hashes, words_of

Integers = npt.NDArray[np.int64]

_RAREST_WINDOWS = 4
"""An item all of whose windows are common keeps so many."""
_MAX_FILTER_BITS = 24
_BATCH_CHARACTERS = 4_000_000


@dataclass(frozen=True, slots=True)
class Windows:
    """Runs of ``size`` words: sorted hashes, and of each the items and positions that have it."""

    size: int
    filter: npt.NDArray[np.bool_]
    hashes: Hashes
    bounds: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]

    @classmethod
    def build(cls, size: int, hashes: Hashes, items: Integers, positions: Integers) -> Windows:
        """Sort windows by hash; the filter tells most other hashes by their top bits alone."""
        order = np.lexsort((positions, items, hashes))
        unique, first = np.unique(hashes[order], return_index=True)
        bits = min(max(int(len(unique) * 16).bit_length(), 8), _MAX_FILTER_BITS)
        known = np.zeros(1 << bits, np.bool_)
        known[unique >> np.uint64(64 - bits)] = True
        return cls(
            size,
            known,
            unique,
            np.append(first, len(hashes)).astype(np.int64),
            items[order].astype(np.int32),
            positions[order].astype(np.int32),
        )

    def hits(self, hashes: Hashes) -> tuple[Integers, Integers, Integers]:
        """Return place in the document, item and position in the item of every shared run."""
        nothing = np.empty(0, np.int64)
        windows = ngram_hashes(hashes, self.size)
        if not len(windows) or not len(self.hashes):
            return nothing, nothing, nothing
        shift = np.uint64(64 - (len(self.filter).bit_length() - 1))
        places = np.flatnonzero(self.filter[windows >> shift])
        found = np.searchsorted(self.hashes, windows[places])
        found[found == len(self.hashes)] = 0
        same = self.hashes[found] == windows[places]
        places, found = places[same], found[same]
        counts = self.bounds[found + 1] - self.bounds[found]
        total = int(counts.sum())
        rows = np.repeat(self.bounds[found] - np.cumsum(counts) + counts, counts) + np.arange(total)
        return (
            np.repeat(places, counts),
            self.items[rows].astype(np.int64),
            self.positions[rows].astype(np.int64),
        )


def windows_of(
    words: Hashes,
    weights: npt.NDArray[np.float32],
    bounds: Integers,
    chosen: npt.NDArray[np.bool_],
    *,
    size: int,
    common: int,
) -> Windows:
    """Return the windows of the chosen items that lead to a candidate.

    Args:
        words: hashes of all items' words.
        weights: what each of them says.
        bounds: where each item's words begin.
        chosen: per item, whether its windows are wanted.
        size: words per window.
        common: a window of more items than this is left out, unless it is among its item's rarest.
    """
    counts = np.diff(bounds)
    item_of_word = np.repeat(np.arange(len(counts)), counts)
    starts = np.arange(max(len(words) - size + 1, 0))
    owner = item_of_word[starts]
    inside = starts + size <= bounds[owner + 1]
    keep = inside & chosen[owner]
    content = np.append(0.0, np.cumsum(weights, dtype=np.float64))
    keep &= content[starts + size] - content[starts] > 0
    hashes = ngram_hashes(words, size)[keep]
    owner, position = owner[keep], (starts - bounds[owner])[keep]
    _, group, frequency = np.unique(hashes, return_inverse=True, return_counts=True)
    # Rank the windows of an item by how many others share them; the rarest stay in any case.
    order = np.lexsort((position, frequency[group], owner))
    rank = np.empty(len(order), np.int64)
    first = np.searchsorted(owner[order], np.arange(len(counts)))
    rank[order] = np.arange(len(order)) - first[owner[order]]
    keep = (frequency[group] <= common) | (rank < _RAREST_WINDOWS)
    return Windows.build(size, hashes[keep], owner[keep], position[keep])


def words_of_all(texts: Sequence[str]) -> tuple[Hashes, npt.NDArray[np.float32], Integers]:
    """Return hashes and weights of all texts' words, and where each text's begin and the last one's end.

    Joined before they are cut into words: a call for each of 10^5 stems would cost more than the words do.
    """
    hashes: list[Hashes] = [np.empty(0, np.uint64)]
    weights: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
    counts: list[Integers] = [np.zeros(1, np.int64)]
    start = 0
    while start < len(texts):
        end, size = start, 0
        while end < len(texts) and (end == start or size + len(texts[end]) < _BATCH_CHARACTERS):
            size += len(texts[end]) + 1
            end += 1
        words = words_of("\n".join(texts[start:end]))
        ends = np.cumsum([len(text) + 1 for text in texts[start:end]])
        counts.append(np.diff(np.searchsorted(words.starts, ends), prepend=0))
        hashes.append(words.hashes)
        weights.append(weights_of(words))
        start = end
    return np.concatenate(hashes), np.concatenate(weights), np.cumsum(np.concatenate(counts))


class Clusters(NamedTuple):
    """Runs that an item shares with one place of a document, together; arrays with one entry per cluster."""

    items: Integers
    covered: Integers
    low_shifts: Integers
    high_shifts: Integers
    first_places: Integers
    last_places: Integers


def clusters_of(
    hits: tuple[Integers, Integers, Integers], size: int, bounds: Integers, *, widest: int | None = None
) -> Clusters:
    """Gather hits of one item whose shifts (place minus position) differ by few words.

    Args:
        hits: place, item and position of each shared run.
        size: words per run.
        bounds: where each item's words begin.
        widest: if given, no cluster's shifts lie further apart.
    """
    places, items, positions = hits
    if not len(places):
        return Clusters(*[np.empty(0, np.int64)] * 6)
    shifts = places - positions
    order = np.lexsort((positions, shifts, items))
    places, items, positions, shifts = places[order], items[order], positions[order], shifts[order]
    slack = (bounds[items + 1] - bounds[items]) // 4 + 8
    new = np.ones(len(items), np.bool_)
    new[1:] = (items[1:] != items[:-1]) | (shifts[1:] - shifts[:-1] > slack[1:])
    if widest is not None:
        new[1:] |= shifts[1:] // widest != shifts[:-1] // widest
    first = np.flatnonzero(new)
    cluster = np.cumsum(new) - 1
    last = np.append(first[1:], len(items)) - 1
    # A list that says "et al 2018" ten times would otherwise be covered by one such place.
    covered = np.minimum(_united(positions, cluster, first, size), _united(places, cluster, first, size))
    return Clusters(
        items=items[first],
        covered=covered,
        low_shifts=shifts[first],
        high_shifts=shifts[last],
        first_places=np.minimum.reduceat(places, first),
        last_places=np.maximum.reduceat(places, first),
    )


def _united(at: Integers, cluster: Integers, first: Integers, size: int) -> Integers:
    """Return how many words the runs of each cluster cover together; they start at ``at``."""
    ordered = at[np.lexsort((at, cluster))]
    # A run adds what the run before it did not reach.
    step = np.full(len(ordered), size, np.int64)
    inside = cluster[1:] == cluster[:-1]
    step[1:][inside] = np.minimum(ordered[1:] - ordered[:-1], size)[inside]
    return np.asarray(np.add.reduceat(step, first))
