"""Figures, tables and notes: their blocks, captions and cells, and where in the text they go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lxml import etree

from baltoro.papers.fields import label_key, split_label
from baltoro.papers.readers._xml import InlineBuilder, children_of, collapse_space, element_text
from baltoro.papers.readers.tei.elements import (
    APART,
    CELL,
    FLOAT,
    HEAD,
    LABEL,
    NOTE,
    ROLES,
    ROW,
    TABLE,
    XML_ID,
    printed,
)
from baltoro.papers.schema import Block, BlockKind, Inline, Section

# What a caption begins with if its first letter stands in the head: "Fig. 2 M" and "-waves".
_CONTINUES: Final = frozenset("-.,;:)")
_MAX_COLUMNS = 200

Flatten = Callable[[etree._Element], list[Inline]]


class Floats:
    """The floats at the end of a part, each with the section it falls back to, and who mentions them."""

    def __init__(self) -> None:
        self._apart: list[tuple[str | None, Section, list[Block]]] = []
        self._mentioned_in: dict[str, Block] = {}

    def add(self, ref_id: str | None, section: Section, blocks: list[Block]) -> None:
        """Keep the blocks of a float that stands away from its place."""
        self._apart.append((ref_id, section, blocks))

    def mention(self, ref_ids: list[str], block: Block) -> None:
        """Note that a block mentions floats; the first one to do so counts."""
        for ref_id in ref_ids:
            self._mentioned_in.setdefault(ref_id, block)

    def place(self, sections: list[Section]) -> None:
        """Put each float after the block that mentions it first, else at the end of its section.

        A sentence that runs on (into a formula, or into a paragraph that begins in lower case) is not
        interrupted: the float follows its last piece.
        """
        waiting: dict[int, list[Block]] = {}
        for ref_id, section, blocks in self._apart:
            anchor = self._mentioned_in.get(ref_id) if ref_id else None
            if anchor is None:
                section.blocks += blocks
            else:
                waiting.setdefault(id(anchor), []).extend(blocks)
        if not waiting:
            return
        for section in sections:
            placed: list[Block] = []
            due: list[Block] = []
            for block in section.blocks:
                if due and not (block.kind == "formula" or block.printed()[:1].islower()):
                    placed += due
                    due = []
                placed.append(block)
                due += waiting.get(id(block), ())
            section.blocks = placed + due


def float_blocks(element: etree._Element, flatten: Flatten) -> list[Block]:
    """Return a figure, table or note as blocks: itself, then the notes and figures inside it.

    Args:
        element: the figure, table or note.
        flatten: gives all content of an element as one run of spans.
    """
    if element.tag == NOTE:
        inlines = flatten(element)
        note = Block("note", inlines, label=element.get("n"), ref_id=element.get(XML_ID))
        return [note] if inlines else []
    head = number = ""
    caption = InlineBuilder()
    caption.add_text(element.text)
    cells: list[list[str]] = []
    inner: list[Block] = []
    for child in children_of(element):
        role = ROLES.get(child.tag, 0)
        if role == HEAD:
            head = f"{head} {printed(flatten(child))}".strip()
        elif child.tag == LABEL:
            number = element_text(child)
        elif role == TABLE:
            cells += table_cells(child, flatten)
        elif role == FLOAT:
            inner += float_blocks(child, flatten)
        elif role != APART:
            for inline in flatten(child):
                caption.add(inline.kind, inline.text, inline.target)
        caption.add_break()
        caption.add_text(child.tail)
    kind: BlockKind = "table" if cells or element.get("type") == "table" else "figure"
    label, inlines = _split_caption(head, number, kind, caption.build())
    block = Block(kind, inlines, cells, label, element.get(XML_ID))
    return [block, *inner] if inlines or cells or label else inner


def table_cells(table: etree._Element, flatten: Flatten) -> list[list[str]]:
    """Return the rows of a table; a cell over several columns is followed by empty ones.

    Args:
        table: the element.
        flatten: gives the content of a cell that holds elements.
    """
    rows: list[list[str]] = []
    for row in table.iter(ROW):
        cells: list[str] = []
        for cell in children_of(row):
            if cell.tag != CELL:
                continue
            if len(cell):
                cells.append(printed(flatten(cell)))
            else:
                text = cell.text
                cells.append(collapse_space(text).strip(" ") if text else "")
            columns = cell.get("cols")
            if columns and columns.isdecimal() and len(cells) < _MAX_COLUMNS:
                cells += [""] * (min(int(columns[:4]), _MAX_COLUMNS) - 1)
        if cells:
            rows.append(cells)
    if not rows:
        text = printed(flatten(table))
        return [[text]] if text else []
    return rows


def _split_caption(
    head: str, number: str, kind: BlockKind, description: list[Inline]
) -> tuple[str | None, list[Inline]]:
    """Return ``(label, caption)`` of a figure or table, which GROBID names up to three times.

    ``head`` holds the label ("Figure 1 :"), the label and the first words of the caption ("Fig. 2 M"),
    lettering of the picture and the label ("10 100 FIG. 3 ."), or other text; ``number`` is what GROBID
    took for the number; the description may begin with the label again.
    """
    opening = description[0].text if description else ""
    repeated, rest = split_label(opening)
    is_marked = repeated is not None and opening.removesuffix(rest).rstrip()[-1] in ".:|–—-"
    label, before = split_label(head)
    if label is not None:
        second, remainder = split_label(before)
        if second is not None and not remainder:
            label, before = f"{label} {second}", ""
        # "Table 3 shows" is a sentence of its own, not the label again.
        is_label_again = (
            repeated is not None
            and label_key(repeated) == label_key(label)
            and (is_marked or not rest[:1].islower())
        )
    elif is_marked and repeated is not None:
        label, is_label_again = repeated, True
        before = "" if head.rstrip(" .:|").endswith(repeated) else head
    else:
        is_label_again = False
        # With a head, GROBID's number is the digits found in it, which may be anything.
        if number and not head:
            label = f"{kind.capitalize()} {number}" if number[0].isdigit() else number

    caption = InlineBuilder()
    caption.add_text(before)
    if (rest or opening)[:1] not in _CONTINUES:
        caption.add_break()
    for index, inline in enumerate(description):
        if index == 0 and is_label_again:
            caption.add_text(rest)
        elif index == 1 and is_label_again and not rest:
            caption.add(inline.kind, inline.text.lstrip(" .:|"), inline.target)
        else:
            caption.add(inline.kind, inline.text, inline.target)
    return label, caption.build()
