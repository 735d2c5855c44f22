"""Turning character offsets into inline spans, without ever losing or doubling a character."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from baltoro.papers.schema import Inline, InlineKind


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch ``[start, end)`` of a text with one meaning.

    ``replacement`` is what to print instead of the stretch (the TeX that a placeholder stands for);
    ``None`` prints the stretch itself.
    """

    start: int
    end: int
    kind: InlineKind
    target: str | None = None
    replacement: str | None = None


def inlines_from_spans(text: str, spans: Iterable[Span]) -> list[Inline]:
    """Return ``text`` cut into inlines at its spans.

    Spans outside the text or empty are ignored. Where spans overlap, the earlier and longer one wins and
    the later one keeps what is left of it, so every character of ``text`` is printed once: without
    replacements the inlines' text joins to ``text`` exactly.
    """
    inlines: list[Inline] = []
    cursor = 0
    fitting = (span for span in spans if 0 <= span.start < span.end <= len(text))
    for span in sorted(fitting, key=lambda span: (span.start, -span.end)):
        start = max(span.start, cursor)
        if start >= span.end:
            continue
        _append_text(inlines, text[cursor:start])
        if span.replacement is None and span.kind == "text":
            _append_text(inlines, text[start : span.end])
        elif span.replacement is None:
            inlines.append(Inline(span.kind, text[start : span.end], span.target))
        elif start > span.start:
            _append_text(inlines, text[start : span.end])
        elif span.kind == "text":
            _append_text(inlines, span.replacement)
        elif span.replacement:
            inlines.append(Inline(span.kind, span.replacement, span.target))
        cursor = span.end
    _append_text(inlines, text[cursor:])
    return inlines


def _append_text(inlines: list[Inline], text: str) -> None:
    if not text:
        return
    if inlines and inlines[-1].kind == "text":
        inlines[-1].text += text
    else:
        inlines.append(Inline("text", text))
