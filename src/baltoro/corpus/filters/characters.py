"""What kind each character is: the one table that garble, formula and line rules look up.

A code point's row is one packed integer, so that a single ``np.add.reduceat`` counts every kind per word.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from baltoro.corpus.words import Codes, Words, in_pairs

_TABLE_SIZE = 0x10000
_FIELD_BITS = 10
MOST_CHARACTERS = (1 << _FIELD_BITS) - 1
"""A longer run overflows its counters; callers leave such words out."""

VOWEL, LATIN, ACCENTED, UPPER, DIGIT, CYRILLIC = range(6)
"""Fields of a packed row. ``VOWEL``: a Latin vowel, y included; ``ACCENTED``: a Latin letter beyond ASCII."""

_VOWELS = frozenset("aeiouyæœøı")
_MATH = "=+<>^_{}\\|~*/±×÷·−≤≥≪≫≠≈≡≅∼∝∞∑∏∫∂∇√∈∉∋⊂⊆⊃⊇∪∩∧∨¬∀∃→←↔⇒⇔⟨⟩‖∥⊗⊕∘∗∆′″"


def counts_of(codes: Codes) -> npt.NDArray[np.int64]:
    """Return a packed row per character; their sums are read with :func:`field`."""
    rows: npt.NDArray[np.int64] = _table().take(codes, mode="clip")
    return rows


def counts_per_word(words: Words) -> npt.NDArray[np.int64]:
    """Return the sum of the characters' packed rows for each word."""
    characters = words.characters
    if not len(words):
        return np.empty(0, np.int64)
    # What follows a word up to the next one has neither letters nor digits, so it may be counted with it.
    if words.single.any():
        return np.asarray(np.add.reduceat(counts_of(characters.codes), words.starts))
    # A separator stands between any two words, so no two characters of different words make a pair.
    rows = _pair_table().take(in_pairs(characters.ascii), mode="clip")
    beyond = counts_of(characters.codes[characters.beyond])
    known = beyond.nonzero()[0]
    if len(known):
        places, beyond = characters.beyond[known], beyond[known]
        odd = (places & 1).astype(np.bool_)
        rows[places[~odd] >> 1] += beyond[~odd]
        rows[places[odd] >> 1] += beyond[odd]
    return np.asarray(np.add.reduceat(rows, words.starts >> 1))


def any_of_fields(*names: int) -> np.int64:
    """Return the bits of some counters: a packed row that has none of them has nothing to count there."""
    return np.int64(sum(MOST_CHARACTERS << (_FIELD_BITS * name) for name in names))


def one_of_field(name: int) -> np.int64:
    """Return a packed row in which a counter is 1 and all others are 0."""
    return np.int64(1 << (_FIELD_BITS * name))


def field(packed: npt.NDArray[np.int64], name: int) -> npt.NDArray[np.int64]:
    """Return one counter of packed rows."""
    return (packed >> (_FIELD_BITS * name)) & MOST_CHARACTERS


def is_math(codes: Codes) -> npt.NDArray[np.bool_]:
    """Return which characters are operators, relations or TeX syntax."""
    found: npt.NDArray[np.bool_] = _math_table().take(codes, mode="clip")
    return found


@lru_cache(maxsize=1)
def _table() -> npt.NDArray[np.int64]:
    # Code points beyond the table are clipped to its last row, a noncharacter.
    packed = np.zeros(_TABLE_SIZE, np.int64)
    # Letters with case and digits stand below 0x2000 or among the full-width forms.
    for code in [*range(0x30, 0x2000), *range(0xFF00, 0xFF60)]:
        packed[code] = sum(1 << (_FIELD_BITS * name) for name in _fields(chr(code)))
    return packed


@lru_cache(maxsize=1)
def _pair_table() -> npt.NDArray[np.int64]:
    rows = _table()[:256] * (np.arange(256) < 128)
    return np.asarray((rows[:, None] + rows).reshape(-1))


@lru_cache(maxsize=1)
def _math_table() -> npt.NDArray[np.bool_]:
    table = np.zeros(_TABLE_SIZE, np.bool_)
    table[[ord(character) for character in _MATH]] = True
    return table


def _fields(character: str) -> list[int]:
    if character.isdigit():
        return [DIGIT]
    if not character.isalpha():
        return []
    name = unicodedata.name(character, "")
    fields = [UPPER] if character.isupper() else []
    if name.startswith(("LATIN", "FULLWIDTH LATIN")):
        fields.append(LATIN)
        if ord(character) > 0x7F:
            fields.append(ACCENTED)
        base = unicodedata.normalize("NFKD", character)[0].lower()
        if base in _VOWELS:
            fields.append(VOWEL)
    elif name.startswith("CYRILLIC"):
        fields.append(CYRILLIC)
    return fields
