"""The whole: from what a reader hands over to the finished paper."""

from __future__ import annotations

from collections.abc import Iterator

from baltoro.papers.readers._builder.body import read_body
from baltoro.papers.readers._builder.citations import CitationIndex, highest_citation, link_notes
from baltoro.papers.readers._builder.draft import Draft, Source
from baltoro.papers.readers._builder.entries import Entry, number_by_place
from baltoro.papers.readers._builder.front import read_front
from baltoro.papers.readers._builder.wording import KNOWN_HEADING, NUMBERED
from baltoro.papers.readers._markup.blocks import RawBlock
from baltoro.papers.schema import Block, Inline, Paper, ReadReject

_PAGE_ELEMENTS = ("figure", "table", "note")
_FEWEST_CUT_CHARACTERS = 40


def build_paper(source: Source) -> Paper:
    """Return the paper of a sequence of blocks.

    Args:
        source: the blocks, and a paper whose filled fields (from front matter) are kept.

    Raises:
        ReadReject: ``no_text`` if there is neither title, abstract nor body text.
    """
    draft = Draft(source)
    if source.bare_headings:
        _promote_bare_headings(source.blocks)
    read_body(draft, read_front(draft))
    paper = draft.paper
    if source.loose_lines_are_authors:
        for section in draft.sections:
            section.blocks = list(_with_whole_paragraphs(section.blocks))
    paper.sections = [
        section for section in draft.sections if section.heading or section.number or section.blocks
    ]
    _link(paper, draft.entries)
    if draft.front_lines:
        paper.extra["front_matter"] = "\n".join(draft.front_lines)
    paper.extra.update({name: str(count) for name, count in draft.counts.items() if count})
    return _require_text(paper)


def _promote_bare_headings(blocks: list[RawBlock]) -> None:
    """Make headings of the paragraphs that are only a usual section name (their mark was lost)."""
    for block in blocks:
        if block.kind == "paragraph" and len(block.text) < 60 and "\n" not in block.text:
            words = block.text.strip()
            number = NUMBERED.match(words)
            name = words[number.end() :] if number else words
            if KNOWN_HEADING.fullmatch(name.strip(" .:*")):
                block.kind = "heading"
                block.level = 2
                block.text = words.strip("*")


def _link(paper: Paper, slots: list[Entry]) -> None:
    """Fill the reference list, and link citations, mentions and notes in the text to their targets."""
    running = [block for block in [*paper.abstract, *paper.blocks()] if block.kind not in ("formula", "code")]
    texts = (span.text for block in running for span in block.inlines if span.kind == "text")
    number_by_place(slots, highest_citation(texts))
    entries = [entry for entry in slots if _is_entry(entry)]
    for ordinal, entry in enumerate(entries, start=1):
        entry.reference.key = f"b{ordinal}"
    paper.references = [entry.reference for entry in entries]
    index = CitationIndex.of(entries, paper.blocks())
    for block in running:
        block.inlines = index.link(block.inlines)
    link_notes(paper.blocks())


def _is_entry(entry: Entry) -> bool:
    return any(character.isalpha() for character in entry.printed)


def _with_whole_paragraphs(blocks: list[Block]) -> Iterator[Block]:
    """Yield the blocks with a paragraph that a page's floats or notes cut in two made whole before them."""
    position = 0
    while position < len(blocks):
        block = blocks[position]
        between: list[Block] = []
        position += 1
        while block.kind == "paragraph" and position < len(blocks):
            end = position
            while end < len(blocks) and blocks[end].kind in _PAGE_ELEMENTS:
                end += 1
            if end == position or end == len(blocks) or not _goes_on(block, blocks[end]):
                break
            between += blocks[position:end]
            block.inlines += [Inline("text", " "), *blocks[end].inlines]
            position = end + 1
        yield block
        yield from between


def _goes_on(block: Block, following: Block) -> bool:
    """Tell whether a paragraph breaks off in the middle of a sentence that another one ends."""
    words = block.printed()
    return (
        following.kind == "paragraph"
        and len(words) >= _FEWEST_CUT_CHARACTERS
        and (words[-1].isalnum() or words[-1] == ",")
        and following.printed()[:1].islower()
    )


def _require_text(paper: Paper) -> Paper:
    if (
        any(map(str.isalnum, paper.title))
        or paper.abstract
        or any(section.heading or section.blocks for section in paper.sections)
    ):
        return paper
    raise ReadReject("no_text", "no title, abstract or body text was found in the document")
