"""Sets of words that are looked up for every word of a text at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baltoro.corpus.words import Hashes

_BUCKETS = 1 << 16


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


def _places(hashes: Hashes) -> npt.NDArray[np.uint16]:
    return hashes.astype(np.uint16)
