"""Long passages that several documents share, cut from all but the first (Galactica, appendix A.2).

Galactica looks for identical spans of at least 100 bytes of UTF-8 across the corpus, joins spans that are at
most 4 bytes apart, shrinks them to paragraph boundaries, and deletes them from all files but one; a repeat
within one file stays. What is left after shrinking is always a run of whole paragraphs, so runs of paragraphs
are what is looked for here, without a suffix array of the corpus:

* A *window* is the shortest run of paragraphs of at least ``min_bytes`` that starts with a paragraph, and the
  shortest that ends with it. Every run of at least ``min_bytes`` that two documents share is covered by
  windows that they share, so none is missed; a long paragraph is one window of its own.
* :func:`span_keys` gives a document's windows as 128-bit hashes, about one per 500 bytes of text. They are
  exchanged by ``key``; :func:`find_repeats` tells per partition which windows stood in an earlier document;
  :func:`cut_spans` cuts them. A paragraph is never cut from the first document that has it, even where that
  document loses other passages, so everything remains somewhere.

With ``boundary: line`` the pieces are lines: the items of a list, the rows of a table. A form whose questions
are answered in between (a conference's checklist) repeats by lines, hardly by paragraphs.

"Earlier" is by document number, in which the caller puts the documents; Galactica orders by quality, the best
last, and deletes from the first. Numbering the best-ranked first does the same.

*Not found*: a paragraph that stands elsewhere inside a longer one (other line breaks), and passages that
differ in a single byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from baltoro.corpus.dedup.config import RepeatedSpanConfig
from baltoro.corpus.words import Offsets

SPAN_SCHEMA = pa.schema(
    [
        ("key", pa.uint64()),
        ("check", pa.uint64()),
        ("document", pa.int64()),
        ("start", pa.int64()),
        ("end", pa.int64()),
    ]
)
"""Exchanged windows: ``key`` and ``check`` are the 128-bit hash, ``start`` and ``end`` are in characters."""

REPEAT_SCHEMA = pa.schema([("document", pa.int64()), ("start", pa.int64()), ("end", pa.int64())])
"""Windows that stood in an earlier document: to be cut from this one."""

_PIECES = {"paragraph": re.compile(r"[^\n]+(?:\n[^\n]+)*"), "line": re.compile(r"[^\n]+")}


@dataclass(frozen=True, slots=True)
class CutText:
    """A document without its repeated passages.

    Attributes:
        text: what is left; may be empty.
        cut: the passages removed, as (start, end) in characters of the former text, in order.
        cut_bytes: their size in UTF-8.
    """

    text: str
    cut: tuple[tuple[int, int], ...]
    cut_bytes: int


def span_keys(text: str, document: int, config: RepeatedSpanConfig) -> pa.Table:
    """Return the windows of a document in :data:`SPAN_SCHEMA`; none if it is shorter than ``min_bytes``.

    Args:
        text: the rendered document; paragraphs are separated by blank lines.
        document: its number; of documents with the same passage the smallest number keeps it.
        config: the shortest passage.
    """
    pieces = [match.span() for match in _PIECES[config.boundary].finditer(text)]
    starts, ends = np.array(pieces, np.int64).reshape(-1, 2).T
    byte_starts, byte_ends = _byte_offsets(text, starts, ends)
    count = len(pieces)
    lasts = np.searchsorted(byte_ends, byte_starts + config.min_bytes, side="left")
    firsts = np.searchsorted(byte_starts, byte_ends - config.min_bytes, side="right") - 1
    windows = {(first, last) for first, last in enumerate(lasts.tolist()) if last < count}
    windows |= {(first, last) for last, first in enumerate(firsts.tolist()) if first >= 0}
    spans = [(pieces[first][0], pieces[last][1]) for first, last in sorted(windows)]
    hashes = np.frombuffer(b"".join(_hash(text[start:end]) for start, end in spans), np.uint64).reshape(-1, 2)
    bounds = np.array(spans, np.int64).reshape(-1, 2)
    return pa.table(
        [
            np.ascontiguousarray(hashes[:, 0]),
            np.ascontiguousarray(hashes[:, 1]),
            np.full(len(spans), document, np.int64),
            np.ascontiguousarray(bounds[:, 0]),
            np.ascontiguousarray(bounds[:, 1]),
        ],
        schema=SPAN_SCHEMA,
    )


def find_repeats(windows: pa.Table) -> pa.Table:
    """Return the windows of a partition that an earlier document has, too, in :data:`REPEAT_SCHEMA`.

    Args:
        windows: all rows of the partition in :data:`SPAN_SCHEMA`, in any order.

    A window that only one document has stays, however often that document has it. Sorted by document, start.
    """
    column = {name: windows.column(name).to_numpy() for name in SPAN_SCHEMA.names}
    order = np.lexsort((column["document"], column["check"], column["key"]))
    keys, checks, documents = (column[name][order] for name in ("key", "check", "document"))
    first = np.ones(len(order), np.bool_)
    first[1:] = (keys[1:] != keys[:-1]) | (checks[1:] != checks[:-1])
    owner = documents[first][np.cumsum(first) - 1] if len(order) else documents
    repeated = order[documents != owner]
    starts, numbers = column["start"][repeated], column["document"][repeated]
    sort = np.lexsort((column["end"][repeated], starts, numbers))
    return pa.table([numbers[sort], starts[sort], column["end"][repeated][sort]], schema=REPEAT_SCHEMA)


def cut_spans(text: str, spans: Sequence[tuple[int, int]], config: RepeatedSpanConfig) -> CutText:
    """Return a document without its repeated passages.

    Args:
        text: the document that :func:`span_keys` saw.
        spans: (start, end) of its windows to cut, in characters, in any order; they may overlap.
        config: how close two passages must be for what is between them to go, too.

    Raises:
        ValueError: a span does not lie on paragraph boundaries of the text (another text than was keyed).
    """
    merged: list[list[int]] = []
    for start, end in sorted(set(spans)):
        if not (0 <= start < end <= len(text)) or not _on_boundaries(text, start, end):
            raise ValueError(
                f"spans: ({start}, {end}) does not start and end at a line break of this text of {len(text)} "
                "characters; cut the text that the spans were found in"
            )
        gap = text[merged[-1][1] : start] if merged else None
        if gap is not None and len(gap.encode("utf-8", "surrogatepass")) <= config.max_gap_bytes:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    left, position, cut_bytes = "", 0, 0
    for start, end in merged:
        left = _joined(left, text[position:start])
        cut_bytes += len(text[start:end].encode("utf-8", "surrogatepass"))
        position = end
    if merged:
        left = _joined(left, text[position:]).strip("\n")
    return CutText(left if merged else text, tuple((start, end) for start, end in merged), cut_bytes)


_HEADING = re.compile(r"(#{1,6}) \S.*")


def without_empty_headings(text: str) -> str:
    """Return a rendered text without the headings that nothing follows but one of their own rank or above."""
    paragraphs = text.split("\n\n")
    kept: list[str] = []
    # From the end, so that a heading above one that goes is judged by what is left.
    next_level: int | None = 0
    for paragraph in reversed(paragraphs):
        match = _HEADING.fullmatch(paragraph)
        level = len(match[1]) if match else None
        if level is not None and next_level is not None and level >= next_level:
            continue
        kept.append(paragraph)
        next_level = level
    return "\n\n".join(reversed(kept))


def _joined(before: str, after: str) -> str:
    """Return two texts with one of the line breaks at their seam, the longer one."""
    head, tail = before.rstrip("\n"), after.lstrip("\n")
    return head + "\n" * max(len(before) - len(head), len(after) - len(tail)) + tail


def _byte_offsets(text: str, starts: Offsets, ends: Offsets) -> tuple[Offsets, Offsets]:
    """Return character offsets as offsets in the UTF-8 text."""
    if text.isascii():
        return starts, ends
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
    before = np.concatenate([[0], np.cumsum(sizes)])
    return before[starts], before[ends]


def _hash(passage: str) -> bytes:
    return hashlib.blake2b(passage.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _on_boundaries(text: str, start: int, end: int) -> bool:
    opened = start == 0 or text[start - 1] == "\n"
    closed = end == len(text) or text[end] == "\n"
    return opened and closed


Repeats = dict[int, list[tuple[int, int]]]


def spans_by_document(repeats: Sequence[pa.Table]) -> Repeats:
    """Return ``{document: [(start, end)]}`` of the repeats of all partitions."""
    found: Repeats = {}
    for table in repeats:
        columns: list[Offsets] = [table.column(name).to_numpy() for name in REPEAT_SCHEMA.names]
        for document, start, end in zip(*(column.tolist() for column in columns), strict=True):
            found.setdefault(document, []).append((start, end))
    return found
