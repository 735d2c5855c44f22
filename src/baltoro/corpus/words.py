"""The words of a text as numbers: what filters, near-duplicate search and decontamination count and compare.

A word is a run of letters and digits; in Chinese, Japanese and Korean every character is a word of its own,
since their words are not set apart. Case, accents, compatibility forms, punctuation and white space do not
matter, so another parser's line breaks or quotation marks give the same words. Offsets point into the
text as it is, so that a match can be cut out of it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_SEPARATOR, _LETTER, _DIGIT, _SINGLE, _IGNORED = range(5)
_TABLE_SIZE = 0x20000
_LAST_PLANE_OF_IDEOGRAPHS = 0x40000

# Ranges whose every character counts as a word: ideographs, kana, Hangul.
_SINGLE_RANGES = (
    (0x1100, 0x1200),
    (0x2E80, 0x3000),
    (0x3040, 0x3100),
    (0x3105, 0x3190),
    (0x31A0, 0x31C0),
    (0x31F0, 0x3200),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA4D0),
    (0xA960, 0xA980),
    (0xAC00, 0xD800),
    (0xF900, 0xFB00),
    (0xFF66, 0xFFDD),
    (0x1B000, 0x1B170),
)

_CHARACTER = np.uint64(0x9E3779B97F4A7C15)
_PLACE = np.uint64(0xD6E8FEB86659FD93)
_WORD = np.uint64(0xA0761D6478BD642F)

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one text, in order.

    Attributes:
        hashes: uint64 per word; equal for equal words. Two different words collide with probability about
            2^-64: the hash is a polynomial modulo 2^64, then mixed. It is no defence against an adversary.
        starts: int64, offset of each word's first character in the text, in characters.
        ends: int64, offset after its last character.
        has_letter: whether the word holds a letter (a number does not).
        single: whether it is one character of a script whose words are not set apart.
    """

    hashes: Hashes
    starts: Offsets
    ends: Offsets
    has_letter: npt.NDArray[np.bool_]
    single: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def lengths(self) -> Offsets:
        """Characters per word."""
        return self.ends - self.starts


def words_of(text: str) -> Words:
    """Return the words of a text."""
    codes: npt.NDArray[np.uint32] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    classes_by_code, folded_by_code = _tables()
    if text.isascii() or not len(codes) or int(codes.max()) < _TABLE_SIZE:
        kinds, folded = classes_by_code[codes], folded_by_code[codes]
    else:
        inside = codes < _TABLE_SIZE
        known = np.where(inside, codes, 0)
        beyond = np.where(codes < _LAST_PLANE_OF_IDEOGRAPHS, _SINGLE, _SEPARATOR).astype(np.uint8)
        kinds = np.where(inside, classes_by_code[known], beyond)
        folded = np.where(inside, folded_by_code[known], codes)
    places: Offsets | None = None
    if not text.isascii() and (ignored := kinds == _IGNORED).any():
        places = np.flatnonzero(~ignored)
        kinds, folded = kinds[places], folded[places]
    inside_word = kinds != _SEPARATOR
    single = kinds == _SINGLE
    before = np.empty_like(inside_word)
    before[:1] = False
    # A word goes on where the character before is part of one and neither stands alone.
    np.logical_and(inside_word[1:], inside_word[:-1], out=before[1:])
    if single.any():
        before[1:] &= ~(single[1:] | single[:-1])
    starts = np.flatnonzero(inside_word & ~before)
    if not len(starts):
        empty = np.empty(0, np.int64)
        return Words(np.empty(0, np.uint64), empty, empty, np.empty(0, np.bool_), np.empty(0, np.bool_))
    # Separators count towards the word before them, with the value 0.
    bounds = np.append(starts[1:], len(kinds))
    characters = np.add.reduceat(inside_word.astype(np.int64), starts)
    place = np.arange(starts[0], len(kinds)) - np.repeat(starts, bounds - starts)
    powers = _powers(int(characters.max()))
    body = slice(int(starts[0]), None)
    values = (folded[body].astype(np.uint64) + np.uint64(1)) * _CHARACTER
    values *= powers[np.minimum(place, len(powers) - 1)]
    values *= inside_word[body]
    hashes = mixed(np.add.reduceat(values, starts - starts[0]))
    has_letter = np.logical_or.reduceat((kinds == _LETTER) | single, starts)
    last = starts + characters - 1
    if places is None:
        return Words(hashes, starts, last + 1, has_letter, single[starts])
    return Words(hashes, places[starts], places[last] + 1, has_letter, single[starts])


def ngram_hashes(hashes: Hashes, n: int) -> Hashes:
    """Return a uint64 per run of ``n`` consecutive words; empty if there are fewer.

    Raises:
        ValueError: ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"n: {n} is not allowed; an n-gram has at least one word")
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = hashes[:count].copy()
    for offset in range(1, n):
        total *= _WORD
        total += hashes[offset : offset + count]
    return mixed(total)


def mixed(values: Hashes) -> Hashes:
    """Return the values with their bits spread over all 64 (the finaliser of SplitMix64; a bijection)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _powers(count: int) -> Hashes:
    powers = np.full(max(count, 1), _PLACE, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


@lru_cache(maxsize=1)
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Return class and folded code of every character below :data:`_TABLE_SIZE`."""
    kinds = np.zeros(_TABLE_SIZE, np.uint8)
    folded = np.arange(_TABLE_SIZE, dtype=np.uint32)
    for code in range(_TABLE_SIZE):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Mn", "Me", "Cf"):
            kinds[code] = _IGNORED
        elif category[0] in "LM":
            kinds[code] = _LETTER
        elif category[0] == "N":
            kinds[code] = _DIGIT
        else:
            continue
        base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        lowered = (base if len(base) == 1 else character).lower()
        folded[code] = ord(lowered[0])
    for first, end in _SINGLE_RANGES:
        named = kinds[first:end]
        named[named == _LETTER] = _SINGLE
    return kinds, folded
