"""science-parse JSON, the layout of PeerRead and ASAP-Review.

``{name, id, metadata: {title, authors, year, abstractText, sections: [{heading, text}], references:
[{title, author, venue, year, …}], referenceMentions: [{referenceID, context, startOffset, endOffset}]}}``;
newer versions of the parser give what is inside ``metadata`` on top. A mention's offsets count within its
``context``, a sentence of some section in which line ends became spaces; several mentions may share one
stretch ("(Han et al., 2016; Wang and Li, 2016)"), which is then cut at its separators.
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
_SENTENCE_END = (".", "!", "?", ":", ";", ".)", ".”", '."')


def parse_science_parse(document: Mapping[str, Any]) -> Paper:
    """Return the paper of one science-parse record.

    Margin line numbers of review copies (runs of lines that hold only numbers) are left out and counted
    in ``extra["line_numbers_removed"]``; a paragraph that a page break cut is joined again.

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
    spans = deque(sorted(_mention_spans(whole, metadata, paper.references), key=lambda span: span.start))
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
            section.blocks.append(Block("paragraph", inlines))
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
        for line in [*text.split("\n"), ""]:
            if _NUMBER_LINE.fullmatch(line):
                run.append(line)
                continue
            numbers = sum(len(item.split()) for item in run)
            if numbers >= _LEAST_NUMBER_LINES:
                removed += numbers
            else:
                lines.extend(run)
            run = []
            lines.append(line)
        kept.append((heading, "\n".join(lines[:-1])))
    return kept, removed


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


def _mention_spans(whole: str, metadata: Mapping[str, Any], references: list[Reference]) -> list[Span]:
    flat = whole.replace("\n", " ")
    targets: dict[tuple[int, int], list[int]] = {}
    cursor = 0
    for mention in _mappings(metadata.get("referenceMentions")):
        reference, start, end = (mention.get(name) for name in ("referenceID", "startOffset", "endOffset"))
        context = mention.get("context")
        if not (isinstance(context, str) and isinstance(start, int) and isinstance(end, int)):
            continue
        if not (isinstance(reference, int) and 0 <= reference < len(references)):
            continue
        if not 0 <= start < end <= len(context):
            continue
        # Mentions stand in reading order, so the search goes on from the last one before it starts over.
        found = flat.find(context.replace("\n", " "), cursor)
        if found < 0:
            found = flat.find(context.replace("\n", " "))
        if found < 0:
            continue
        cursor = found
        cited = targets.setdefault((found + start, found + end), [])
        if reference not in cited:
            cited.append(reference)
    spans: list[Span] = []
    for (start, end), cited in targets.items():
        spans.extend(_split_citation(flat, start, end, cited, references))
    return spans


def _split_citation(
    text: str, start: int, end: int, cited: list[int], references: list[Reference]
) -> Iterator[Span]:
    parts = [(start + part.start(), start + part.end()) for part in _PART.finditer(text[start:end])]
    if len(parts) == 1:
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
