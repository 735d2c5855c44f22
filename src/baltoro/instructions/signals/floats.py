"""Captions of figures and tables with the sentences that mention them, in both directions.

A mention is an inline that the source links to the figure or table; where it is not linked, ``fig``, ``Fig``,
``FIG`` or ``table``, ``Table``, ``TABLE`` with a number that one of the paper's own labels has. ``Fig. 11``
is none of ``Fig. 1``; a number beyond the paper's own, and ``of`` right after the mention, mean another
paper's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from baltoro.instructions.signals.tasks import Candidate
from baltoro.instructions.signals.text import Flow, PaperTexts, Span, one_line
from baltoro.papers.schema import Block

FloatKind = Literal["figure", "table"]

# Each branch begins with a letter and looks back behind it: what begins with \b is tried at every place.
_KEYWORD = {
    kind: re.compile(rf"(?:{words})\b\.?\s*([A-Z]?\d+)(?!\d)")
    for kind, words in {
        "figure": r"f(?<!\wf)ig(?:ure)?s?|F(?<!\wF)ig(?:ure)?s?|F(?<!\wF)IG(?:URE)?S?",
        "table": r"t(?<!\wt)ab(?:le)?s?|T(?<!\wT)ab(?:le)?s?|T(?<!\wT)AB(?:LE)?S?",
    }.items()
}
_SINGULAR_LABEL = {
    "figure": re.compile(r"fig(?:ure)?s?\.*\s*([a-z]?\d+)\.?", re.IGNORECASE),
    "table": re.compile(r"tab(?:le)?s?\.*\s*([a-z]?\d+)\.?", re.IGNORECASE),
}
_ANOTHER = re.compile(r"[A-Za-z]?\s*(?:(?:and|&|–|-|to)\s*[A-Z]?\d|,\s*[A-Z]?\d+(?!\.?\d|\s*[a-z%°]))")
"""A further number behind a mention; behind a comma one that counts nothing else."""

_STEMS = {"figure": ("fig", "Fig", "FIG"), "table": ("tab", "Tab", "TAB")}
_NUMBER = re.compile(r"[A-Z]?\d+(?!\d)")
_OF = re.compile(r"[A-Za-z]?\s+of\b(?! (?:this|the present|our))")


@dataclass(slots=True)
class Mention:
    """A place in a paragraph that points to a figure or table.

    ``float_key`` is ``None`` where none is found; ``number`` is what the text says.
    """

    end: int
    sentence: int
    number: str
    float_key: int | None


def caption_pairs(texts: PaperTexts, kind: FloatKind) -> Iterator[tuple[str, Candidate]]:
    """Yield a direction and a candidate: ``caption_from_mention`` and ``mention_from_caption``.

    Args:
        texts: the paper.
        kind: figures or tables.
    """
    floats = [block for block in texts.paper.blocks() if block.kind == kind]
    if not floats:
        return
    by_id = {block.ref_id: key for key, block in enumerate(floats) if block.ref_id}
    by_number: dict[str, int] = {}
    for key, block in enumerate(floats):
        match = _SINGULAR_LABEL[kind].fullmatch(one_line(block.label or ""))
        if match:
            by_number.setdefault(match.group(1).upper(), key)
    captions = [texts.caption(block) for block in floats]
    described: set[int] = set()
    for flow in map(texts.flow, texts.paragraphs):
        by_sentence: dict[int, list[Mention]] = {}
        for mention in _mentions(flow, kind, by_id, by_number):
            by_sentence.setdefault(mention.sentence, []).append(mention)
        for number, mentions in by_sentence.items():
            start, end = flow.sentence_spans[number]
            sentence = flow.text[start:end]
            refused = _refusal(flow, sentence, mentions, kind, len(floats))
            target = mentions[0].float_key
            if refused is not None or target is None:
                yield "caption_from_mention", refused or Candidate({"input": sentence}, "beyond_count")
                continue
            caption = captions[target]
            if not caption:
                yield (
                    "caption_from_mention",
                    Candidate({"input": sentence}, "no_caption", one_line(floats[target].label or kind)),
                )
                continue
            yield "caption_from_mention", Candidate({"input": sentence, "output": caption})
            # One sentence for each caption, the first: the same question must not have several answers.
            if target not in described:
                described.add(target)
                yield (
                    "mention_from_caption",
                    Candidate({"input": _with_label(floats[target], caption), "output": sentence}),
                )


def _refusal(
    flow: Flow,
    sentence: str,
    mentions: list[Mention],
    kind: FloatKind,
    count: int,
) -> Candidate | None:
    """Return the refusal of a sentence whose mentions do not lead to exactly one figure or table."""
    slots = {"input": sentence}
    keys = {mention.float_key for mention in mentions}
    for mention in mentions:
        if _OF.match(flow.text, mention.end):
            return Candidate(slots, "other_paper", flow.text[mention.end - 10 : mention.end + 20])
    if len(keys) > 1 or any(_ANOTHER.match(flow.text, mention.end) for mention in mentions):
        return Candidate(slots, "several_floats", sentence[:120])
    if None in keys:
        return Candidate(slots, "beyond_count", f"{kind} {mentions[0].number}; it has {count}")
    other = "table" if kind == "figure" else "figure"
    if any(span.inline.kind == f"{other}_ref" for span in _spans_in(flow, mentions[0].sentence)):
        return Candidate(slots, "several_floats", sentence[:120])
    return None


def _spans_in(flow: Flow, sentence: int) -> list[Span]:
    start, end = flow.sentence_spans[sentence]
    return [span for span in flow.float_spans if start <= span.start < end]


def _mentions(
    flow: Flow, kind: FloatKind, by_id: Mapping[str, int], by_number: Mapping[str, int]
) -> Iterator[Mention]:
    linked = f"{kind}_ref"
    for span in flow.float_spans:
        inline = span.inline
        if inline.kind == linked:
            number = _NUMBER.search(inline.text)
            printed = number.group() if number else one_line(inline.text)
            key = by_id.get(inline.target) if inline.target else None
            if key is None and number and not inline.target:
                key = by_number.get(printed)
            yield Mention(span.end, flow.sentence_at(span.start), printed, key)
    text = flow.text
    small, capitalized, capitals = _STEMS[kind]
    if small not in text and capitalized not in text and capitals not in text:
        return
    for match in _KEYWORD[kind].finditer(text):
        if any(span.start < match.end() and match.start(1) < span.end for span in flow.spans):
            continue
        printed = match.group(1)
        yield Mention(match.end(), flow.sentence_at(match.start()), printed, by_number.get(printed.upper()))


def _with_label(block: Block, caption: str) -> str:
    label = one_line(block.label or "").rstrip(".:")
    return f"{label}. {caption}" if label else caption
