"""Near-duplicates: a small signature of a document's text, by which similar documents meet and are compared.

A document is the set of its runs of five words (*shingles*). Two documents are near-duplicates when their
sets overlap: the Jaccard similarity J is the shared part of the union. The signature estimates J without
the text:

1. **One-permutation hashing** (Li, Owen, Zhang 2012): the 64-bit hashes of the shingles are sorted once; the
   top bits cut them into ``bins``; each bin keeps its smallest hash. That is one hash per shingle, where the
   classic scheme (Broder 1997) computes ``bins`` of them.
2. **Optimal densification** (Shrivastava, ICML 2017, algorithm 1): a bin that no shingle fell into, as
   happens in short texts, borrows the minimum of the first filled bin in an order of its own, the same in
   every document. Two signatures then agree in a bin with probability exactly J, short texts included.
3. **Bands** (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4): ``rows`` bins make one key. Two
   documents share one of ``bands`` keys with probability 1 − (1 − J^rows)^bands.
4. **Sketch** (b-bit minwise hashing: Li, König, WWW 2010): 4 bits of each bin travel with the keys. The share
   of equal bins, less what chance gives (1/16), estimates J without bias; its standard deviation for 256
   bins is 0.033 at J = 0.5 and 0.016 at 0, in 128 bytes (8 bits of half as many bins would give 0.044 in as
   many bytes). Candidates count only where the estimate reaches the threshold, so a shared band alone never
   merges two papers.

With the defaults (64 bands × 4 rows, threshold 0.45) a pair is found with the probabilities of
:func:`chance_of_being_found`:

====  =======  =========  =====
J     a band   threshold  found
====  =======  =========  =====
0.02  0.000    0.000      0.000
0.17  0.052    0.000      0.000
0.30  0.406    0.000      0.000
0.40  0.810    0.074      0.060
0.45  0.931    0.525      0.489
0.50  0.984    0.941      0.926
0.55  0.998    0.999      0.997
0.60  1.000    1.000      1.000
0.70  1.000    1.000      1.000
0.90  1.000    1.000      1.000
====  =======  =========  =====

The threshold is set by what must be found: replacing a fifth of a paper's sentences leaves J near 0.6 (below
0.55 in one paper of twenty), while unrelated papers stay below 0.02 and papers that share a long printed form
(a conference's checklist) below 0.2. In Chinese, Japanese and Korean text a shingle is five characters.

*Not found*: a text whose every eighth word was replaced (each replacement breaks five shingles, J falls to
0.35), a translation, and a copy cut to less than half its length: for a text wholly contained in another, J
is the ratio of the lengths. ``min_containment`` accepts such candidates too, but they must share a band
first, which at a third of the length is a matter of luck (0.55). Versions of a paper are found by title and
DOI (:mod:`~baltoro.corpus.dedup.versions`), whatever their length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from baltoro.corpus.words import Hashes, Words, mixed, ngram_hashes

if TYPE_CHECKING:
    from baltoro.corpus.dedup.config import NearDuplicateConfig

Sketch = npt.NDArray[np.uint8]

_BAND = np.uint64(0x9E3779B97F4A7C15)
_ROW = np.uint64(0xA0761D6478BD642F)
_CHANCE = 1 / 16
_LOWEST_BITS = np.uint64(0x1111111111111111)


@dataclass(frozen=True, slots=True)
class Signature:
    """What near-duplicate search knows of a document.

    Attributes:
        band_keys: uint64, one per band; equal keys make two documents candidates.
        sketch: uint8, two bins a byte; the share of equal bins estimates the similarity.
        shingles: number of different shingles, for estimates of containment.
    """

    band_keys: Hashes
    sketch: Sketch
    shingles: int


def shingles_of(words: Words, size: int) -> Hashes:
    """Return the sorted, distinct uint64 hashes of a text's runs of ``size`` words.

    A text with fewer words is one shingle of what it has; a text without words has none.
    """
    size = min(size, len(words))
    if size == 0:
        return np.empty(0, np.uint64)
    hashes = ngram_hashes(words.hashes, size)
    hashes.sort()
    different = np.empty(len(hashes), np.bool_)
    different[0] = True
    np.not_equal(hashes[1:], hashes[:-1], out=different[1:])
    return hashes[different]


def signature_of(words: Words, config: NearDuplicateConfig) -> Signature:
    """Return the signature of a text.

    A text without words has no band keys and a sketch of zeros; one with fewer words than
    ``config.min_words`` has no band keys (it meets nobody), but a sketch.
    """
    shingles = shingles_of(words, config.shingle_words)
    minima = bin_minima(shingles, config.bins)
    keys = np.empty(0, np.uint64)
    if len(words) >= max(config.min_words, 1):
        keys = band_keys(minima, config.bands)
    bits = (minima & np.uint64(15)).astype(np.uint8)
    return Signature(keys, bits[0::2] | bits[1::2] << np.uint8(4), len(shingles))


def bin_minima(shingles: Hashes, bins: int) -> Hashes:
    """Return the smallest hash of each bin, empty bins densified; zeros if there are no shingles.

    Args:
        shingles: sorted uint64 hashes.
        bins: a power of two from 2 to 4096; the top bits of a hash name its bin.
    """
    if not len(shingles):
        return np.zeros(bins, np.uint64)
    first = np.searchsorted(shingles, _bin_starts(bins))
    ends = np.append(first[1:], len(shingles))
    filled = ends > first
    minima = shingles[np.minimum(first, len(shingles) - 1)]
    if not filled.all():
        empty = np.flatnonzero(~filled)
        order = _borrowing_order(bins)[empty]
        lenders = order[np.arange(len(empty)), filled[order].argmax(axis=1)]
        minima[empty] = minima[lenders]
    return minima


def band_keys(minima: Hashes, bands: int) -> Hashes:
    """Return one uint64 per band of consecutive bins; equal bins in different bands give different keys."""
    rows = minima.reshape(bands, -1)
    keys = np.arange(1, bands + 1, dtype=np.uint64) * _BAND
    for row in range(rows.shape[1]):
        keys *= _ROW
        keys += rows[:, row]
    return mixed(keys)


def similarity(one: Sketch, other: Sketch) -> npt.NDArray[np.float64]:
    """Return the estimated Jaccard similarity of sketches, along the last axis.

    The estimate is unbiased, so unrelated texts give small values on both sides of zero.
    """
    different = _as_uint64(one) ^ _as_uint64(other)
    different |= different >> np.uint64(2)
    different |= different >> np.uint64(1)
    count = np.bitwise_count(different & _LOWEST_BITS).sum(axis=-1, dtype=np.int64)
    equal = 1 - count / (2 * one.shape[-1])
    return np.asarray((equal - _CHANCE) / (1 - _CHANCE))


def similarity_noise(bins: int) -> float:
    """Return the standard deviation of the estimated similarity of unrelated texts: 0.016 for 256 bins."""
    return math.sqrt(_CHANCE / (1 - _CHANCE) / bins)


def containment(
    similarities: npt.NDArray[np.float64], shingles: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the share of the smaller shingle set that is in the larger, from similarity and sizes.

    |A ∩ B| = J (|A| + |B|) / (1 + J). The error of J is multiplied by about the ratio of the sizes.
    """
    common = similarities * (shingles + others) / (1 + similarities)
    return np.clip(common / np.maximum(np.minimum(shingles, others), 1), 0.0, 1.0)


def chance_of_being_found(similarity: float, config: NearDuplicateConfig) -> tuple[float, float, float]:
    """Return the probabilities that two texts share a band, that the estimate passes, and of both.

    The last is their product. The two are not independent (both count equal bins), so near the threshold
    it is a little too low.
    """
    band = 1 - (1 - similarity**config.rows) ** config.bands
    equal = similarity + (1 - similarity) * _CHANCE
    needed = math.ceil((config.threshold * (1 - _CHANCE) + _CHANCE) * config.bins)
    passes = sum(
        math.comb(config.bins, k) * equal**k * (1 - equal) ** (config.bins - k)
        for k in range(needed, config.bins + 1)
    )
    return band, passes, band * passes


def _as_uint64(sketch: Sketch) -> Hashes:
    return np.ascontiguousarray(sketch).view(np.uint64)


@lru_cache(maxsize=8)
def _bin_starts(bins: int) -> Hashes:
    return np.arange(bins, dtype=np.uint64) << np.uint64(65 - bins.bit_length())


@lru_cache(maxsize=8)
def _borrowing_order(bins: int) -> npt.NDArray[np.int64]:
    """Return a permutation of the bins per bin: where it looks for a filled one.

    Drawing with replacement until a filled bin comes up, as the paper does, picks the same bin as the
    first filled one of a random permutation. The permutations are sorts by a mixed hash, so they depend
    on nothing but ``bins``.
    """
    cells = np.arange(1, bins * bins + 1, dtype=np.uint64) * _BAND
    return np.argsort(mixed(mixed(cells)).reshape(bins, bins), axis=1, kind="stable")
