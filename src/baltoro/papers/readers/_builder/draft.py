"""The paper under construction: its blocks, sections and what is found beside them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from baltoro.papers.readers._builder.entries import Entry
from baltoro.papers.readers._builder.wording import ABSTRACT_LEAD, CAPTION, FOOTNOTE, FOOTNOTE_NOISE
from baltoro.papers.readers._markup.blocks import Dialect, RawBlock
from baltoro.papers.readers._markup.inline import parse_inlines
from baltoro.papers.readers._text import collapse
from baltoro.papers.schema import Block, Inline, Paper, Section


@dataclass(slots=True)
class Source:
    """What a reader hands over: blocks in reading order and what it already knows about the paper."""

    blocks: list[RawBlock]
    dialect: Dialect
    paper: Paper = field(default_factory=Paper)
    link_names: frozenset[str] = frozenset()
    counts: Counter[str] = field(default_factory=Counter)
    loose_lines_are_authors: bool = False
    bare_headings: bool = False


class Draft:
    """What the steps of building read from and add to.

    Attributes:
        blocks: the raw blocks, in reading order.
        paper: the paper, its fields from front matter filled.
        sections: the sections so far, the first one without heading.
        entries: the items of the reference list, also those too broken to be references.
        front_lines: lines of the title page that belong to no field.
        counts: what was removed, by name.
        is_nougat: whether the blocks have the looks that Nougat gives them.
    """

    def __init__(self, source: Source) -> None:
        self.blocks = source.blocks
        self.paper = source.paper
        self.sections: list[Section] = [Section(1, "")]
        self.entries: list[Entry] = []
        self.front_lines: list[str] = []
        self.counts = source.counts
        self.is_nougat = source.dialect == "nougat"
        self.loose_lines_are_authors = source.loose_lines_are_authors
        self._dialect = source.dialect
        self._link_names = source.link_names
        self._labels: Counter[str] = Counter()

    def add(self, block: RawBlock, following: RawBlock | None = None) -> bool:
        """Add a block to the open section; tell whether a table took the following block for its caption."""
        if block.kind == "paragraph" and len(self.sections) == 1 and not self.paper.abstract:
            lead = ABSTRACT_LEAD.match(block.text)
            if lead:
                spans = self.inlines(block.text[lead.end() :])
                self.paper.abstract.append(Block("paragraph", spans))
                return False
        built = self.block(block)
        if built is None:
            return False
        blocks = self.sections[-1].blocks
        is_unnamed_table = built.kind == "table" and not built.label
        if (
            is_unnamed_table
            and not self.is_nougat
            and blocks
            and blocks[-1].kind == "table"
            and blocks[-1].label
            and not blocks[-1].cells
        ):
            blocks[-1].cells = built.cells
            blocks[-1].inlines += built.inlines
            return False
        blocks.append(built)
        if not is_unnamed_table or following is None or following.kind != "paragraph":
            return False
        caption = CAPTION.match(following.text)
        if caption is None or not _is_of_table(caption):
            return False
        beside = built.inlines
        self._caption(built, following, caption)
        if beside:
            built.inlines += [Inline("text", " "), *beside] if built.inlines else beside
        return True

    def block(self, block: RawBlock) -> Block | None:
        """Return a raw block as a block of the paper, ``None`` for one without content."""
        match block.kind:
            case "paragraph":
                return self._paragraph(block)
            case "item":
                spans = self.spans(block)
                return Block("list", spans, label=block.marker) if spans or block.marker else None
            case "formula":
                glyphs = block.inlines
                spans = (
                    glyphs
                    if glyphs is not None
                    else [Inline("formula", block.text, "tex")]
                    if block.text
                    else []
                )
                return Block("formula", spans, label=block.marker) if spans else None
            case "code":
                return Block("code", [Inline("text", block.text)]) if block.text.strip() else None
            case "note":
                mark = block.marker
                return Block("note", self.spans(block), label=mark, ref_id=f"note-{mark}" if mark else None)
            case "table" | "figure":
                built = Block(block.kind, cells=block.cells)
                caption = CAPTION.match(block.text)
                if caption:
                    self._caption(built, block, caption)
                else:
                    built.inlines = self.spans(block)
                if built.cells or built.inlines or built.label:
                    return built
                self.counts["images" if block.kind == "figure" else "empty_tables"] += 1
                return None
            case _:
                return None

    def _paragraph(self, block: RawBlock) -> Block | None:
        caption = CAPTION.match(block.text)
        if caption and _is_caption(block.text, caption):
            built = Block("table" if _is_of_table(caption) else "figure")
            self._caption(built, block, caption)
            return built
        note = FOOTNOTE.match(block.text)
        if note:
            if FOOTNOTE_NOISE.match(block.text, note.end()):
                self.counts["footnote_marks_removed"] += 1
                return None
            mark = note["mark"].strip("\\() ")
            spans = self.inlines(block.text[note.end() :])
            return Block("note", spans, label=mark, ref_id=self._unique(f"note-{mark}")) if spans else None
        spans = self.spans(block)
        return Block("paragraph", spans) if spans else None

    def _caption(self, built: Block, block: RawBlock, caption: re.Match[str]) -> None:
        built.label = collapse(caption["label"].strip("*_ "))
        rest = block.text[caption.end() :]
        # The marks before and after the label belong to it; what they leave open is dropped with it.
        lead = "**" if block.text.lstrip().startswith("**") and "**" not in caption["end"] else ""
        built.inlines = self.inlines(lead + rest)
        kind = "table" if built.kind == "table" else "figure"
        built.ref_id = self._unique(f"{kind}-{caption['number'].lower()}")

    def _unique(self, identifier: str) -> str:
        self._labels[identifier] += 1
        count = self._labels[identifier]
        return identifier if count == 1 else f"{identifier}-again-{count}"

    def spans(self, block: RawBlock) -> list[Inline]:
        """Return the spans of a raw block."""
        return block.inlines if block.inlines is not None else self.inlines(block.text)

    def inlines(self, text: str) -> list[Inline]:
        """Return the spans of a text in the dialect of the source."""
        return parse_inlines(text, self._dialect, self._link_names)

    def printed(self, block: RawBlock) -> str:
        """Return the text of a raw block as printed."""
        return "".join(span.text for span in self.spans(block))


def _is_of_table(caption: re.Match[str]) -> bool:
    return caption["kind"].lower().endswith(("table", "tab", "tab."))


def _is_caption(text: str, caption: re.Match[str]) -> bool:
    """Tell a caption from a sentence that starts with a mention ("Figure 4 shows", "Table 2. Then")."""
    number = caption["number"]
    end = caption["end"].strip("*_ ")
    if end in (":", "|"):
        return True
    if not number[-1].isdigit() and end != ".":
        return False
    following = text[caption.end() : caption.end() + 1]
    return not following or not following.islower()
