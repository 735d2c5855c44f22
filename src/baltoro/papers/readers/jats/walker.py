"""Running text: the one walk that turns a body, section or paragraph into sections, blocks and spans.

Every element is visited once and handled by its name (:mod:`.handlers`); one without a handler is inline
markup, of which the content counts. Where a file is half markup, what is done per element decides the speed
of the reader: children are taken by slicing (one call into libxml2, where an iterator costs one per child),
text goes to the builder as it stands, and whether an element has children is asked before anything else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

from lxml import etree

from baltoro.papers.readers._xml import children_of, collapse_space
from baltoro.papers.readers.jats.elements import child_named
from baltoro.papers.readers.jats.flow import Flow
from baltoro.papers.schema import Block, Section

_SECTION_HEADINGS = {"ack": "Acknowledgments"}
_SECTION_TAGS = {"sec", "app", "ack", "notes", "glossary", "bio", "app-group", "fn-group"}
_SKIPPED_IN_SECTIONS = {"title", "label", "ref-list"}
_SECTION_NUMBER = re.compile(r"(?:\d+|[A-Z]|[IVXLC]+)(?:\.(?:\d+|[A-Za-z]))*\.?")
_NUMBERED_HEADING = re.compile(r"(\d+(?:\.\d+)*)\.\s+(?=\S)")


class Walker:
    """Turns the content of one article or sub-article into sections and blocks, in one pass.

    Args:
        handlers: what each element means, by its tag; one without a handler is inline markup.
        reference_labels: the printed number of each reference, for citations without text of their own.
        marks_italic_quotes: whether paragraphs all in italics are quotes, as in authors' replies; ``None``
            where quotes are not marked at all.

    Attributes:
        sections: what was read, in reading order.
        counts: what was left out, by name.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        reference_labels: Mapping[str, str],
        *,
        marks_italic_quotes: bool | None = None,
    ) -> None:
        self.sections: list[Section] = []
        self.counts: Counter[str] = Counter()
        self.reference_labels = reference_labels
        self.marks_quotes = marks_italic_quotes is not None
        self.marks_italic_quotes = bool(marks_italic_quotes)
        self.quote_depth = 0
        self.handlers = handlers

    # Sections

    def container(self, element: etree._Element, level: int, open_section: Section | None = None) -> None:
        """Read the children of a body, back matter or section.

        Args:
            element: whose children are read.
            level: of the sections found among them.
            open_section: where blocks go until the next section; ``None`` opens one when needed. Blocks
                after a subsection go to a new section without heading, never into the subsection.
        """
        own_level = open_section.level if open_section is not None else level
        flow = Flow(open_section.blocks if open_section is not None else [])
        is_listed = open_section is not None
        flow.add_text(element.text)
        for child in children_of(element):
            tag = child.tag
            if tag in _SKIPPED_IN_SECTIONS:
                pass
            elif tag in _SECTION_TAGS and (tag != "fn-group" or child_named(child, "title") is not None):
                flow.close()
                self.section(child, level)
                flow = Flow([])
                is_listed = False
            else:
                handler = self.handlers.get(tag)
                if handler is not None:
                    handler(self, child, flow)
                else:
                    flow.flush()
                    self.content(child, flow)
                    flow.flush()
            tail = child.tail
            if tail and not tail.isspace():
                flow.add_text(tail)
            if not is_listed and flow.blocks:
                self.sections.append(Section(own_level, "", None, flow.blocks))
                is_listed = True
        flow.close()
        if not is_listed and flow.blocks:
            self.sections.append(Section(own_level, "", None, flow.blocks))

    def section(self, element: etree._Element, level: int) -> None:
        """Read a section-like element with its heading and number and all below it."""
        heading, number = "", None
        notes: list[Block] = []
        title = child_named(element, "title")
        if title is not None:
            heading = self.string(title, notes)
        label = child_named(element, "label")
        if label is not None:
            text = self.string(label)
            if _SECTION_NUMBER.fullmatch(text):
                number = text.rstrip(".")
            else:
                heading = f"{text} {heading}".strip()
        else:
            match = _NUMBERED_HEADING.match(heading)
            if match:
                number, heading = match.group(1), heading[match.end() :]
        heading = heading or _SECTION_HEADINGS.get(element.tag, "")
        if not heading and number is None:
            self.container(element, level)
            return
        section = Section(level, heading, number, notes)
        self.sections.append(section)
        self.container(element, level + 1, section)

    def abstract_blocks(self, element: etree._Element, blocks: list[Block]) -> str:
        """Read an abstract into ``blocks``, titles of its parts as labels; return its own title."""
        title = ""
        flow = Flow(blocks)
        for child in children_of(element):
            if child.tag == "title":
                title = self.string(child)
            elif child.tag == "sec":
                flow.close()
                start = len(blocks)
                part = self.abstract_blocks(child, blocks)
                if (
                    part
                    and start < len(blocks)
                    and blocks[start].kind == "paragraph"
                    and not blocks[start].label
                ):
                    blocks[start].label = part
                elif part:
                    blocks.insert(start, Block("paragraph", label=part))
            else:
                self.block(child, flow)
        flow.close()
        return title

    def block(self, element: etree._Element, flow: Flow) -> None:
        """Read one block-level element; an unknown one is taken for a paragraph."""
        handler = self.handlers.get(element.tag)
        if handler is not None:
            handler(self, element, flow)
        else:
            flow.flush()
            self.content(element, flow)
            flow.flush()

    # Inline content

    def content(self, element: etree._Element, flow: Flow) -> None:
        """Read text and children of an element in order; unknown elements contribute their content."""
        add_piece = flow.pieces.append
        text = element.text
        if text:
            add_piece(text)
        for child in children_of(element):
            handler = self.handlers.get(child.tag)
            if handler is not None:
                handler(self, child, flow)
            elif len(child):
                self.content(child, flow)
            else:
                text = child.text
                if text:
                    add_piece(text)
            tail = child.tail
            if tail:
                add_piece(tail)

    def string(self, element: etree._Element, notes: list[Block] | None = None) -> str:
        """Return an element's text as one line; its footnotes go to ``notes`` or are left out."""
        if not len(element):
            text = element.text
            return collapse_space(text).strip(" ") if text else ""
        flow = Flow([], is_flat=True, is_string=True)
        self.content(element, flow)
        if notes is not None:
            notes.extend(flow.notes)
        return flow.printed()

    def separated(self, element: etree._Element, flow: Flow) -> None:
        """Read content that the layout sets apart from what stands around it."""
        flow.add_break()
        self.content(element, flow)
        flow.add_break()

    def boxed(self, element: etree._Element, flow: Flow) -> None:
        """Read an element whose content stands in the flow around it, set off from it."""
        if flow.is_flat:
            self.separated(element, flow)
            return
        flow.close()
        self.content(element, flow)
        flow.close()


def skip(walker: Walker, element: etree._Element, flow: Flow) -> None:
    """Leave out an element whose words are not part of the text."""


Handler = Callable[[Walker, etree._Element, Flow], None]
"""Adds what an element means to a flow: spans to the block under construction, or blocks."""
