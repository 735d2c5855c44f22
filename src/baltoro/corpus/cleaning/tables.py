"""Tables of GROBID that are paragraphs: prose beside or below a table, taken for its caption or its cells.

GROBID puts such prose, often half a page, into ``<figure type="table">``: as a description without any cell,
or as cells that hold sentences. Left alone it is read as a caption, away from its place; here it becomes a
paragraph where the table stands. Only formats that come from GROBID are looked at: in JATS a table of
sentences is a table.
"""

from __future__ import annotations

import re
from typing import Final

from baltoro.corpus.cleaning.effects import Effects
from baltoro.corpus.cleaning.texts import block_lists, words_in
from baltoro.papers.schema import Block, Inline, Paper

_GROBID_FORMATS: Final = frozenset({"grobid_tei", "s2orc", "sciencebeam"})
_FEWEST_PROSE_CHARACTERS: Final = 200
_FEWEST_CELL_CHARACTERS: Final = 150
_PROSE_SHARE: Final = 0.8
_SENTENCE_END = re.compile(r"[^\W\d_]{2,}[.!?](?:\s|$)")
_RUNNING_WORDS: Final = words_in(
    "the of and in is are to for with that we by this as which der die und de la el le et"
)
_FEWEST_RUNNING_WORDS: Final = 0.15
_WORD = re.compile(r"[^\W\d_]+")


def free_prose(paper: Paper, effects: Effects) -> None:
    """Turn tables that are prose into paragraphs (``prose_tables``)."""
    if paper.format not in _GROBID_FORMATS:
        return
    for blocks in block_lists(paper):
        if any(block.kind == "table" for block in blocks):
            blocks[:] = [new for block in blocks for new in _freed(block, effects)]


def _freed(block: Block, effects: Effects) -> list[Block]:
    if block.kind != "table":
        return [block]
    caption = block.printed()
    cells = [cell for row in block.cells for cell in row if cell.strip()]
    if not cells:
        # "Table 3" + "reports overall accuracies": a sentence whose first words were taken for the label.
        goes_on = caption.lstrip()[:1].islower()
        if len(caption) < _FEWEST_PROSE_CHARACTERS or not _is_prose(caption) or (block.label and not goes_on):
            return [block]
        inlines = [Inline("text", f"{block.label} "), *block.inlines] if block.label else block.inlines
        effects.add(
            "prose_tables", f"[table] {block.label or ''} {caption}", "".join(i.text for i in inlines)
        )
        return [Block("paragraph", inlines, ref_id=block.ref_id)]
    long = [cell for cell in cells if len(cell) >= _FEWEST_CELL_CHARACTERS and _is_prose(cell)]
    if sum(map(len, long)) < _PROSE_SHARE * sum(map(len, cells)):
        return [block]
    freed = [Block("table", block.inlines, [], block.label, block.ref_id)] if caption or block.label else []
    freed += [Block("paragraph", [Inline("text", cell)]) for cell in cells]
    effects.add("prose_tables", f"[table] {' | '.join(cells)}", "\n".join(cells))
    return freed


def _is_prose(text: str) -> bool:
    words = _WORD.findall(text.lower())
    running = sum(word in _RUNNING_WORDS for word in words)
    return running >= _FEWEST_RUNNING_WORDS * len(words) > 0 and _SENTENCE_END.search(text) is not None
