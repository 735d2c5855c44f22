"""What kind each character is: the one table that garble, formula and line rules look up.

A code point's row is one packed integer, so that a single ``np.add.reduceat`` counts every kind per word.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]

_TABLE_SIZE = 0x10000
_FIELD_BITS = 10
_MATH_BIT = 60
MOST_CHARACTERS = (1 << _FIELD_BITS) - 1
"""A longer run overflows its counters; callers leave such words out."""

VOWEL, LATIN, ACCENTED, UPPER, DIGIT, CYRILLIC = range(6)
"""Fields of a packed row. ``VOWEL``: a Latin vowel, y included; ``ACCENTED``: a Latin letter beyond ASCII."""

_VOWELS = frozenset("aeiouyæœøı")
_MATH = "=+<>^_{}\\|~*/±×÷·−≤≥≪≫≠≈≡≅∼∝∞∑∏∫∂∇√∈∉∋⊂⊆⊃⊇∪∩∧∨¬∀∃→←↔⇒⇔⟨⟩‖∥⊗⊕∘∗∆′″"


def codes_of(text: str) -> Codes:
    """Return the text's code points."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def counts_of(codes: Codes) -> npt.NDArray[np.int64]:
    """Return a packed row per character; their sums are read with :func:`field` and :func:`has_math`."""
    rows: npt.NDArray[np.int64] = _table().take(codes, mode="clip")
    return rows


def field(packed: npt.NDArray[np.int64], name: int) -> npt.NDArray[np.int64]:
    """Return one counter of packed rows."""
    return (packed >> (_FIELD_BITS * name)) & MOST_CHARACTERS


def has_math(packed: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return in which rows are operators, relations or TeX syntax (not multiples of 16 of them)."""
    found: npt.NDArray[np.bool_] = packed >> _MATH_BIT != 0
    return found


@lru_cache(maxsize=1)
def _table() -> npt.NDArray[np.int64]:
    # Code points beyond the table are clipped to its last row, a noncharacter.
    packed = np.zeros(_TABLE_SIZE, np.int64)
    # Letters with case and digits stand below 0x2000 or among the full-width forms.
    for code in [*range(0x30, 0x2000), *range(0xFF00, 0xFF60)]:
        packed[code] = sum(1 << (_FIELD_BITS * name) for name in _fields(chr(code)))
    for character in _MATH:
        packed[ord(character)] = 1 << _MATH_BIT
    return packed


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
