"""science-parse JSON, the layout of PeerRead and ASAP-Review.

``{name, id, metadata: {title, authors, year, abstractText, sections: [{heading, text}], references:
[{title, author, venue, year, …}], referenceMentions: [{referenceID, context, startOffset, endOffset}]}}``;
newer versions of the parser give what is inside ``metadata`` on top. A mention's offsets count within its
``context``, a sentence of some section in which line ends became spaces; several mentions may share one
stretch ("(Han et al., 2016; Wang and Li, 2016)"), which is then cut at its separators.

Finding a context means searching the text, so the work is bounded: after :data:`MAX_SEARCHED_CHARACTERS`
the remaining mentions stay plain text and are counted.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from baltoro.papers.fields import (
    doi_of,
    level_of_number,
    people_of,
    split_heading,
    text_of,
    year_of,
)
from baltoro.papers.readers._spans import Span, inlines_from_spans
from baltoro.papers.schema import Block, Paper, ReadReject, Reference, Section

_PART = re.compile(r"[^;]+")
_NUMBER_LINE = re.compile(r"\d{1,4}(?: \d{1,4})* ?")
_LEAST_NUMBER_LINES = 5
_MOST_WORKS_IN_ONE_CITATION = 100
_SENTENCE_END = (".", "!", "?", ":", ";", ".)", ".”", '."')

MAX_SEARCHED_CHARACTERS = 1_000_000_000
"""How much text is searched for the contexts of mentions, about a second's work.

A context that stands where it is expected costs its own length; one that is nowhere costs the whole text
twice. In a paper of a hundred pages (300,000 characters) that leaves room for 1,600 of the latter.
"""


def parse_science_parse(document: Mapping[str, Any]) -> Paper:
    """Return the paper of one science-parse record.

    Margin line numbers of review copies (runs of lines that hold only numbers) are left out and counted
    in ``extra["line_numbers_removed"]``; a paragraph that a page break cut is joined again. Mentions that
    were not looked for because of the bound on the search are counted in ``extra["mentions_not_searched"]``.

    Raises:
        ReadReject: ``no_text`` where neither title, abstract nor sections have text.
    """
    inner = document.get("metadata")
    metadata: Mapping[str, Any] = inner if isinstance(inner, Mapping) else document
    paper = Paper(
        title=text_of(metadata.get("title")),
        authors=people_of(metadata.get("authors")),
        year=year_of(metadata.get("year")),
        venue=text_of(metadata.get("venue")) or None,
        doi=doi_of(metadata.get("doi")),
        references=[
            Reference(
                key=str(index),
                title=text_of(entry.get("title")),
                authors=[name.rstrip(".") for name in people_of(entry.get("author") or entry.get("authors"))],
                year=year_of(entry.get("year")),
                doi=doi_of(entry.get("doi")),
            )
            for index, entry in enumerate(_mappings(metadata.get("references")))
        ],
    )
    abstract = text_of(metadata.get("abstractText"))
    if abstract:
        paper.abstract = [Block("paragraph", inlines_from_spans(abstract.replace("\n", " "), []))]
    sections = [
        (text_of(item.get("heading")), text)
        for item in _mappings(metadata.get("sections"))
        if isinstance(text := item.get("text"), str)
    ]
    sections, removed = _without_line_numbers(sections)
    if removed:
        paper.extra["line_numbers_removed"] = str(removed)
    # All sections as one text, because mentions do not say in which section they stand.
    whole = "\n".join(text for _, text in sections)
    mentions, not_searched = _mention_spans(whole, metadata, paper.references)
    if not_searched:
        paper.extra["mentions_not_searched"] = str(not_searched)
    spans = deque(sorted(mentions, key=lambda span: span.start))
    offset = 0
    for heading_text, text in sections:
        number, heading = split_heading(heading_text)
        section = Section(level_of_number(number), heading, number)
        for start, end in _paragraphs(text):
            shifted: list[Span] = []
            while spans and spans[0].start < offset + end:
                span = spans.popleft()
                begin = span.start - offset - start
                shifted.append(Span(begin, span.end - span.start + begin, span.kind, span.target))
            inlines = inlines_from_spans(text[start:end].replace("\n", " "), shifted)
            section.blocks.append(Block("paragraph", inlines, [], None, None))
        if section.blocks or section.heading:
            paper.sections.append(section)
        offset += len(text) + 1
    if not (paper.title or paper.abstract or any(section.blocks for section in paper.sections)):
        raise ReadReject("no_text", "neither title, abstract nor section text")
    return paper


def _without_line_numbers(sections: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], int]:
    kept, removed = [], 0
    for heading, text in sections:
        lines: list[str] = []
        run: list[str] = []
        for line in text.split("\n"):
            if line and line[0].isdecimal() and _NUMBER_LINE.fullmatch(line):
                run.append(line)
                continue
            if run:
                removed += _close_run(run, lines)
                run = []
            lines.append(line)
        if run:
            removed += _close_run(run, lines)
        kept.append((heading, "\n".join(lines)))
    return kept, removed


def _close_run(run: list[str], lines: list[str]) -> int:
    """Add a run of lines that hold only numbers to the text, or return how many margin numbers it has."""
    numbers = sum(len(item.split()) for item in run)
    if numbers >= _LEAST_NUMBER_LINES:
        return numbers
    lines.extend(run)
    return 0


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the paragraphs of a section: its lines, joined where a page broke a sentence."""
    start, position = 0, 0
    while position <= len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        following = text[end + 1 : end + 2]
        broken = following.islower() and not text[position:end].rstrip().endswith(_SENTENCE_END)
        position = end + 1
        if end < len(text) and broken:
            continue
        if text[start:end].strip():
            yield start, end
        start = end + 1


def _mention_spans(
    whole: str, metadata: Mapping[str, Any], references: list[Reference]
) -> tuple[list[Span], int]:
    """Return the spans of citations, by offsets into ``whole``, and how many mentions were not looked for."""
    flat = whole.replace("\n", " ")
    targets: dict[tuple[int, int], dict[int, None]] = {}
    cursor = searched = not_searched = 0
    for mention in _mappings(metadata.get("referenceMentions")):
        reference, start, end = (
            mention.get("referenceID"),
            mention.get("startOffset"),
            mention.get("endOffset"),
        )
        context = mention.get("context")
        if not (isinstance(context, str) and isinstance(start, int) and isinstance(end, int)):
            continue
        if not (isinstance(reference, int) and 0 <= reference < len(references)):
            continue
        if not 0 <= start < end <= len(context):
            continue
        if searched > MAX_SEARCHED_CHARACTERS:
            not_searched += 1
            continue
        context = context.replace("\n", " ")
        # Mentions stand in reading order, so the search goes on from the last one before it starts over.
        found = flat.find(context, cursor)
        searched += (len(flat) if found < 0 else found + len(context)) - cursor
        if found < 0:
            found = flat.find(context)
            searched += len(flat) if found < 0 else found + len(context)
        if found < 0:
            continue
        cursor = found
        targets.setdefault((found + start, found + end), {})[reference] = None
    spans: list[Span] = []
    for (start, end), cited in targets.items():
        spans.extend(_split_citation(flat, start, end, list(cited), references))
    return spans, not_searched


def _split_citation(
    text: str, start: int, end: int, cited: list[int], references: list[Reference]
) -> Iterator[Span]:
    parts = [(start + part.start(), start + part.end()) for part in _PART.finditer(text[start:end])]
    if len(parts) == 1 or len(parts) > _MOST_WORKS_IN_ONE_CITATION:
        yield Span(start, end, "citation", str(cited[0]))
        return
    for part_start, part_end in parts:
        part = text[part_start:part_end]
        matching = [index for index in cited if _names(references[index], part)]
        yield Span(part_start, part_end, "citation", str(matching[0]) if matching else None)


def _names(reference: Reference, citation: str) -> bool:
    surname = reference.authors[0].split()[-1] if reference.authors else ""
    year = str(reference.year) if reference.year else ""
    return bool(surname) and surname in citation and year in citation


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
