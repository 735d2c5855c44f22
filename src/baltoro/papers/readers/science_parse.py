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
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

from baltoro.papers.fields import (
    doi_of,
    level_of_number,
    people_of,
    split_heading,
    text_of,
    year_of,
)
from baltoro.papers.readers._json import mappings
from baltoro.papers.readers._spans import Span, inlines_from_spans
from baltoro.papers.readers._text import find_long
from baltoro.papers.schema import Block, Inline, Paper, ReadReject, Reference, Section

_PART = re.compile(r"[^;]+")
_NUMBER_LINE = re.compile(r"\d{1,4}(?: \d{1,4})* ?")
_LEAST_NUMBER_LINES = 5
_START = itemgetter(0)
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
                str(index),
                text_of(entry.get("title")),
                [name.rstrip(".") for name in people_of(entry.get("author") or entry.get("authors"))],
                year_of(entry.get("year")),
                doi_of(entry.get("doi")),
            )
            for index, entry in enumerate(mappings(metadata.get("references")))
        ],
    )
    abstract = text_of(metadata.get("abstractText"))
    if abstract:
        paper.abstract = [Block("paragraph", [Inline("text", abstract.replace("\n", " "))])]
    removed = 0
    sections: list[tuple[str, list[str]]] = []
    for item in mappings(metadata.get("sections")):
        text = item.get("text")
        if isinstance(text, str):
            lines, numbers = _without_line_numbers(text.split("\n"))
            sections.append((text_of(item.get("heading")), lines))
            removed += numbers
    if removed:
        paper.extra["line_numbers_removed"] = str(removed)
    # All sections as one text, because mentions do not say in which section they stand.
    whole = " ".join([line for _, lines in sections for line in lines])
    spans, not_searched = _mention_spans(whole, metadata, paper.references)
    if not_searched:
        paper.extra["mentions_not_searched"] = str(not_searched)
    reader = _SectionReader(whole, spans)
    for heading_text, lines in sections:
        number, heading = split_heading(heading_text)
        section = Section(level_of_number(number), heading, number, reader.paragraphs(lines))
        if section.blocks or section.heading:
            paper.sections.append(section)
    if not (paper.title or paper.abstract or any(section.blocks for section in paper.sections)):
        raise ReadReject("no_text", "neither title, abstract nor section text")
    return paper


class _SectionReader:
    """Reads the sections of a text one after the other and hands each paragraph its citations."""

    def __init__(self, text: str, spans: list[Span]) -> None:
        self._text = text
        self._position = 0
        self._spans = sorted(spans, key=_START)
        self._next_span = 0

    def paragraphs(self, lines: list[str]) -> list[Block]:
        """Return the paragraphs of a section: its lines, joined where a page broke a sentence."""
        blocks: list[Block] = []
        start = position = self._position
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            end = position + len(line)
            if following[:1].islower() and not line.rstrip().endswith(_SENTENCE_END):
                position = end + 1
                continue
            text = line if start == position else self._text[start:end]
            if text and not text.isspace():
                blocks.append(Block("paragraph", self._inlines(text, start, end), [], None, None))
            start = position = end + 1
        self._position = position
        return blocks

    def _inlines(self, text: str, start: int, end: int) -> list[Inline]:
        spans = self._spans
        first = following = self._next_span
        while following < len(spans) and spans[following][0] < end:
            following += 1
        if first == following:
            return [Inline("text", text, None)]
        self._next_span = following
        return inlines_from_spans(self._text, spans[first:following], start, end)


def _without_line_numbers(lines: list[str]) -> tuple[list[str], int]:
    """Return the lines of a section without runs of margin numbers, at least one, and how many went."""
    if not any([line[:1].isdecimal() for line in lines]):  # noqa: C419  (a list is faster here)
        return lines, 0
    kept: list[str] = []
    run: list[str] = []
    removed = 0
    for line in lines:
        if line[:1].isdecimal() and _NUMBER_LINE.fullmatch(line):
            run.append(line)
            continue
        if run:
            removed += _close_run(run, kept)
            run = []
        kept.append(line)
    if run:
        removed += _close_run(run, kept)
    return kept or [""], removed


def _close_run(run: list[str], lines: list[str]) -> int:
    """Add a run of lines that hold only numbers to the text, or return how many margin numbers it has."""
    numbers = len(" ".join(run).split())
    if numbers >= _LEAST_NUMBER_LINES:
        return numbers
    lines.extend(run)
    return 0


def _mention_spans(
    text: str, metadata: Mapping[str, Any], references: list[Reference]
) -> tuple[list[Span], int]:
    """Return the spans of citations in a text of one line, and how many mentions were not looked for."""
    targets: dict[tuple[int, int], dict[int, None]] = {}
    cursor = searched = not_searched = 0
    for mention in mappings(metadata.get("referenceMentions")):
        get = mention.get
        reference, start, end, context = (
            get("referenceID"),
            get("startOffset"),
            get("endOffset"),
            get("context"),
        )
        if not (isinstance(context, str) and isinstance(start, int) and isinstance(end, int)):
            continue
        if not (isinstance(reference, int) and 0 <= reference < len(references)):
            continue
        if not 0 <= start < end <= len(context):
            continue
        if searched > MAX_SEARCHED_CHARACTERS:
            not_searched += 1
            continue
        if "\n" in context:
            context = context.replace("\n", " ")
        # Mentions stand in reading order, so the search goes on from the last one before it starts over.
        found = find_long(text, context, cursor)
        searched += (len(text) if found < 0 else found + len(context)) - cursor
        if found < 0:
            found = find_long(text, context, 0)
            searched += len(text) if found < 0 else found + len(context)
        if found < 0:
            continue
        cursor = found
        targets.setdefault((found + start, found + end), {})[reference] = None
    spans: list[Span] = []
    for (start, end), cited in targets.items():
        if text.find(";", start, end) < 0:
            spans.append(Span(start, end, "citation", str(next(iter(cited)))))
        else:
            spans.extend(_split_citation(text, start, end, list(cited), references))
    return spans, not_searched


def _split_citation(
    text: str, start: int, end: int, cited: list[int], references: list[Reference]
) -> Iterator[Span]:
    """Yield the parts of a citation between its semicolons, each with the work that it names."""
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
