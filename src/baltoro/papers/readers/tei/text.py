"""Running text: the one walk that turns front matter, body, back matter or an abstract into sections."""

from __future__ import annotations

import re
from typing import Final

from lxml import etree

from baltoro.papers.fields import level_of_number, split_heading
from baltoro.papers.readers._xml import InlineBuilder, all_text, children_of, collapse_space, element_text
from baltoro.papers.readers.tei.elements import (
    APART,
    BREAK,
    DIVISION,
    FLOAT,
    FORMULA,
    HEAD,
    HEAD_TAG,
    LABEL,
    LIST,
    LIST_BIBL,
    NS,
    REFERENCE,
    ROLES,
    TABLE,
    XML_ID,
    printed,
)
from baltoro.papers.readers.tei.floats import Floats, float_blocks, table_cells
from baltoro.papers.schema import Block, BlockKind, Inline, InlineKind, Section

_REFERENCE_KINDS: Final[dict[str | None, InlineKind]] = {
    "bibr": "citation",
    "figure": "figure_ref",
    "table": "table_ref",
    "foot": "note_ref",
    "note": "note_ref",
}

# Headings of back matter whose division GROBID gives a type and often no head.
_BACK_HEADINGS: Final[dict[str | None, str]] = {
    "acknowledgement": "Acknowledgements",
    "annex": "Appendix",
    "availability": "Data availability",
    "funding": "Funding",
    "contribution": "Author contributions",
    "conflict": "Conflicts of interest",
}
_MAX_LEVEL = 6
_NUMBER_ALONE = re.compile(r"[A-Z]?\d{0,2}(?:\.\d{1,2})*\.?")
_ROMAN_NUMBER = re.compile(r"[IVX]+")


class TextReader:
    """Walks ``front``, ``body``, ``back`` or an abstract once, in document order, and collects sections.

    One recursive walk serves every level, because GROBID and its users nest freely: text directly in a
    division, formulas and lists in a paragraph, paragraphs in a list item. libxml2's depth bound limits the
    recursion.
    """

    def __init__(self, citation_keys: set[str], float_ids: set[str]) -> None:
        self._citation_keys = citation_keys
        self._float_ids = float_ids
        self._sections: list[Section] = []
        self._section: Section | None = None
        self._default_heading = ""
        self._after_roman_number = False
        # The block being collected: its spans, what it is, and what must follow it.
        self._builder = InlineBuilder()
        self._kind: BlockKind = "paragraph"
        self._label: str | None = None
        self._mentions: list[str] = []
        self._following: list[Block] = []
        # Inside a caption, note, cell or heading everything is flattened into one run of spans.
        self._is_flat = False
        self._floats = Floats()

    def read_text(self, text: etree._Element) -> None:
        """Read a ``text`` element: front matter, body, and the typed divisions of the back matter."""
        for part in text:
            if part.tag == NS + "back":
                self._read_back(part)
            else:
                self.read_flow(part)

    def read_flow(self, part: etree._Element) -> None:
        """Read one part whose own figures and notes may stand away from their place."""
        self._section = None
        self._default_heading = ""
        self._walk(part, 0, in_part=True)
        self._close_block()

    def finish(self) -> list[Section]:
        """Return the sections with every float in its place."""
        self._floats.place(self._sections)
        return [section for section in self._sections if section.blocks or section.heading or section.number]

    def _read_back(self, back: etree._Element) -> None:
        self._default_heading = ""
        for child in back:
            role = ROLES.get(child.tag)
            if role == FLOAT:
                self._set_apart(child)
            elif role != APART:
                kind = child.get("type")
                if kind == "references" and all(part.tag in (HEAD_TAG, LIST_BIBL) for part in child):
                    continue
                self._section = None
                self._default_heading = _BACK_HEADINGS.get(kind, "")
                self._walk(child, 0, in_part=True)
                self._close_block()

    def _walk(self, element: etree._Element, level: int, *, in_part: bool = False) -> None:
        """Add what stands in an element (not its tail).

        Args:
            element: a part, division, paragraph or inline element.
            level: level of the section around it, 0 outside any.
            in_part: whether ``element`` is a whole part, whose own floats stand away from their place.
        """
        builder, roles = self._builder, ROLES
        add_piece = builder.pieces.append
        text = element.text
        if text:
            add_piece(text)
        outer_level = level
        mark = ""
        for child in children_of(element):
            role = roles.get(child.tag, 0)
            tail = child.tail
            if role == REFERENCE:
                mark = self._add_reference(child, mark)
                if tail:
                    if tail[0].isalnum():
                        builder.add_break_between_words(tail)
                    add_piece(tail)
                    mark = ""
                continue
            mark = ""
            if role == 0:
                self._walk(child, level)
            elif role == APART:
                pass
            elif role == FORMULA:
                self._add_formula(child, tail, roles.get(element.tag) == DIVISION and not self._is_flat)
            elif role == BREAK or self._is_flat:
                add_piece(" ")
                self._walk(child, level)
                add_piece(" ")
            elif role == FLOAT:
                if in_part:
                    self._set_apart(child)
                else:
                    self._following += float_blocks(child, self._flatten)
            elif role == TABLE:
                self._following.append(Block("table", cells=table_cells(child, self._flatten)))
            else:
                self._close_block()
                if role == HEAD:
                    level = self._open_section(child, outer_level)
                elif role == LIST:
                    self._read_list(child, level)
                else:
                    self._walk(child, level)
                    self._close_block()
            if tail:
                add_piece(tail)

    def _add_reference(self, element: etree._Element, mark_before: str) -> str:
        """Add a cross-reference as printed and return its text; ``mark_before`` touches it in the source."""
        text = all_text(element) if len(element) else element.text
        if not text:
            return mark_before
        builder = self._builder
        # GROBID drops the space between two marks: "(Ito, 2024;" + "Diaz, 2025)", but not in "[1]" + "[2]".
        if mark_before and mark_before[-1] in ",;.)" and (text[0].isalnum() or text[0] in "(["):
            builder.add_break()
        if text[0].isalnum():
            builder.add_break_between_words(text)
        kind = _REFERENCE_KINDS.get(element.get("type"), "text")
        target: str | None = None
        address = element.get("target")
        if address and kind != "text":
            known = self._citation_keys if kind == "citation" else self._float_ids
            for part in address.split():
                key = part.lstrip("#")
                if key in known:
                    target = key
                    break
            if target is not None and kind != "citation" and not self._is_flat:
                self._mentions.append(target)
        builder.add(kind, text, target)
        return text

    def _add_formula(self, element: etree._Element, tail: str | None, is_block: bool) -> None:
        """Add a formula: a block of its own between paragraphs, a span within one.

        GROBID cuts a sentence around a displayed formula into two paragraphs; both keep their text.
        """
        parts = [element.text or ""]
        labels: list[str] = []
        for child in element:
            (labels if child.tag == LABEL else parts).append(all_text(child))
            parts.append(child.tail or "")
        text = collapse_space("".join(parts)).strip(" ")
        label = collapse_space(" ".join(labels)).strip(" ")
        if is_block:
            self._close_block()
            blocks = self._current_section().blocks
            if text == ")" and not label and blocks and _ends_inside_number(blocks[-1]):
                blocks[-1].inlines[-1].text = blocks[-1].printed()[:-1].rstrip(" ")
                blocks[-1].label = f"({blocks[-1].label})"
            elif text or label:
                inlines = [Inline("formula", text)] if text else []
                self._append(Block("formula", inlines, label=label or None, ref_id=element.get(XML_ID)))
            return
        self._builder.add_break_between_words(text)
        self._builder.add("formula", text)
        if label:
            self._builder.add_break()
            self._builder.add_text(label)
        if tail:
            self._builder.add_break_between_words(tail)

    def _read_list(self, element: etree._Element, level: int) -> None:
        """Read a list: one block per item, a nested list's items after the text of their own item."""
        outer_kind = self._kind
        self._kind = "list"
        self._builder.add_text(element.text)
        for child in element:
            if child.tag == LABEL:
                self._close_block()
                self._label = element_text(child) or None
            else:
                if not self._builder.is_empty:
                    self._close_block()
                self._kind = "paragraph" if child.tag == HEAD_TAG else "list"
                self._label = self._label or child.get("n")
                self._walk(child, level)
                self._close_block()
                if self._label:
                    self._append(Block("list", label=self._label))
                self._label = None
            self._builder.add_text(child.tail)
        self._close_block()
        self._kind = outer_kind

    # Sections and blocks

    def _open_section(self, head: etree._Element, outer_level: int) -> int:
        """Open the section of a heading and return its level; an empty ``head`` opens none.

        The level is what a dotted number states, else one below the heading around it. Letters under
        roman numbers ("II." then "A.") are second-level headings.
        """
        text = printed(self._flatten(head))
        number: str | None = (head.get("n") or "").strip().rstrip(".) ") or None
        if number is None and _NUMBER_ALONE.fullmatch(text):
            number, heading = text.rstrip(".") or None, ""
        elif number is None:
            number, heading = split_heading(text)
        else:
            repeated, rest = split_heading(text)
            heading = rest if repeated == number else text
        if not number and not heading:
            return outer_level
        level = outer_level + 1
        if number and "." in number:
            level = level_of_number(number)
        elif number and _ROMAN_NUMBER.fullmatch(number):
            self._after_roman_number = True
        elif number and len(number) == 1 and number.isalpha() and self._after_roman_number:
            level = max(level, 2)
        self._section = Section(min(level, _MAX_LEVEL), heading, number)
        self._sections.append(self._section)
        return self._section.level

    def _current_section(self) -> Section:
        if self._section is None:
            self._section = Section(1, self._default_heading)
            self._sections.append(self._section)
        return self._section

    def _append(self, block: Block) -> None:
        (self._section or self._current_section()).blocks.append(block)

    def _close_block(self) -> None:
        """Append the block collected so far, if any, and the floats that stood inside it."""
        builder = self._builder
        inlines = builder.build() if builder.pieces or builder.spans else None
        if inlines:
            block = Block(self._kind, inlines, [], self._label, None)
            self._label = None
            (self._section or self._current_section()).blocks.append(block)
            if self._mentions:
                self._floats.mention(self._mentions, block)
                self._mentions.clear()
        if self._following:
            self._current_section().blocks += self._following
            self._following = []

    def _flatten(self, element: etree._Element) -> list[Inline]:
        """Return all content of an element as one run of spans, its blocks separated by spaces."""
        if not len(element):
            text = collapse_space(element.text or "").strip(" ")
            return [Inline("text", text)] if text else []
        outer = self._builder, self._is_flat
        self._builder, self._is_flat = InlineBuilder(), True
        self._walk(element, 0)
        inlines = self._builder.build()
        self._builder, self._is_flat = outer
        return inlines

    def _set_apart(self, element: etree._Element) -> None:
        blocks = float_blocks(element, self._flatten)
        if blocks:
            self._close_block()
            self._floats.add(element.get(XML_ID), self._current_section(), blocks)


def _ends_inside_number(block: Block) -> bool:
    """Whether a formula ends in ``(`` and its number has no parentheses: GROBID put the ``)`` in the next."""
    label = block.label or ""
    return block.kind == "formula" and block.printed().endswith("(") and label[:1].isalnum()
