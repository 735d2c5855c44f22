"""What becomes of a document that holds an evaluation item: drop it, cut the place out, or only report it.

A cut takes whole sentences or paragraphs, and whole formulas, citations, figures, tables and code blocks:
what a renderer puts between a pair of tokens is never halved, since a model would learn the half. A heading
that the cut leaves without text goes too, as the renderers would not have written it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from baltoro.corpus.decontamination.config import DecontaminateConfig
from baltoro.corpus.decontamination.matcher import Match

CONTAMINATED = "contaminated"
"""The reason of a dropped document in the rejects table."""

_EXCERPT_CHARACTERS = 160
_CONTEXT_CHARACTERS = 60

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Decontaminated:
    """What became of one document.

    Attributes:
        text: the document as it goes on, ``None`` if it is dropped.
        done: ``clean``, ``dropped``, ``cut`` or ``reported``.
        detail: set, item and excerpt of what was found, for the rejects table; empty if nothing was.
        items_by_set: items found, each counted once, by the name of their set.
        removed: what was cut out, in order of the document.
    """

    text: str | None
    done: Literal["clean", "dropped", "cut", "reported"]
    detail: str
    items_by_set: dict[str, int]
    removed: tuple[str, ...] = ()


def decontaminate(text: str, matches: Sequence[Match], config: DecontaminateConfig) -> Decontaminated:
    """Apply the recipe's action to a document.

    Args:
        text: the document.
        matches: what :meth:`~baltoro.corpus.decontamination.matcher.ItemIndex.find` found in it.
        config: the action; a cut that would take more than ``max_cut_fraction`` of the document drops it.
    """
    if not matches:
        return Decontaminated(text, "clean", "", {})
    found = sorted({(match.item.set_name, match.item.item_id) for match in matches})
    items_by_set: dict[str, int] = {}
    for name, _ in found:
        items_by_set[name] = items_by_set.get(name, 0) + 1
    detail = _detail(text, matches, len(found))
    if config.action == "report":
        return Decontaminated(text, "reported", detail, items_by_set)
    if config.action == "drop":
        return Decontaminated(None, "dropped", detail, items_by_set)
    spans = spans_to_cut(text, [(match.start, match.end) for match in matches], to=config.cut_to)
    lost = sum(end - start for start, end in spans)
    remaining = cut_spans(text, spans)
    if lost > config.max_cut_fraction * len(text) or not remaining:
        share = f"; cutting would take {lost / len(text):.0%} of the document"
        return Decontaminated(None, "dropped", detail + share, items_by_set)
    return Decontaminated(
        remaining, "cut", detail, items_by_set, tuple(text[start:end] for start, end in spans)
    )


def explain(text: str, matches: Sequence[Match]) -> list[str]:
    """Return one line per match: set, item, how much of it, and the place with what stands around it."""
    lines = []
    for match in matches:
        before = text[max(match.start - _CONTEXT_CHARACTERS, 0) : match.start]
        after = text[match.end : match.end + _CONTEXT_CHARACTERS]
        options = (
            f", {match.options_found} of {len(match.item.options)} options" if match.item.options else ""
        )
        lines.append(
            f"{match.item.set_name} {match.item.item_id}, {match.item.kind}: {match.covered_fraction:.0%} of "
            f"its words{options}, characters {match.start} to {match.end}: "
            f"…{_one_line(before)} >>>{_shortened(text[match.start : match.end])}<<< {_one_line(after)}…"
        )
    return lines


def spans_to_cut(text: str, spans: Sequence[Span], *, to: Literal["sentence", "paragraph"]) -> list[Span]:
    """Return the spans widened to whole sentences or paragraphs and whole paired markup, merged, in order.

    Args:
        text: the document.
        spans: character offsets of what must go; may overlap.
        to: what is taken out at least.
    """
    pairs = _paired_markup(text)
    bounds = _boundaries(text, to)
    wide = [_widened(span, bounds, pairs) for span in spans if span[0] < span[1]]
    merged: list[Span] = []
    for start, end in sorted(wide):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def cut_spans(text: str, spans: Sequence[Span]) -> str:
    """Return the text without some spans, its paragraphs still one blank line apart.

    Args:
        text: the document.
        spans: from :func:`spans_to_cut`: in order, not overlapping.
    """
    kept: list[str] = []
    at = 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    kept.append(text[at:])
    result = kept[0]
    for piece in kept[1:]:
        before, after = result.rstrip(), piece.lstrip()
        if not before or not after:
            result = before or after
            continue
        white = result[len(before) :] + piece[: len(piece) - len(after)]
        gap = "\n\n" if white.count("\n") > 1 else "\n" if "\n" in white else " "
        if gap == "\n\n":
            before = _without_empty_headings(before, after)
        result = f"{before}{gap}{after}" if before else after
    if spans and spans[-1][1] >= len(text.rstrip()):
        result = _without_empty_headings(result.rstrip(), "")
    return result


# --- where a cut may begin and end -----------------------------------------------------------------------

_PARAGRAPH_GAP = re.compile(r"\n[ \t]*\n\s*")
_LINE_OF_ITS_OWN = re.compile(r"\n(?=[ \t]*(?:[-*•|#>]|\d{1,3}[.)]\s|[(（]?[A-Za-z0-9][)）.．、]\s))")
_SENTENCE_GAP = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)\]]))\s+(?=[\"'“‘(\[\\$]*[A-Z0-9\u0370-\u03ff\u2e80-\u9fff\uac00-\ud7a3])"
    r"|(?<=[。！？])[”’）」』]*\s*"
)
_NO_END = re.compile(
    r"(?:\b(?:[A-Z]|al|e\.g|i\.e|cf|vs|etc|ca|approx|resp|[Ff]igs?|[Tt]abs?|[Ee]qs?|[Ss]ecs?|[Rr]efs?|[Nn]os?|[Vv]ol|pp"
    r"|[Cc]h|[Dd]rs?|Prof|Mrs?|Ms|St|Inc|Ltd|Co|sp|spp|var|ed|eds))\.$"
)


def _boundaries(text: str, to: str) -> list[Span]:
    """Return the gaps (start, end of white space) between sentences or paragraphs, with the text's ends."""
    gaps = [match.span() for match in _PARAGRAPH_GAP.finditer(text)]
    if to == "sentence":
        gaps += [match.span() for match in _LINE_OF_ITS_OWN.finditer(text)]
        gaps += [
            match.span()
            for match in _SENTENCE_GAP.finditer(text)
            if not _NO_END.search(text, max(match.start() - 8, 0), match.start())
        ]
    return [(0, 0), *sorted(set(gaps)), (len(text), len(text))]


_PAIRS: tuple[re.Pattern[str], ...] = (
    re.compile(r"\[START_(\w+)\].*?\[END_\1\]", re.S),
    re.compile(r"^(`{3,})[^\n]*\n.*?^\1[ \t]*$", re.S | re.M),
    re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.S),
    re.compile(r"\\\[.*?\\\]|\\\(.*?\\\)|\$\$.+?\$\$", re.S),
    re.compile(r"(?<![\\$])\$(?!\s)[^$\n]{1,300}?(?<![\s\\])\$(?![\d$])"),
    re.compile(r"<work>.*?</work>", re.S),
    re.compile(r"^\|[^\n]*(?:\n\|[^\n]*)+", re.M),
)


def _paired_markup(text: str) -> list[Span]:
    """Return the spans that must be cut whole or not at all, outermost ones, in order."""
    spans = sorted(match.span() for pattern in _PAIRS for match in pattern.finditer(text))
    merged: list[Span] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _widened(span: Span, bounds: list[Span], pairs: list[Span]) -> Span:
    start, end = span
    gap_ends = sorted(gap[1] for gap in bounds)
    gap_starts = sorted(gap[0] for gap in bounds)
    while True:
        before = (start, end)
        # Back to the end of the last gap before the span, on to the start of the next one after it.
        start = gap_ends[max(bisect_right(gap_ends, start) - 1, 0)]
        following = bisect_right(gap_starts, end - 1)
        end = gap_starts[min(following, len(gap_starts) - 1)]
        for first, last in pairs:
            if first < end and start < last:
                start, end = min(start, first), max(end, last)
        if (start, end) == before:
            return start, end


_HEADING = re.compile(r"(#{1,6}) \S")


def _without_empty_headings(before: str, after: str) -> str:
    """Return ``before`` without headings at its end that have no text left before what comes after."""
    following = _HEADING.match(after)
    next_level = len(following[1]) if following else 7 if after else 0
    while True:
        head, _, last = before.rpartition("\n\n")
        heading = _HEADING.match(last)
        # A heading with a deeper one below it still names something; the title stays in any case.
        if not heading or "\n" in last or not head or next_level > len(heading[1]):
            return before
        before = head


# --- words for people ------------------------------------------------------------------------------------


def _detail(text: str, matches: Sequence[Match], items: int) -> str:
    first = max(matches, key=lambda match: (match.covered_fraction, -match.start))
    excerpt = _shortened(text[first.start : first.end])
    others = f", and {items - 1} more" if items > 1 else ""
    return f"{first.item.set_name} {first.item.item_id}: {excerpt!r}{others}"


def _shortened(text: str) -> str:
    line = _one_line(text[: 4 * _EXCERPT_CHARACTERS])
    return line if len(line) <= _EXCERPT_CHARACTERS else f"{line[:_EXCERPT_CHARACTERS]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())
