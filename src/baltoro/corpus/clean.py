"""Cleaning of a paper's structure: what is removed here never reaches a renderer.

Both rules work on spans, so that no neighbour's citation or formula can break.
"""

from __future__ import annotations

import re

from baltoro.corpus.config import CleanConfig
from baltoro.papers.schema import Block, Paper

# C0 and C1 controls except tab and line feed, soft hyphen, zero-width marks, byte order mark, and
# the "noncharacters" that some converters leave behind.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ufffe\uffff]"
)
_LINE_SEPARATORS = {"\u2028": "\n", "\u2029": "\n", "\r": "\n", "\x0b": "\n", "\x0c": "\n", "\x85": "\n"}


def clean_paper(paper: Paper, config: CleanConfig) -> Paper:
    """Repair a paper in place and return it."""
    if config.control_characters:
        _remove_control_characters(paper)
    if config.empty_blocks:
        _remove_empty_blocks(paper)
    return paper


def remove_invisible(text: str) -> str:
    """Return text without control and zero-width characters; line separators become line feeds."""
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub(lambda match: _LINE_SEPARATORS.get(match[0], ""), text)


def _remove_control_characters(paper: Paper) -> None:
    paper.title = remove_invisible(paper.title)
    paper.authors = [remove_invisible(author) for author in paper.authors]
    for block in [*paper.abstract, *paper.blocks()]:
        for inline in block.inlines:
            inline.text = remove_invisible(inline.text)
        block.cells = [[remove_invisible(cell) for cell in row] for row in block.cells]
        if block.label:
            block.label = remove_invisible(block.label)
    for section in paper.sections:
        section.heading = remove_invisible(section.heading)
    for reference in paper.references:
        reference.title = remove_invisible(reference.title)


def _remove_empty_blocks(paper: Paper) -> None:
    paper.abstract = [block for block in paper.abstract if _has_text(block)]
    for section in paper.sections:
        section.blocks = [block for block in section.blocks if _has_text(block)]
    # A heading without text of its own stays: it names the subsections that follow.
    paper.sections = [s for s in paper.sections if s.blocks or s.heading.strip()]


def _has_text(block: Block) -> bool:
    return bool(
        any(inline.text.strip() for inline in block.inlines)
        or any(cell.strip() for row in block.cells for cell in row)
        or (block.kind in ("figure", "table") and block.label)
    )
