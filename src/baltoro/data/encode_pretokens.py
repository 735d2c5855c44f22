"""Where the pre-tokens of a byte-level BPE start, found for a whole batch of texts at once.

A byte-level tokenizer cuts text into pre-tokens before it merges, with GPT-2's regular expression::

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

Which character is a letter, a number or white space is asked of the tokenizers library itself, by splitting
all of Unicode with it, so that both agree whatever version of Unicode the library was built with.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]

OTHER, LETTER, NUMBER, SPACE, DIGIT, ADDED = range(6)
"""Kinds of characters; DIGIT: cut out before the expression is applied; ADDED: part of an added token."""

PADDING_BYTES = 16
"""Bytes that must follow the texts in what :func:`piece_starts` reads."""

_PLANE = 0x10000
_SURROGATES = range(0xD800, 0xE000)
_CLASSES = {LETTER: r"\p{L}", NUMBER: r"\p{N}", SPACE: r"\s"}
_LONGEST_CHARACTER_BYTES = 4


def piece_starts(
    raw: bytes,
    text_offsets: Offsets,
    *,
    individual_digits: bool,
    added_starts: Offsets,
    added_ends: Offsets,
) -> Offsets:
    """Return where the pieces of some texts start: pre-tokens, and added tokens as pieces of their own.

    Args:
        raw: the texts in UTF-8, one after the other, and :data:`PADDING_BYTES` zeros.
        text_offsets: int64, where each text starts, and the end of the last; in bytes.
        individual_digits: whether each digit is cut out first (``Digits(individual_digits=True)``).
        added_starts: first byte of each added token found in the texts, ascending.
        added_ends: the byte after it.

    Returns:
        int64 byte offsets, ascending, one per piece; a piece ends where the next one starts.
    """
    size = int(text_offsets[-1])
    if not size:
        return np.empty(0, np.int64)
    values = np.frombuffer(raw, np.uint8)
    kinds = _kinds_of(raw, values, individual_digits)
    for start, end in zip(added_starts.tolist(), added_ends.tolist(), strict=True):
        kinds[start:end] = ADDED
    # The expression is applied afresh at these, and sees nothing of what lies before them.
    fences = np.unique(np.concatenate([text_offsets, added_starts, added_ends]))
    is_start = np.empty(size + 1, np.bool_)
    np.not_equal(kinds[1 : size + 1], kinds[:size], out=is_start[1:])
    # One blank belongs to the run after it.
    is_start[1:] &= values[:size] != ord(" ")
    is_start |= _last_of_white_space(values, kinds, size, fences)
    if individual_digits:
        is_start |= (kinds[: size + 1] == DIGIT) & ((values[: size + 1] & 0xC0) != 0x80)
    is_start[fences] = True
    _cut_contractions(values, is_start, fences)
    return np.flatnonzero(is_start[:size])


def _kinds_of(raw: bytes, values: Bytes, individual_digits: bool) -> Bytes:
    """Return the kind of the character that each byte belongs to."""
    basic = _plane_kinds(0, individual_digits)
    kinds = np.frombuffer(bytearray(raw).translate(basic[:256].tobytes()), np.uint8)
    if raw.isascii():
        return kinds
    leads = np.flatnonzero(values >= 0xC0)
    first = values[leads]
    for length, at in (
        (2, leads[first < 0xE0]),
        (3, leads[(first >= 0xE0) & (first < 0xF0)]),
        (4, leads[first >= 0xF0]),
    ):
        if not len(at):
            continue
        codes = (values[at] & (0x7F >> length)).astype(np.int32)
        for place in range(1, length):
            codes <<= 6
            codes |= values[at + place] & 0x3F
        found = basic[codes] if length < _LONGEST_CHARACTER_BYTES else _kinds_beyond(codes, individual_digits)
        for place in range(length):
            kinds[at + place] = found
    return kinds


def _kinds_beyond(codes: npt.NDArray[np.int32], individual_digits: bool) -> Bytes:
    kinds = np.empty(len(codes), np.uint8)
    planes = codes // _PLANE
    for plane in np.unique(planes).tolist():
        chosen = planes == plane
        kinds[chosen] = _plane_kinds(plane, individual_digits)[codes[chosen] % _PLANE]
    return kinds


def _last_of_white_space(values: Bytes, kinds: Bytes, size: int, fences: Offsets) -> npt.NDArray[np.bool_]:
    """Return where ``\\s+(?!\\S)`` stops short: at the last character of white space before a word."""
    last = np.zeros(size + 1, np.bool_)
    np.logical_and(kinds[:size] == SPACE, kinds[1 : size + 1] < SPACE, out=last[:size])
    last[fences[1:] - 1] = False
    wide = np.flatnonzero(last & (values[: size + 1] >= 0x80))
    last[wide] = False
    for _ in range(_LONGEST_CHARACTER_BYTES - 1):
        wide -= (values[wide] & 0xC0) == 0x80
    last[wide] = True
    return last


def _cut_contractions(values: Bytes, is_start: npt.NDArray[np.bool_], fences: Offsets) -> None:
    """Move the starts at ``'s 't 're 've 'm 'll 'd``, where an apostrophe starts a piece."""
    at = np.flatnonzero(values[: len(is_start) - 1] == ord("'"))
    at = at[is_start[at]]
    if not len(at):
        return
    room = fences[np.searchsorted(fences, at, side="right")] - at
    second, third = values[at + 1], values[at + 2]
    short = (second == ord("s")) | (second == ord("t")) | (second == ord("m")) | (second == ord("d"))
    long = ((second == ord("r")) | (second == ord("v"))) & (third == ord("e"))
    long |= (second == ord("l")) & (third == ord("l"))
    length = np.where(short, 2, 3)
    found = (short | long) & (room >= length)
    is_start[at[found] + 1] = False
    is_start[at[found] + length[found]] = True


@lru_cache(maxsize=34)
def _plane_kinds(plane: int, individual_digits: bool) -> Bytes:
    """Return the kind of every character of a plane of 65,536, as the tokenizers library has it."""
    from tokenizers import pre_tokenizers

    codes = np.arange(plane * _PLANE, (plane + 1) * _PLANE)
    if not plane:
        codes = np.delete(codes, slice(_SURROGATES.start, _SURROGATES.stop))
    text = "".join(map(chr, codes.tolist()))
    starts, texts = _runs(text)
    kind_of_run = np.full(len(starts), OTHER, np.uint8)
    samples = "".join(run[0] for run in texts)
    for kind, expression in _CLASSES.items():
        kind_of_run[_matching(samples, expression)] = kind
    kinds = np.zeros(_PLANE, np.uint8)
    kinds[codes % _PLANE] = np.repeat(kind_of_run, np.diff([*starts, len(text)]))
    if individual_digits:
        # Runs of digits and of others take turns.
        runs = pre_tokenizers.Digits(individual_digits=False).pre_tokenize_str(text)
        first = len(pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text[0] * 2)) == 1
        for _, (start, end) in runs[first::2]:
            kinds[codes[start:end] % _PLANE] = DIGIT
    kinds.flags.writeable = False
    return kinds


def _runs(text: str) -> tuple[list[int], list[str]]:
    """Return where runs of one class start in a text that mixes them, and the runs."""
    from tokenizers import Regex, pre_tokenizers

    joined = "".join(_CLASSES.values())
    expression = "|".join(f"{name}+" for name in (*_CLASSES.values(), f"[^{joined}]"))
    runs = pre_tokenizers.Split(Regex(expression), "isolated").pre_tokenize_str(text)
    return [start for _, (start, _) in runs], [run for run, _ in runs]


def _matching(text: str, expression: str) -> npt.NDArray[np.bool_]:
    """Return which characters of a text match."""
    from tokenizers import Regex, pre_tokenizers

    matching = np.ones(len(text), np.bool_)
    for _, (start, end) in pre_tokenizers.Split(Regex(expression), "removed").pre_tokenize_str(text):
        matching[start:end] = False
    return matching
