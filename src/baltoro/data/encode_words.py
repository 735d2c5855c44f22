"""The token ids of distinct pre-tokens: looked up many at once, asked of the tokenizer's model when new.

Keys are the bytes themselves, no hash of them, so two pieces are never taken for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from baltoro.data.tokenizer import byte_characters

if TYPE_CHECKING:
    from tokenizers.models import BPE

Offsets = npt.NDArray[np.int64]
_Unsigned = npt.NDArray[np.uint64]

KEY_BYTES = 16
"""Pieces of up to so many bytes are kept in the table, as two integers; longer ones in a dictionary."""

_FIRST, _SECOND, _LENGTH, _VALUE = range(4)
_COUNT_BITS = np.uint64(16)
_COUNT_MASK = np.uint64((1 << 16) - 1)
_NEW = np.uint64(1 << 63)
_MULTIPLIERS = tuple(
    np.uint64(value)
    for value in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xBF58476D1CE4E5B9)
)
_SMALLEST_BITS = 16
_PENDING_AT_ONCE = 1 << 14
_LONGEST_KEPT_BYTES = 256


def _masks() -> tuple[_Unsigned, _Unsigned]:
    bits = [(1 << 8 * length) - 1 for length in range(KEY_BYTES + 1)]
    low = (1 << 64) - 1
    return np.array([b & low for b in bits], np.uint64), np.array([b >> 64 for b in bits], np.uint64)


_FIRST_MASK, _SECOND_MASK = _masks()


class WordTable:
    """A bounded store of pieces and their token ids.

    Open addressing with linear probing in rows of four 64-bit integers: sixteen bytes of text, its length
    (0: the row is free), and where its ids stand. Once it holds ``max_words``, it starts anew.
    """

    def __init__(self, model: BPE, fixed: list[int], max_words: int) -> None:
        """Make an empty table.

        Args:
            model: turns a pre-token, written in the characters of a byte-level vocabulary, into tokens.
            fixed: ids that stand at the start of :attr:`ids` for ever.
            max_words: pieces of both kinds that are kept, at most; a call may exceed it.
        """
        self._model = model
        self._fixed = fixed
        self._max_words = max_words
        self._alphabet = byte_characters()
        self._start_anew()

    def _start_anew(self) -> None:
        self._rows: _Unsigned = np.zeros((1 << _SMALLEST_BITS, 4), np.uint64)
        self._used = 0
        self._long: dict[bytes, tuple[int, int]] = {}
        self.ids: npt.NDArray[np.int32] = np.zeros(1 << _SMALLEST_BITS, np.int32)
        self._ids_used = 0
        self._append(self._fixed)

    def __len__(self) -> int:
        return self._used + len(self._long)

    def lookup(self, raw: bytes, starts: Offsets, lengths: Offsets) -> tuple[Offsets, Offsets]:
        """Return where the ids of each piece stand in :attr:`ids`, and how many there are.

        The answer holds until the next call.

        Args:
            raw: the text in UTF-8, with ``KEY_BYTES`` bytes after the last piece.
            starts: int64, first byte of each piece.
            lengths: int64, bytes of each piece; none is 0.
        """
        if len(self) > self._max_words or self._ids_used > 16 * self._max_words:
            self._start_anew()
        words = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))
        known_bytes = np.minimum(lengths, KEY_BYTES)
        first = words.take(starts)
        first &= _FIRST_MASK.take(known_bytes)
        second = words.take(starts + 8)
        second &= _SECOND_MASK.take(known_bytes)
        size = lengths.astype(np.uint64)
        hashes = _hashes(first, second, size)
        rows = self._rows.take(self._slots(hashes), axis=0)
        found = rows[:, _FIRST] == first
        found &= rows[:, _SECOND] == second
        found &= rows[:, _LENGTH] == size
        value = rows[:, _VALUE].copy()
        missing = np.flatnonzero(~found)
        is_long = lengths[missing] > KEY_BYTES
        long, short = missing[is_long], missing[~is_long]
        for begin in range(0, len(short), _PENDING_AT_ONCE):
            chosen = short[begin : begin + _PENDING_AT_ONCE]
            keys = np.stack([first[chosen], second[chosen], size[chosen]], axis=1)
            value[chosen] = self._find_or_add(raw, starts[chosen], keys, hashes[chosen])
        counts = (value & _COUNT_MASK).astype(np.int64)
        offsets = (value >> _COUNT_BITS).astype(np.int64)
        if len(long):
            answers = [
                self._long_piece(raw[start : start + length])
                for start, length in zip(starts[long].tolist(), lengths[long].tolist(), strict=True)
            ]
            offsets[long], counts[long] = np.array(answers, np.int64).T
        return offsets, counts

    def _slots(self, hashes: _Unsigned) -> Offsets:
        bits = len(self._rows).bit_length() - 1
        slots: Offsets = (hashes >> np.uint64(64 - bits)).astype(np.int64)
        return slots

    def _find_or_add(self, raw: bytes, starts: Offsets, keys: _Unsigned, hashes: _Unsigned) -> _Unsigned:
        """Return the value of each key; new ones are encoded and added."""
        while (self._used + len(keys)) * 2 > len(self._rows):
            self._grow()
        values = np.empty(len(keys), np.uint64)
        pending = np.arange(len(keys))
        slots = self._slots(hashes)
        added: list[Offsets] = []
        added_slots: list[Offsets] = []
        while len(pending):
            here = self._rows[slots]
            free = np.flatnonzero(here[:, _LENGTH] == 0)
            if len(free):
                # Where several keys want one row, the last written has it; the others find it taken.
                claim = np.empty((len(free), 4), np.uint64)
                claim[:, :_VALUE] = keys[pending[free]]
                claim[:, _VALUE] = pending[free].astype(np.uint64) | _NEW
                self._rows[slots[free]] = claim
                written = self._rows[slots[free]]
                here[free] = written
                mine = written[:, _VALUE] == claim[:, _VALUE]
                added.append(pending[free[mine]])
                added_slots.append(slots[free[mine]])
            same = (here[:, :_VALUE] == keys[pending]).all(axis=1)
            values[pending[same]] = here[same, _VALUE]
            pending, slots = pending[~same], (slots[~same] + 1) % len(self._rows)
        if added:
            new = np.concatenate(added)
            answer = self._encoded(raw, starts[new], keys[new, _LENGTH])
            self._rows[np.concatenate(added_slots), _VALUE] = answer
            self._used += len(new)
            by_key = np.empty(len(keys), np.uint64)
            by_key[new] = answer
            is_new = values >= _NEW
            values[is_new] = by_key[(values[is_new] ^ _NEW).astype(np.int64)]
        return values

    def _grow(self) -> None:
        kept = self._rows[self._rows[:, _LENGTH] != 0]
        self._rows = np.zeros((len(self._rows) * 2, 4), np.uint64)
        slots = self._slots(_hashes(kept[:, _FIRST], kept[:, _SECOND], kept[:, _LENGTH]))
        while len(kept):
            free = self._rows[slots, _LENGTH] == 0
            self._rows[slots[free]] = kept[free]
            settled = (self._rows[slots] == kept).all(axis=1)
            kept, slots = kept[~settled], (slots[~settled] + 1) % len(self._rows)

    def _encoded(self, raw: bytes, starts: Offsets, lengths: _Unsigned) -> _Unsigned:
        """Return the values of pieces the table lacks."""
        offset = self._ids_used
        counts = []
        ids: list[int] = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            tokens = self._tokens(raw[start : start + length])
            counts.append(len(tokens))
            ids += tokens
        self._append(ids)
        count = np.array(counts, np.uint64)
        offsets = np.cumsum(count) - count + np.uint64(offset)
        answer: _Unsigned = offsets << _COUNT_BITS | count
        return answer

    def _long_piece(self, piece: bytes) -> tuple[int, int]:
        known = self._long.get(piece)
        if known is None:
            tokens = self._tokens(piece)
            known = self._ids_used, len(tokens)
            self._append(tokens)
            if len(piece) <= _LONGEST_KEPT_BYTES:
                self._long[piece] = known
        return known

    def _tokens(self, piece: bytes) -> list[int]:
        text = piece.decode("latin-1").translate(self._alphabet)
        return [token.id for token in self._model.tokenize(text)]

    def _append(self, ids: list[int]) -> None:
        end = self._ids_used + len(ids)
        if end > len(self.ids):
            grown = np.zeros(max(end, 2 * len(self.ids)), np.int32)
            grown[: self._ids_used] = self.ids[: self._ids_used]
            self.ids = grown
        self.ids[self._ids_used : end] = ids
        self._ids_used = end


def _hashes(first: _Unsigned, second: _Unsigned, size: _Unsigned) -> _Unsigned:
    hashes = first * _MULTIPLIERS[0]
    hashes ^= second * _MULTIPLIERS[1]
    hashes += size * _MULTIPLIERS[2]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MULTIPLIERS[3]
    return hashes
