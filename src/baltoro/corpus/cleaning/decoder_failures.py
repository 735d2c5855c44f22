"""What text decoders leave where they failed: markers of missing pages, and loops.

The Nougat reader removes both from ``.mmd`` files and notes how much in ``Paper.extra``; that is counted
here and not done again. What is removed here are markers in other formats (an ``.mmd`` file renamed or
converted) and loops in Markdown, which vision models write as well (MinerU, Marker, Docling). JATS and TEI
never went through a decoder, so what repeats itself there is meant.
"""

from __future__ import annotations

import re
from typing import Final

from baltoro.corpus.cleaning.effects import Effects
from baltoro.corpus.cleaning.texts import Survey, all_blocks, block_lists, change_block_texts
from baltoro.papers.repetition import cut_repetitions
from baltoro.papers.schema import Block, Paper

# Markers: the Nougat project's post-processing.
_MISSING_PAGE = re.compile(r"\[MISSING[_ ]PAGE(?:_[A-Z]{1,12})?(?::\s{0,3}\d{1,6})?\]")
_DECODED_FORMATS: Final = frozenset({"markdown", "docling_markdown", "docling_json"})
_SHORTEST_LOOP_CHARACTERS: Final = 250
_FEWEST_COPIES: Final = 4
_PHRASE_LETTERS: Final = 8


def count_what_the_reader_removed(paper: Paper, effects: Effects) -> None:
    """Count the markers and loops that the Nougat reader removed."""
    for rule, name in (("missing_pages", "missing_pages"), ("repetitions", "repetition_characters_cut")):
        noted = paper.extra.get(name, "")
        # A metadata table may have a column of that name.
        counted = int(noted) if noted.isdecimal() else 0
        if counted:
            effects.add(rule, f"{counted} removed by the reader of {paper.format}", "", counted)


def remove_decoder_failures(paper: Paper, survey: Survey, effects: Effects) -> None:
    """Remove markers of missing pages (``missing_pages``) and cut loops (``repetitions``)."""
    if "[MISSING" in survey.text:

        def without_markers(text: str) -> str:
            if "[MISSING" not in text:
                return text
            # Two parts of a sentence stay apart.
            cleaned, found = _MISSING_PAGE.subn(" ", text)
            if found:
                effects.add("missing_pages", text, cleaned, found)
            return cleaned

        change_block_texts(paper, without_markers)
    if paper.format in _DECODED_FORMATS:
        for blocks in block_lists(paper):
            _cut_repeated_blocks(blocks, effects)
        for block in all_blocks(paper):
            if block.kind in ("paragraph", "list", "note"):
                _cut_loops(block, effects)


def _cut_loops(block: Block, effects: Effects) -> None:
    for inline in block.inlines:
        if inline.kind == "text" and len(inline.text) >= _SHORTEST_LOOP_CHARACTERS:
            kept, cut = cut_repetitions(inline.text)
            if cut:
                effects.add("repetitions", inline.text, kept, cut)
                inline.text = kept


def _cut_repeated_blocks(blocks: list[Block], effects: Effects) -> None:
    position = 0
    while position < len(blocks):
        text = blocks[position].printed()
        end = position + 1
        while (
            end < len(blocks) and blocks[end].kind == blocks[position].kind and blocks[end].printed() == text
        ):
            end += 1
        copies = end - position
        if (
            copies >= _FEWEST_COPIES
            and copies * len(text) >= _SHORTEST_LOOP_CHARACTERS
            and sum(map(str.isalpha, text)) >= _PHRASE_LETTERS
        ):
            effects.add("repetitions", "\n".join([text] * copies), text, (copies - 1) * len(text))
            del blocks[position + 1 : end]
            end = position + 1
        position = end
