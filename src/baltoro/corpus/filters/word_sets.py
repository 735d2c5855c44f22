"""Sets of words that are looked up for every word of a text at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baltoro.corpus.words import Hashes

_BUCKETS = 1 << 16
_ODD = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class WordSet:
    """A set of word hashes as a hash table: membership is one look-up and one comparison.

    A binary search takes many times as long, and every word of a corpus is looked up.

    Attributes:
        buckets: one hash per bucket (its low bits); an empty bucket holds a number of another one.
        rest: the hashes whose bucket was taken, in a table of their own.
    """

    buckets: Hashes
    rest: WordSet | None

    @classmethod
    def of(cls, hashes: Hashes) -> WordSet:
        """Return the set of the given hashes, of which there may be none."""
        # Whichever of two hashes takes the bucket, the same words are found.
        unique = np.unique(hashes)
        places = _places(unique)
        buckets = np.arange(_BUCKETS, dtype=np.uint64) ^ np.uint64(1)
        buckets[places] = unique
        crowded = unique[buckets[places] != unique]
        return cls(buckets, cls.of(crowded) if len(crowded) else None)

    def contains(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Return which hashes are in the set."""
        found: npt.NDArray[np.bool_] = self.buckets[_places(hashes)] == hashes
        if self.rest is not None:
            found |= self.rest.contains(hashes)
        return found


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Some short lists of words, looked up together: each word is given a number.

    A number is one look-up in a table that fits into the processor's cache, and one comparison.

    Attributes:
        words: hash by number; 0 is the number of all words that are in no list.
        members: which numbers belong to each list.
        first_numbers: for each list the smallest number of a word that is in it or in one after it, so
            that the words of the last lists are told by their number's size.
    """

    words: Hashes
    members: tuple[npt.NDArray[np.bool_], ...]
    first_numbers: tuple[int, ...]
    _factor: np.uint64
    _buckets: npt.NDArray[np.uint16]

    @classmethod
    def of(cls, lists: Sequence[Hashes]) -> Lexicon:
        """Return the lexicon of some lists, of some hundred words together."""
        unique = np.unique(np.concatenate(lists))
        members = [np.isin(unique, words) for words in lists]
        last = np.max([place * member for place, member in enumerate(members)], axis=0)
        order = np.argsort(last, kind="stable")
        words = np.append(np.uint64(0), unique[order])
        # Of these factors nearly every one gives each word a bucket of its own.
        for number in itertools.count(1, 2):
            factor = np.uint64(number * _ODD % (1 << 64))
            places = _buckets_of(words[1:], factor)
            if len(np.unique(places)) == len(places):
                break
        buckets = np.zeros(_BUCKETS, np.uint16)
        buckets[places] = np.arange(1, len(words))
        return cls(
            words,
            tuple(np.append(False, member[order]) for member in members),
            tuple((1 + np.searchsorted(last[order], np.arange(len(lists)))).tolist()),
            factor,
            buckets,
        )

    def numbers(self, hashes: Hashes) -> npt.NDArray[np.uint16]:
        """Return the number of each word, 0 for those that are in no list."""
        numbers = self._buckets.take(_buckets_of(hashes, self._factor))
        numbers *= self.words.take(numbers) == hashes
        return numbers


def _buckets_of(hashes: Hashes, factor: np.uint64) -> npt.NDArray[np.int64]:
    return ((hashes * factor) >> np.uint64(48)).view(np.int64)


def _places(hashes: Hashes) -> npt.NDArray[np.uint16]:
    return hashes.astype(np.uint16)
