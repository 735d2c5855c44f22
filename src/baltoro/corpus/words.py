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

_BLOCK_CHARACTERS = 1 << 17
_MODULUS = 1 << 64

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Characters:
    """The code points of one text, taken out of it once for all that counts them.

    Most of most papers is ASCII, and a byte is looked up or compared many times faster than four of them.

    Attributes:
        codes: code point per character, in 8, 16 or 32 bits as the text needs.
        ascii: uint8, the same with 0 for what is not ASCII.
        beyond: int64, where that stands.
    """

    codes: Codes
    ascii: npt.NDArray[np.uint8]
    beyond: Offsets

    @classmethod
    def of(cls, text: str) -> Characters:
        """Take the code points of a text."""
        if text.isascii():
            codes = np.frombuffer(text.encode("ascii"), np.uint8)
            return cls(codes, codes, np.empty(0, np.int64))
        raw = text.encode("utf-16-le", "surrogatepass")
        wide: npt.NDArray[np.uint16] | npt.NDArray[np.uint32] = np.frombuffer(raw, np.uint16)
        if len(wide) > len(text):
            wide = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        beyond = (wide > 127).nonzero()[0]
        low = wide.astype(np.uint8)
        low[beyond] = 0
        return cls(wide, low, beyond)


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
        characters: those of the text.
    """

    hashes: Hashes
    starts: Offsets
    ends: Offsets
    has_letter: Flags
    single: Flags
    characters: Characters

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def lengths(self) -> Offsets:
        """Characters per word."""
        return self.ends - self.starts


def words_of(text: str) -> Words:
    """Return the words of a text."""
    characters = Characters.of(text)
    low, beyond = characters.ascii, characters.beyond
    places: Offsets | None = None
    kinds, folded = _kinds_of(characters.codes[beyond])
    ignored = kinds == _IGNORED
    if ignored.any():
        kept = np.ones(len(low), np.bool_)
        kept[beyond[ignored]] = False
        places = kept.nonzero()[0]
        low = low[places]
        beyond, kinds, folded = np.searchsorted(places, beyond[~ignored]), kinds[~ignored], folded[~ignored]
    in_word = kinds != _SEPARATOR
    beyond, kinds = beyond[in_word], kinds[in_word]
    values = (folded[in_word].astype(np.uint64) + np.uint64(1)) * _CHARACTER
    letter = _ascii_letters(low)
    inside = letter | (low - np.uint8(48) < 10)
    inside[beyond] = True
    letter[beyond[kinds != _DIGIT]] = True
    singles = beyond[kinds == _SINGLE]
    starts, ends = _bounds(inside, singles)
    # Characters are taken two at a time where a separator stands between any two words.
    step = 1 if len(singles) else 2
    if step == 1:
        terms = _terms()[0].take(low, mode="clip")
        terms[beyond] = values
    else:
        terms = _terms()[1].take(in_pairs(low), mode="clip")
        odd = (beyond & 1).astype(np.bool_)
        terms[beyond[~odd] >> 1] += values[~odd]
        terms[beyond[odd] >> 1] += values[odd] * _PLACE
    single = np.zeros(len(starts), np.bool_)
    if len(singles):
        single[np.searchsorted(starts, singles)] = True
    has_letter = letter[starts]
    unsure = (~has_letter).nonzero()[0]
    if len(unsure):
        has_letter[unsure] = _any_between(letter, starts[unsure], ends[unsure])
    hashes = mixed(_polynomials(terms, step, starts, ends))
    if places is not None:
        starts, ends = places[starts], places[ends - 1] + 1
    return Words(hashes, starts, ends, has_letter, single, characters)


def in_pairs(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Return bytes two by two as numbers, the first in the low bits; a 0 fills up an odd number."""
    even = np.append(codes, np.uint8(0)) if len(codes) % 2 else codes
    return even.view("<u2")


def _ascii_letters(low: npt.NDArray[np.uint8]) -> Flags:
    # What is below "a" becomes a large number.
    letters: Flags = (low | np.uint8(32)) - np.uint8(97) < 26
    return letters


def _kinds_of(codes: Codes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Return class and folded code of characters beyond ASCII."""
    kinds_by_code, folded_by_code = _tables()
    if codes.dtype != np.uint32:
        return kinds_by_code.take(codes, mode="clip"), folded_by_code.take(codes, mode="clip")
    inside = codes < _TABLE_SIZE
    known = np.where(inside, codes, 0)
    far = np.where(codes < _LAST_PLANE_OF_IDEOGRAPHS, _SINGLE, _SEPARATOR).astype(np.uint8)
    return np.where(inside, kinds_by_code[known], far), np.where(inside, folded_by_code[known], codes)


def _bounds(inside: Flags, singles: Offsets) -> tuple[Offsets, Offsets]:
    """Return where words start and end, from what is part of one and what is one by itself."""
    if not len(inside):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not len(singles):
        changes = np.empty(len(inside) + 1, np.bool_)
        changes[0], changes[-1] = inside[0], inside[-1]
        np.not_equal(inside[1:], inside[:-1], out=changes[1:-1])
        bounds = changes.nonzero()[0]
        return np.ascontiguousarray(bounds[0::2]), np.ascontiguousarray(bounds[1::2])
    # A word goes on where the character before is part of one and neither stands alone.
    apart = np.zeros(len(inside) + 1, np.bool_)
    apart[singles] = apart[singles + 1] = apart[0] = apart[-1] = True
    apart[1:-1] |= ~(inside[1:] & inside[:-1])
    return (inside & apart[:-1]).nonzero()[0], (inside & apart[1:]).nonzero()[0] + 1


def _any_between(flags: Flags, starts: Offsets, ends: Offsets) -> Flags:
    edges = np.empty(2 * len(starts), np.int64)
    edges[0::2], edges[1::2] = starts, ends
    # A range may end with the flags, and ``reduceat`` takes no index there.
    padded = np.append(flags, False)
    return np.asarray(np.logical_or.reduceat(padded, edges)[0::2])


def _polynomials(terms: Hashes, step: int, starts: Offsets, ends: Offsets) -> Hashes:
    """Return for each word the sum of its characters' terms times the powers of a constant, from 0 on.

    Each term is multiplied by a power that only its place in a block decides; dividing by that of the word's
    first character (the constant is odd, so it has an inverse modulo 2^64) gives the word's own sum.

    Args:
        terms: one per ``step`` characters; 0 where a character is not part of a word.
        step: 1 or 2.
        starts: where words start, in characters.
        ends: where they end.
    """
    powers, inverse = _powers(step)
    found = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):
        base = int(starts[first]) // step * step
        end = int(np.searchsorted(ends, base + _BLOCK_CHARACTERS, side="right"))
        if end == first:
            end = first + 1
            found[first] = _polynomial(terms[base // step : -(-int(ends[first]) // step)], step)
        else:
            values = terms[base // step : -(-int(ends[end - 1]) // step)]
            values *= powers[: len(values)]
            np.add.reduceat(values, (starts[first:end] - base) // step, out=found[first:end])
        found[first:end] *= inverse[starts[first:end] - base]
        first = end
    return found


def _polynomial(terms: Hashes, step: int) -> np.uint64:
    """Return the sum of a word that is longer than a block."""
    powers, _ = _powers(step)
    total = 0
    for start in range(0, len(terms), len(powers)):
        part = terms[start : start + len(powers)]
        total += int((part * powers[: len(part)]).sum()) * pow(int(_PLACE), start * step, _MODULUS)
    return np.uint64(total % _MODULUS)


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


def ngram_hashes_at(hashes: Hashes, n: int, places: Offsets) -> Hashes:
    """Return ``ngram_hashes(hashes, n)[places]``, at the cost of those places alone."""
    total = hashes[places]
    for offset in range(1, n):
        total *= _WORD
        total += hashes[places + offset]
    return mixed(total)


def mixed(values: Hashes) -> Hashes:
    """Return the values with their bits spread over all 64 (the finaliser of SplitMix64; a bijection)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@lru_cache(maxsize=2)
def _powers(step: int) -> tuple[Hashes, Hashes]:
    """Return the powers of the constant for a block's terms, and their inverses for its characters."""
    place = int(_PLACE)
    powers = np.full(_BLOCK_CHARACTERS // step, pow(place, step, _MODULUS), np.uint64)
    inverse = np.full(_BLOCK_CHARACTERS, pow(place, -1, _MODULUS), np.uint64)
    powers[0] = inverse[0] = 1
    return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverse, dtype=np.uint64)


@lru_cache(maxsize=1)
def _terms() -> tuple[Hashes, Hashes]:
    """Return what ASCII characters, and pairs of them, add to a word's sum."""
    kinds, folded = _tables()
    one = np.zeros(256, np.uint64)
    one[:128] = (folded[:128].astype(np.uint64) + np.uint64(1)) * _CHARACTER * (kinds[:128] != _SEPARATOR)
    return one, (one[:, None] * _PLACE + one).reshape(-1)


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
