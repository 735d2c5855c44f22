"""Turning character offsets into inline spans, without ever losing or doubling a character."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from baltoro.papers.schema import Inline, InlineKind


class Span(NamedTuple):
    """A stretch ``[start, end)`` of a text with one meaning.

    ``replacement`` is what to print instead of the stretch (the TeX that a placeholder stands for);
    ``None`` prints the stretch itself.
    """

    start: int
    end: int
    kind: InlineKind
    target: str | None = None
    replacement: str | None = None


def inlines_from_spans(
    text: str, spans: Sequence[Span], begin: int = 0, limit: int | None = None
) -> list[Inline]:
    """Return ``text``, or its part from ``begin`` to ``limit``, cut into inlines at its spans.

    Spans that are empty or reach out of the part are ignored. Where spans overlap, the earlier and longer
    one wins and the later one keeps what is left of it, so every character is printed once: without
    replacements the inlines' text joins to the text exactly.
    """
    if limit is None:
        limit = len(text)
    if not spans:
        return [Inline("text", text[begin:limit], None)] if begin < limit else []
    fitting = [span for span in spans if begin <= span[0] < span[1] <= limit]
    # Two stable sorts are one by start and then, of those with the same start, by the later end.
    fitting.sort(key=_END, reverse=True)
    fitting.sort(key=_START)
    inlines: list[Inline] = []
    cursor = begin
    for first, end, kind, target, replacement in fitting:
        start = max(first, cursor)
        if start >= end:
            continue
        if start > cursor:
            _append_text(inlines, text[cursor:start])
        if replacement is None and kind == "text":
            _append_text(inlines, text[start:end])
        elif replacement is None:
            inlines.append(Inline(kind, text[start:end], target))
        elif start > first:
            _append_text(inlines, text[start:end])
        elif kind == "text":
            _append_text(inlines, replacement)
        elif replacement:
            inlines.append(Inline(kind, replacement, target))
        cursor = end
    _append_text(inlines, text[cursor:limit])
    return inlines


_START = itemgetter(0)
_END = itemgetter(1)


def _append_text(inlines: list[Inline], text: str) -> None:
    if not text:
        return
    if inlines and inlines[-1].kind == "text":
        inlines[-1].text += text
    else:
        inlines.append(Inline("text", text))
