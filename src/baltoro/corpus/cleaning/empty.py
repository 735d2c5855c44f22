"""Blocks and sections that hold no text, in the source or after the other rules."""

from __future__ import annotations

from baltoro.corpus.cleaning.effects import Effects
from baltoro.papers.schema import Block, Paper


def remove_empty_blocks(paper: Paper, effects: Effects) -> None:
    """Remove blocks and sections without text (``empty_blocks``)."""
    paper.abstract = _with_text(paper.abstract, effects)
    for section in paper.sections:
        section.blocks = _with_text(section.blocks, effects)
    # A heading without text of its own stays: it names the subsections that follow.
    kept = [section for section in paper.sections if section.blocks or section.heading.strip()]
    if len(kept) < len(paper.sections):
        effects.add("empty_blocks", "", "", len(paper.sections) - len(kept))
        paper.sections = kept


def _with_text(blocks: list[Block], effects: Effects) -> list[Block]:
    kept = [block for block in blocks if has_text(block)]
    if len(kept) == len(blocks):
        return blocks
    effects.add("empty_blocks", "", "", len(blocks) - len(kept))
    effects.unsettled += 1
    return kept


def has_text(block: Block) -> bool:
    """Tell whether a block says anything; a figure or table does by its name alone."""
    if block.inlines and block.inlines[0].text and not block.inlines[0].text.isspace():
        return True
    return bool(
        any(inline.text and not inline.text.isspace() for inline in block.inlines)
        or any(cell.strip() for row in block.cells for cell in row)
        or (block.kind in ("figure", "table") and block.label)
    )
