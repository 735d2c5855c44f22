"""Texts to token ids: those the tokenizers library gives, several times as fast.

Byte-level BPE tokenizers turn each pre-token into ids by itself, and a text repeats most of its
pre-tokens. So pre-tokens are found for a whole batch with numpy (:mod:`baltoro.data.encode_pretokens`), long
ones are cut where no merge reaches (:mod:`baltoro.data.encode_joints`), all are looked up in a table that
lasts as long as the process, and only new ones are given to the tokenizer's own model
(:mod:`baltoro.data.encode_words`). No merge is computed here. Tokenizers of other kinds, or with settings
that are not known to give the same ids, go the library's way, and the log says why.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from baltoro.data.encode_joints import joints_of
from baltoro.data.encode_pretokens import PADDING_BYTES, Offsets, piece_starts
from baltoro.data.encode_words import KEY_BYTES, WordTable
from baltoro.data.tokenizer import text_only

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)

Ids = npt.NDArray[np.int32]

MAX_WORDS = 400_000
"""Distinct pre-tokens that a process remembers for each tokenizer: 32 MB of table, and their ids."""

# What a batch needs on the way, some thirty times its size, should stay in the processor's cache.
_BATCH_BYTES = 1 << 18
_ENCODERS = 4
_CHECKED_CHARACTERS = 2048
_CHECKED_TEXTS = 4
_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_PROBES = ("a", "b c", "1", "(x)")


@dataclass(frozen=True, slots=True)
class Frame:
    """The ids a tokenizer's post-processor puts before and after each text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class Encoder:
    """Encodes texts with one tokenizer. Safe to use from several threads, one at a time."""

    def __init__(self, backend: Tokenizer, max_words: int = MAX_WORDS) -> None:
        """Prepare an encoder.

        Args:
            backend: a tokenizer for which :func:`refusal` gives ``None``, in the state of ``text_only``.
            max_words: distinct pre-tokens remembered.
        """
        self._individual_digits = _DIGITS in _pre_tokenizers(backend)
        self.frame = _frame_of(backend) or Frame((), ())
        self._added = _AddedTokens(backend)
        self._joints = joints_of(backend)
        self._words = WordTable(backend.model, self._added.ids, max_words)
        self._lock = threading.Lock()

    def encode(self, texts: pa.Array) -> tuple[Ids, Offsets]:
        """Return the ids of all texts, one after the other, and where each text's ids start and the last end.

        Nothing is put around a text.

        Args:
            texts: an array of strings, none of them missing.

        Raises:
            pyarrow.ArrowInvalid: a text is not valid UTF-8.
        """
        texts.validate(full=True)
        data, offsets = _text_bytes(texts)
        ids = [np.empty(0, np.int32)]
        ends = [np.zeros(1, np.int64)]
        with self._lock:
            for first, last in _batches(offsets):
                start, end = int(offsets[first]), int(offsets[last])
                raw = bytes(data[start:end]) + bytes(max(PADDING_BYTES, KEY_BYTES))
                batch_ids, batch_ends = self._encode_batch(raw, offsets[first : last + 1] - start)
                ids.append(batch_ids)
                ends.append(batch_ends + ends[-1][-1])
        return np.concatenate(ids), np.concatenate(ends)

    def _encode_batch(self, raw: bytes, text_offsets: Offsets) -> tuple[Ids, Offsets]:
        added_starts, added_ends, which = self._added.find(raw, text_offsets)
        starts = piece_starts(
            raw,
            text_offsets,
            individual_digits=self._individual_digits,
            added_starts=added_starts,
            added_ends=added_ends,
        )
        lengths = np.diff(starts, append=text_offsets[-1])
        if self._joints is not None:
            whole = np.searchsorted(starts, added_starts)
            cuts = self._joints.cuts(raw, starts, lengths, whole, longest_bytes=KEY_BYTES)
            if len(cuts):
                starts = np.sort(np.concatenate([starts, cuts]), kind="stable")
                lengths = np.diff(starts, append=text_offsets[-1])
        places, counts = self._words.lookup(raw, starts, lengths)
        if len(added_starts):
            pieces = np.searchsorted(starts, added_starts)
            places[pieces], counts[pieces] = which, 1
        ends = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=ends[1:])
        index = np.repeat(places - ends[:-1], counts)
        index += np.arange(ends[-1])
        return self._words.ids.take(index), ends[np.searchsorted(starts, text_offsets[1:])]


class _AddedTokens:
    """Finds added tokens in text as the library does; special ones are found and then read as text."""

    def __init__(self, backend: Tokenizer) -> None:
        tokens = [
            (added.content.encode(), added.special, token_id)
            for token_id, added in backend.get_added_tokens_decoder().items()
        ]
        self.ids = [token_id for _, special, token_id in tokens if not special]
        index_of = {token_id: index for index, token_id in enumerate(self.ids)}
        # The library takes the leftmost match and the longest of those; what a special one covers is passed.
        tokens.sort(key=lambda token: len(token[0]), reverse=True)
        self._sizes = np.array([len(content) for content, _, _ in tokens], np.int64)
        self._index = np.array([index_of.get(token_id, -1) for _, _, token_id in tokens], np.int64)
        self._parts = [
            [(place, content[place : place + 8]) for place in range(0, len(content), 8)]
            for content, _, _ in tokens
        ]
        self._first_bytes = sorted({content[0] for content, _, _ in tokens})

    def find(self, raw: bytes, text_offsets: Offsets) -> tuple[Offsets, Offsets, Offsets]:
        """Return starts and ends of the ordinary tokens in the texts, and which of ``ids`` each is."""
        none = np.empty(0, np.int64)
        if not self.ids:
            return none, none, none
        values = np.frombuffer(raw, np.uint8)[: text_offsets[-1]]
        at = np.sort(np.concatenate([np.flatnonzero(values == first) for first in self._first_bytes]))
        room = text_offsets[np.searchsorted(text_offsets, at, side="right")] - at
        words = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))
        token = np.full(len(at), -1, np.int64)
        for number, parts in enumerate(self._parts):
            fitting = np.flatnonzero((token < 0) & (room >= self._sizes[number]))
            for place, part in parts:
                mask = np.uint64((1 << 8 * len(part)) - 1)
                wanted = np.uint64(int.from_bytes(part, "little"))
                fitting = fitting[words.take(at[fitting] + place) & mask == wanted]
            token[fitting] = number
        found = token >= 0
        at, token = at[found], token[found]
        ends = at + self._sizes[token]
        kept = _without_overlaps(at, ends) & (self._index[token] >= 0)
        return at[kept], ends[kept], self._index[token[kept]]


def _without_overlaps(starts: Offsets, ends: Offsets) -> npt.NDArray[np.bool_]:
    """Return which spans remain if each that starts within an earlier remaining one is left out."""
    kept = np.ones(len(starts), np.bool_)
    if (starts[1:] < ends[:-1]).any():
        past = 0
        for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            kept[index] = start >= past
            past = end if kept[index] else past
    return kept


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: pa.Array, *, framed: bool) -> tuple[Ids, Offsets]:
    """Return the ids of all texts, one after the other, and where each text's ids start and the last end.

    Control tokens printed in a text are read as text. What a tokenizer's pre-tokens became is
    remembered, by the contents of the tokenizer, until the process ends.

    Args:
        tokenizer: as returned by :mod:`baltoro.data.tokenizer`.
        texts: an array of strings, none of them missing.
        framed: whether what the tokenizer itself puts around a text (LLaMA: a begin token) is put there.

    Raises:
        RuntimeError: the two ways differ on the first of these texts, which would be a bug.
    """
    with text_only(tokenizer) as backend:
        encoder = _encoder_for(backend, texts)
        if encoder is None:
            return _library_ids(backend, texts.to_pylist(), framed=framed)
    ids, offsets = encoder.encode(texts)
    frame = encoder.frame
    return surrounded(ids, offsets, frame.before, frame.after) if framed else (ids, offsets)


def surrounded(
    ids: Ids,
    offsets: Offsets,
    before: Sequence[int],
    after: Sequence[int],
    after_where: npt.NDArray[np.bool_] | None = None,
) -> tuple[Ids, Offsets]:
    """Return ids and offsets with ids put before and after each text.

    Args:
        ids: the ids of all texts.
        offsets: where each text starts, and the end of the last.
        before: what to put before each text.
        after: what to put after it.
        after_where: the texts that ``after`` is put after; all of them by default.
    """
    if not before and not after:
        return ids, offsets
    ending = np.ones(len(offsets) - 1, np.bool_) if after_where is None else after_where
    new_offsets = np.zeros(len(offsets), np.int64)
    np.cumsum(np.diff(offsets) + len(before) + len(after) * ending, out=new_offsets[1:])
    result = np.empty(new_offsets[-1], np.int32)
    first = new_offsets[:-1] + len(before)
    for place, start, end in zip(first.tolist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        result[place : place + end - start] = ids[start:end]
    for index, token in enumerate(before):
        result[new_offsets[:-1] + index] = token
    for index, token in enumerate(after):
        result[(new_offsets[1:] - len(after) + index)[ending]] = token
    return result, new_offsets


def refusal(backend: Tokenizer) -> str | None:
    """Return why a tokenizer must go the library's way; ``None``: :class:`Encoder` gives the same ids."""
    from tokenizers.models import BPE

    model = backend.model
    if not isinstance(model, BPE):
        return f"its model is {type(model).__name__}, not BPE"
    if model.dropout:
        return f"its merges are dropped at random (dropout={model.dropout})"
    if model.byte_fallback:
        return "its model falls back to bytes"
    if backend.normalizer is not None:
        return f"it has a normalizer ({type(backend.normalizer).__name__})"
    steps = _pre_tokenizers(backend)
    if steps not in ([_BYTE_LEVEL], [_DIGITS, _BYTE_LEVEL]):
        return f"its pre-tokenizers are {json.dumps(steps)}"
    added = backend.get_added_tokens_decoder().values()
    for token in added:
        if token.lstrip or token.rstrip or token.single_word or token.normalized:
            return f"its added token {token.content!r} is not matched as it stands"
    if len({token.content for token in added}) != len(added):
        return "two of its added tokens are the same"
    if _frame_of(backend) is None:
        return "what it puts around a text depends on the text"
    return None


_encoders: OrderedDict[bytes, Encoder | None] = OrderedDict()
_encoders_lock = threading.Lock()


def _encoder_for(backend: Tokenizer, texts: pa.Array) -> Encoder | None:
    """Return the encoder of a tokenizer with these contents; a new one is tried on the first texts."""
    key = hashlib.blake2b(backend.to_str().encode(), digest_size=16).digest()
    with _encoders_lock:
        if key not in _encoders:
            reason = refusal(backend)
            if reason is None:
                encoder = Encoder(backend)
                _check(encoder, backend, texts)
                _encoders[key] = encoder
            else:
                _log.info("texts are encoded by the tokenizers library, which is slower: %s", reason)
                _encoders[key] = None
        _encoders.move_to_end(key)
        while len(_encoders) > _ENCODERS:
            _encoders.popitem(last=False)
        return _encoders[key]


def _check(encoder: Encoder, backend: Tokenizer, texts: pa.Array) -> None:
    sample = [text[:_CHECKED_CHARACTERS] for text in texts[:_CHECKED_TEXTS].to_pylist()]
    ids, offsets = encoder.encode(pa.array(sample, pa.string()))
    expected = backend.encode_batch_fast(sample, add_special_tokens=False)
    for text, start, end, encoding in zip(sample, offsets, offsets[1:], expected, strict=False):
        if ids[start:end].tolist() != encoding.ids:
            raise RuntimeError(
                f"baltoro.data.encode gives other ids than the tokenizers library for {text!r}; this is a bug"
            )


def _library_ids(backend: Tokenizer, texts: list[str], *, framed: bool) -> tuple[Ids, Offsets]:
    lists = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=framed)]
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(ids) for ids in lists], out=offsets[1:])
    joined = np.empty(offsets[-1], np.int32)
    for start, ids in zip(offsets.tolist(), lists, strict=False):
        joined[start : start + len(ids)] = ids
    return joined, offsets


def _frame_of(backend: Tokenizer) -> Frame | None:
    """Return what the post-processor puts around every text, found by asking it; ``None`` if it varies."""
    possible: set[Frame] | None = None
    for probe in _PROBES:
        pieces = backend.pre_tokenizer.pre_tokenize_str(probe)
        bare = [token.id for piece, _ in pieces for token in backend.model.tokenize(piece)]
        unframed, framed = (
            backend.encode_batch_fast([probe], add_special_tokens=put)[0].ids for put in (False, True)
        )
        if unframed != bare:
            return None
        here = {
            Frame(tuple(framed[:start]), tuple(framed[start + len(bare) :]))
            for start in range(len(framed) - len(bare) + 1)
            if framed[start : start + len(bare)] == bare
        }
        possible = here if possible is None else possible & here
    return possible.pop() if possible is not None and len(possible) == 1 else None


def _pre_tokenizers(backend: Tokenizer) -> list[dict[str, Any]]:
    """Return the steps of a tokenizer's pre-tokenizer, with the settings that decide where text is cut."""
    if backend.pre_tokenizer is None:
        return []
    description = json.loads(backend.pre_tokenizer.__getstate__())
    steps = description["pretokenizers"] if description["type"] == "Sequence" else [description]
    return [{name: value for name, value in step.items() if name != "trim_offsets"} for step in steps]


def _text_bytes(texts: pa.Array) -> tuple[memoryview, Offsets]:
    """Return the bytes of an array of strings, and where each starts and the last ends."""
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return memoryview(b""), np.zeros(len(texts) + 1, np.int64)
    places = np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data), places.astype(np.int64)


def _batches(offsets: Offsets) -> Iterator[tuple[int, int]]:
    """Yield ranges of texts of about ``_BATCH_BYTES``, at least one text each."""
    first, texts = 0, len(offsets) - 1
    while first < texts:
        last = int(np.searchsorted(offsets, offsets[first] + _BATCH_BYTES, side="right")) - 1
        last = min(max(last, first + 1), texts)
        yield first, last
        first = last
