"""Where a long pre-token can be cut without a change of its ids: between characters that no merge ever joins.

Chinese and Japanese have no blanks, so their pre-tokens are whole clauses and hardly ever come twice.
But a token can only span the place between two characters if some merge joins a part that ends there
with a part that starts there: the first merge across the place must be of that form. Where the vocabulary
has no such merge for the two characters, what lies before and behind is merged apart, and may be
looked up apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from baltoro.data.tokenizer import byte_characters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Offsets = npt.NDArray[np.int64]
_Unsigned = npt.NDArray[np.uint64]
_Mask = npt.NDArray[np.bool_]

_HASH = np.uint64(0x9E3779B97F4A7C15)
_FILTER_BITS = 20
_CHARACTER_BYTES = 4


class Joints:
    """The places between characters that some merge of a byte-level BPE spans.

    Only places between two characters beyond ASCII are looked at; all others count as joined.
    """

    def __init__(self, merges: Iterable[tuple[bytes, bytes]], missing_bytes: Iterable[int]) -> None:
        """Prepare from what a vocabulary merges.

        Args:
            merges: the two sides of each merge, as the bytes they stand for.
            missing_bytes: bytes that the vocabulary lacks: what it does with them is not looked into.
        """
        joined: dict[tuple[int, int], set[int]] = {}
        for left, right in merges:
            ending, start = _ending(left), _start(right)
            if ending and start:
                key = int.from_bytes(ending, "little") << 32 | int.from_bytes(start, "little")
                joined.setdefault((len(ending), len(start)), set()).add(key)
        self._joined = {sizes: np.array(sorted(keys), np.uint64) for sizes, keys in joined.items()}
        self._filter = np.zeros(1 << _FILTER_BITS, np.bool_)
        for keys in self._joined.values():
            self._filter[_hashed(keys)] = True
        self._missing = np.array([byte for byte in missing_bytes if byte >= 0x80], np.uint8)

    def cuts(
        self, raw: bytes, starts: Offsets, lengths: Offsets, whole: Offsets, *, longest_bytes: int
    ) -> Offsets:
        """Return where pieces longer than ``longest_bytes`` may be cut, as ascending byte offsets.

        Args:
            raw: valid UTF-8, with 8 bytes after the last piece.
            starts: int64, first byte of each piece; they follow each other without a gap.
            lengths: int64, bytes of each piece.
            whole: the pieces that must not be cut.
            longest_bytes: shorter pieces are left whole.
        """
        is_long = lengths > longest_bytes
        is_long[whole] = False
        if raw.isascii() or not is_long.any():
            return np.empty(0, np.int64)
        values = np.frombuffer(raw, np.uint8)
        inside = np.repeat(is_long, lengths)
        inside[starts - starts[0]] = False
        leads = np.flatnonzero(values >= 0xC0)
        behind = np.flatnonzero((values[leads - 1] >= 0x80) & inside[leads - starts[0]])
        places, before = leads[behind], leads[behind - 1]
        words = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))
        both = words.take(before)
        first_size = (places - before).astype(np.uint64)
        lead = values[places]
        second_size = (2 + (lead >= 0xE0).astype(np.int64) + (lead >= 0xF0)).astype(np.uint64)
        bits = first_size * np.uint64(8)
        first = both & _low(first_size)
        second = both >> bits & _low(second_size)
        apart = ~self._are_joined(first, first_size, second, second_size)
        if len(self._missing):
            unknown = np.append(0, np.cumsum(np.isin(values, self._missing)))
            ends = places + second_size.astype(np.int64)
            apart &= unknown[ends] == unknown[before]
        found: Offsets = places[apart]
        return found

    def _are_joined(
        self, first: _Unsigned, first_size: _Unsigned, second: _Unsigned, second_size: _Unsigned
    ) -> _Mask:
        result = np.zeros(len(first), np.bool_)
        for (ending_size, start_size), keys in self._joined.items():
            ending, start = np.uint64(ending_size), np.uint64(start_size)
            fits = (first_size >= ending) & (second_size >= start)
            dropped = np.where(fits, first_size - ending, np.uint64(0)) * np.uint64(8)
            wanted = first >> dropped << np.uint64(32) | second & _low(np.full(1, start))
            likely = np.flatnonzero(fits & ~result & self._filter[_hashed(wanted)])
            chosen = wanted[likely]
            nearest = np.minimum(np.searchsorted(keys, chosen), len(keys) - 1)
            result[likely] = keys[nearest] == chosen
        return result


def joints_of(backend: Tokenizer) -> Joints | None:
    """Return the joints of a tokenizer's BPE; ``None`` if settings tie the parts of a pre-token together."""
    model = json.loads(backend.to_str())["model"]
    tied = ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    if any(model.get(setting) for setting in tied):
        return None
    characters = byte_characters()
    byte_of = {character: byte for byte, character in characters.items()}
    alphabet = frozenset(byte_of)

    def merges() -> Iterable[tuple[bytes, bytes]]:
        for left, right in model["merges"]:
            # Most merges are of plain letters; characters beyond ASCII have stand-ins beyond it.
            if not left.isascii() and not right.isascii() and alphabet.issuperset(left + right):
                yield bytes(map(byte_of.__getitem__, left)), bytes(map(byte_of.__getitem__, right))

    return Joints(merges(), [byte for byte, name in characters.items() if name not in model["vocab"]])


def _ending(text: bytes) -> bytes:
    """Return the last character, or what there is of its end; empty if the text stops inside a character."""
    lead = len(text) - 1
    while lead > 0 and _is_inner(text[lead]):
        lead -= 1
    ending = text[lead:]
    if _is_inner(ending[0]):
        return ending if len(ending) < _CHARACTER_BYTES else b""
    return ending if ending[0] >= 0xC0 and len(ending) == _size(ending[0]) else b""


def _start(text: bytes) -> bytes:
    """Return the first character, or what there is of it; empty if the text starts inside a character."""
    return text[: _size(text[0])] if text[0] >= 0xC0 else b""


def _is_inner(byte: int) -> bool:
    return byte & 0xC0 == 0x80


def _size(lead: int) -> int:
    return 2 + (lead >= 0xE0) + (lead >= 0xF0)


def _low(size: _Unsigned) -> _Unsigned:
    """Return a mask of the lowest bytes."""
    return (np.uint64(1) << (size * np.uint64(8))) - np.uint64(1)


def _hashed(keys: _Unsigned) -> Offsets:
    places: Offsets = (keys * _HASH >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)
    return places
