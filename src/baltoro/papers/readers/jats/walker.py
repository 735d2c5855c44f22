"""Running text: the one walk that turns a body, section or paragraph into sections, blocks and spans.

Every element is visited once and handled by its name (``_HANDLERS``); one without a handler is inline
markup, of which the content counts. Where a file is half markup, what is done per element decides the speed
of the reader: children are taken by slicing (one call into libxml2, where an iterator costs one per child),
text goes to the builder as it stands, and whether an element has children is asked before anything else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from lxml import etree

from baltoro.papers.readers._xml import all_text, children_of, collapse_space
from baltoro.papers.readers.jats.elements import MATH, XLINK_HREF, child_named
from baltoro.papers.readers.jats.flow import Flow
from baltoro.papers.readers.jats.marks import lowered, marker, raised
from baltoro.papers.readers.jats.tables import table_cells, table_of
from baltoro.papers.readers.mathml import edge_spacing_as_spaces, mathml_to_latex, strip_tex_wrapping
from baltoro.papers.schema import Block, BlockKind, Inline, InlineKind, Section

_SECTION_HEADINGS = {"ack": "Acknowledgments"}
_XREF_KINDS: dict[str | None, InlineKind] = {
    "bibr": "citation",
    "fig": "figure_ref",
    "plate": "figure_ref",
    "scheme": "figure_ref",
    "chart": "figure_ref",
    "video": "figure_ref",
    "table": "table_ref",
    "fn": "note_ref",
    "table-fn": "note_ref",
}
_CITATION_PARTS = {
    "collab",
    "source",
    "year",
    "article-title",
    "data-title",
    "volume",
    "fpage",
    "publisher-name",
}
_SECTION_TAGS = {"sec", "app", "ack", "notes", "glossary", "bio", "app-group", "fn-group"}
_SKIPPED_IN_SECTIONS = {"title", "label", "ref-list"}
_SKIPPED_IN_FLOATS = {
    *("graphic", "inline-graphic", "object-id", "alt-text", "long-desc", "permissions", "kwd-group"),
    *("email", "ext-link", "uri", "subj-group", "fn-meta"),
}

_SECTION_NUMBER = re.compile(r"(?:\d+|[A-Z]|[IVXLC]+)(?:\.(?:\d+|[A-Za-z]))*\.?")
_NUMBERED_HEADING = re.compile(r"(\d+(?:\.\d+)*)\.\s+(?=\S)")
_CITATION_SEPARATOR = re.compile(r"(\s*[,;]\s*)")
_TEX_SYNTAX = re.compile(r"[\\^_{}]")


class Walker:
    """Turns the content of one article or sub-article into sections and blocks, in one pass.

    Args:
        reference_labels: the printed number of each reference, for citations without text of their own.
        marks_italic_quotes: whether paragraphs all in italics are quotes, as in authors' replies; ``None``
            where quotes are not marked at all.

    Attributes:
        sections: what was read, in reading order.
        counts: what was left out, by name.
    """

    def __init__(self, reference_labels: dict[str, str], *, marks_italic_quotes: bool | None = None) -> None:
        self.sections: list[Section] = []
        self.counts: Counter[str] = Counter()
        self._reference_labels = reference_labels
        self._marks_quotes = marks_italic_quotes is not None
        self._marks_italic_quotes = bool(marks_italic_quotes)
        self._quote_depth = 0

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
                handler = _HANDLERS.get(tag)
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
        handler = _HANDLERS.get(element.tag)
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
            handler = _HANDLERS.get(child.tag)
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

    def _separated(self, element: etree._Element, flow: Flow) -> None:
        flow.add_break()
        self.content(element, flow)
        flow.add_break()

    def _skip(self, element: etree._Element, flow: Flow) -> None:
        pass

    def _break(self, element: etree._Element, flow: Flow) -> None:  # noqa: ARG002  (one signature for all)
        flow.add_break()

    def _superscript(self, element: etree._Element, flow: Flow) -> None:
        add_text = flow.add_text
        if not len(element):
            add_text(raised(element.text or "", with_dashes=True))
            return
        add_text(raised(element.text or ""))
        for child in children_of(element):
            tag = child.tag
            if tag == "xref":
                self._xref(child, flow, is_raised=True)
            elif tag in _HANDLERS:
                _HANDLERS[tag](self, child, flow)
            else:
                add_text(raised(all_text(child)))
            add_text(raised(child.tail or ""))

    def _subscript(self, element: etree._Element, flow: Flow) -> None:
        # "CO2" is how subscripts are written in plain text, but "log102" is another number.
        if not len(element) and (element.tail or "")[:1].isdigit():
            flow.add_text(lowered(element.text or ""))
        else:
            self.content(element, flow)

    def _xref(self, element: etree._Element, flow: Flow, *, is_raised: bool = False) -> None:
        kind = _XREF_KINDS.get(element.get("ref-type"), "text")
        target = element.get("rid")
        text = element.text or ""
        if len(element):
            raw = all_text(element)
            lead, trail = raw[:1].isspace(), raw[-1:].isspace()
            text = f"{' ' if lead else ''}{self.string(element)}{' ' if trail else ''}"
        if flow.is_string or kind == "text":
            flow.add_text(raised(text) if is_raised else text)
            return
        if kind == "citation" and not text and target and not _is_inside_range(element):
            text = self._reference_labels.get(target, "")
        if is_raised:
            text = raised(text)
        elif kind in {"citation", "note_ref"} and text[:1].isalnum():
            before, follows_xref = _character_before(element)
            if before.isalnum() and follows_xref:
                flow.add_break()
            elif before.isalnum():
                text = raised(text)
        if target and " " in target:
            targets = target.split()
            parts = _CITATION_SEPARATOR.split(text) if kind == "citation" else []
            if len(parts) == 2 * len(targets) - 1:
                for position, part in enumerate(parts):
                    if position % 2:
                        flow.add_text(part)
                    else:
                        flow.add(kind, part, targets[position // 2])
                return
            target = targets[0] if targets else None
        flow.add(kind, text, target)

    def _link(self, element: etree._Element, flow: Flow) -> None:
        if len(element) or (element.text or "").strip():
            self.content(element, flow)
        else:
            flow.add_text(element.get(XLINK_HREF))

    def _name(self, element: etree._Element, flow: Flow) -> None:
        for child in children_of(element):
            self._separated(child, flow)

    def _citation_part(self, element: etree._Element, flow: Flow) -> None:
        """Read a part of a bibliographic entry inside text, set apart from a part it would run into."""
        previous = element.getprevious()
        if previous is not None and not previous.tail and previous.tag in _CITATION_PARTS:
            flow.add_break()
        self.content(element, flow)

    def _title(self, element: etree._Element, flow: Flow) -> None:
        self._separated(element, flow)
        if not (flow.is_flat or flow.is_joined):
            flow.flush()

    def _label(self, element: etree._Element, flow: Flow) -> None:
        if not (flow.is_flat or flow.is_joined):
            flow.flush()
        self._separated(element, flow)

    def _paragraph(self, element: etree._Element, flow: Flow) -> None:
        if flow.is_flat or flow.is_joined:
            self._separated(element, flow)
            return
        flow.flush()
        if self._marks_quotes and (
            self._quote_depth or (self._marks_italic_quotes and _is_in_italics(element))
        ):
            flow.add_text("> ")
        self.content(element, flow)
        flow.flush()
        if flow.notes:
            flow.close()

    def _quote(self, element: etree._Element, flow: Flow) -> None:
        self._quote_depth += 1
        self._boxed(element, flow)
        self._quote_depth -= 1

    def _boxed(self, element: etree._Element, flow: Flow) -> None:
        """Read an element whose content stands in the flow around it, set off from it."""
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        self.content(element, flow)
        flow.close()

    # Formulas

    def _add_formula(self, flow: Flow, text: str, target: str | None) -> None:
        if not flow.is_string:
            flow.add("formula", text, target)
        elif target == "tex" and _TEX_SYNTAX.search(text):
            core = text.strip(" ")
            flow.add_text(text.replace(core, f"${core}$", 1))
        else:
            flow.add_text(text)

    def _tex(self, element: etree._Element, flow: Flow) -> None:
        tex = strip_tex_wrapping(all_text(element))
        self._add_formula(flow, edge_spacing_as_spaces(tex), "tex")

    def _math(self, element: etree._Element, flow: Flow) -> None:
        latex = mathml_to_latex(element)
        if latex.strip(" "):
            self._add_formula(flow, latex, "tex")
        else:
            self._add_formula(flow, element.get("alttext") or "", None)

    def _alternatives(self, element: etree._Element, flow: Flow) -> None:
        """Read one of the representations of the same thing: TeX, MathML, a table, then text."""
        chosen = _chosen_alternative(element)
        if chosen is not None:
            self.block(chosen, flow)

    def _formula_content(self, element: etree._Element, flow: Flow) -> None:
        """Read a formula element: its TeX or MathML with the words around it, or its glyphs."""
        formulas = list(element.iter("tex-math", MATH))
        if not formulas:
            glyphs = self._glyphs(element)
            if glyphs:
                self._add_formula(flow, glyphs, None)
            else:
                self.counts["formulas_without_text"] += 1
            return
        flow.add_text(element.text)
        siblings = [child for child in element if child.tag == "tex-math"]
        for child in children_of(element):
            # TeX beside MathML without <alternatives> around them is the same formula twice.
            is_twin = bool(siblings) and child.tag == MATH
            if child.tag != "label" and not is_twin:
                handler = _HANDLERS.get(child.tag)
                if handler is not None:
                    handler(self, child, flow)
                else:
                    self.content(child, flow)
            flow.add_text(child.tail)

    def _glyphs(self, element: etree._Element) -> str:
        flow = Flow([], is_flat=True, is_string=True)
        flow.add_text(element.text)
        for child in children_of(element):
            if child.tag == "textual-form" or child.tag not in _HANDLERS:
                self.content(child, flow)
            elif child.tag != "label":
                _HANDLERS[child.tag](self, child, flow)
            flow.add_text(child.tail)
        return flow.printed()

    def _inline_formula(self, element: etree._Element, flow: Flow) -> None:
        self._formula_content(element, flow)

    def _display_formula(self, element: etree._Element, flow: Flow) -> None:
        label = child_named(element, "label")
        number = self.string(label) if label is not None else None
        if flow.is_flat:
            flow.add_break()
            self._formula_content(element, flow)
            if number:
                flow.add_break()
                flow.add_text(number)
            flow.add_break()
            return
        flow.close()
        inner = Flow([], is_flat=True)
        self._formula_content(element, inner)
        spans = inner.build()
        if spans or number:
            flow.blocks.append(Block("formula", _one_formula(spans), [], number, element.get("id")))

    # Floats

    def _caption(self, element: etree._Element, flow: Flow, kind: BlockKind) -> list[etree._Element]:
        """Add a float's block (label and caption); return the children that stand below it."""
        caption = Flow([], is_flat=True)
        label = None
        below: list[etree._Element] = []
        for child in children_of(element):
            tag = child.tag
            if tag == "label":
                label = _without_colon(self.string(child))
            elif tag in {"caption", "attrib"} or (tag == "p" and kind == "figure"):
                self._separated(child, caption)
            elif tag not in _SKIPPED_IN_FLOATS:
                below.append(child)
        spans = caption.build()
        cells: list[list[str]] = []
        if kind == "table":
            # Only the first table belongs to the caption; more of them follow as blocks of their own.
            for position, child in enumerate(below):
                table = table_of(child)
                if table is not None:
                    cells = self._cells(table, caption.notes)
                    del below[position]
                    break
        if spans or label or cells:
            flow.blocks.append(Block(kind, spans, cells, label, element.get("id")))
        flow.blocks.extend(caption.notes)
        return below

    def _float(self, element: etree._Element, flow: Flow, kind: BlockKind) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        for child in self._caption(element, flow, kind):
            self.block(child, flow)
        flow.close()

    def _figure(self, element: etree._Element, flow: Flow) -> None:
        self._float(element, flow, "figure")

    def _table_wrap(self, element: etree._Element, flow: Flow) -> None:
        self._float(element, flow, "table")

    def _media(self, element: etree._Element, flow: Flow) -> None:
        if len(element):
            self._float(element, flow, "figure")

    def _supplement(self, element: etree._Element, flow: Flow) -> None:
        """Read the label and caption of supporting information as a paragraph with a label."""
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        label = child_named(element, "label")
        text = _without_colon(self.string(label)) if label is not None else None
        inner = Flow(flow.blocks, label=text or None, ref_id=element.get("id"), is_joined=True)
        for child in children_of(element):
            if child.tag == "media":
                self._separated(child, inner)
            elif child.tag != "label":
                self.block(child, inner)
            inner.add_text(child.tail)
        inner.close()

    def _table_foot(self, element: etree._Element, flow: Flow) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        notes = Flow(flow.blocks, "note")
        for child in children_of(element):
            self.block(child, notes)
        notes.close()

    def _bare_table(self, element: etree._Element, flow: Flow) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        notes: list[Block] = []
        cells = self._cells(element, notes)
        if cells:
            flow.blocks.append(Block("table", [], cells, None, element.get("id")))
        flow.blocks.extend(notes)

    def _cells(self, table: etree._Element, notes: list[Block]) -> list[list[str]]:
        return table_cells(table, lambda cell: self.string(cell, notes))

    # Lists, notes, code

    def _list(self, element: etree._Element, flow: Flow) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        list_type = element.get("list-type") or ""
        position = 0
        for child in children_of(element):
            if child.tag != "list-item":
                outer = Flow(flow.blocks)
                self.block(child, outer)
                outer.close()
                continue
            position += 1
            label = child_named(child, "label")
            printed = self.string(label) if label is not None else marker(list_type, position)
            item = Flow(
                flow.blocks,
                "list",
                label=printed or None,
                ref_id=child.get("id"),
                is_joined=True,
                is_label_printed=label is not None,
            )
            for part in children_of(child):
                if part.tag != "label":
                    self.block(part, item)
                item.add_text(part.tail)
            item.close()

    def _definition_list(self, element: etree._Element, flow: Flow) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        for child in children_of(element):
            if child.tag != "def-item":
                outer = Flow(flow.blocks)
                self.block(child, outer)
                outer.close()
                continue
            term = " ".join(filter(None, (self.string(part) for part in child if part.tag == "term")))
            item = Flow(flow.blocks, "list", label=term or None, is_joined=True)
            for part in children_of(child):
                if part.tag not in {"term", "label"}:
                    self._separated(part, item)
            item.close()

    def _footnote(self, element: etree._Element, flow: Flow) -> None:
        """Read a footnote: in running text its marker stays and the note follows the paragraph."""
        label_element = child_named(element, "label")
        label = self.string(label_element) if label_element is not None else None
        blocks: list[Block] = []
        note = Flow(blocks, "note", label=label or None, ref_id=element.get("id"))
        for child in children_of(element):
            if child.tag != "label":
                self.block(child, note)
            note.add_text(child.tail)
        note.close()
        if flow.is_flat or not flow.is_empty:
            if label and not flow.is_string:
                flow.add("note_ref", raised(label), element.get("id"))
            flow.notes.extend(blocks)
        else:
            flow.close()
            flow.blocks.extend(blocks)

    def _code(self, element: etree._Element, flow: Flow) -> None:
        text = all_text(element)
        if flow.is_flat or (element.tag == "code" and "\n" not in text and not flow.is_empty):
            flow.add_text(text)
            return
        flow.close()
        text = text.strip("\r\n")
        if text.strip():
            flow.blocks.append(Block("code", [Inline("text", text)], [], None, element.get("id")))


_Handler = Callable[[Walker, etree._Element, Flow], None]
_HANDLERS: dict[str, _Handler] = {
    "p": Walker._paragraph,
    "xref": Walker._xref,
    "sup": Walker._superscript,
    "sub": Walker._subscript,
    "ext-link": Walker._link,
    "uri": Walker._link,
    "name": Walker._name,
    **dict.fromkeys(_CITATION_PARTS, Walker._citation_part),
    "title": Walker._title,
    "label": Walker._label,
    "inline-formula": Walker._inline_formula,
    "chem-formula": Walker._inline_formula,
    "disp-formula": Walker._display_formula,
    "disp-formula-group": Walker._boxed,
    "alternatives": Walker._alternatives,
    "tex-math": Walker._tex,
    MATH: Walker._math,
    "fig": Walker._figure,
    "fig-group": Walker._figure,
    "table-wrap": Walker._table_wrap,
    "table-wrap-group": Walker._table_wrap,
    "table-wrap-foot": Walker._table_foot,
    "table": Walker._bare_table,
    "array": Walker._bare_table,
    "media": Walker._media,
    "supplementary-material": Walker._supplement,
    "list": Walker._list,
    "def-list": Walker._definition_list,
    "fn": Walker._footnote,
    "fn-group": Walker._boxed,
    "boxed-text": Walker._boxed,
    "statement": Walker._boxed,
    "disp-quote": Walker._quote,
    "verse-group": Walker._boxed,
    "speech": Walker._boxed,
    "sec": Walker._boxed,
    "preformat": Walker._code,
    "code": Walker._code,
    **dict.fromkeys(("break", "hr"), Walker._break),
    **dict.fromkeys(
        ("td", "th", "tr", "entry", "row", "list-item", "def-item", "term", "def", "caption", "attrib"),
        Walker._separated,
    ),
    **dict.fromkeys(("verse-line", "speaker", "subtitle", "sig", "address", "addr-line"), Walker._separated),
    **dict.fromkeys(
        ("graphic", "inline-graphic", "inline-media", "object-id", "alt-text", "long-desc", "permissions"),
        Walker._skip,
    ),
    **dict.fromkeys(("sec-meta", "ref-list", "kwd-group", "processing-meta", "colgroup"), Walker._skip),
}


def _character_before(element: etree._Element) -> tuple[str, bool]:
    """Return the character printed before an element, and whether another cross-reference ends there."""
    previous = element.getprevious()
    if previous is None:
        parent = element.getparent()
        return ((parent.text or "") if parent is not None else "")[-1:], False
    if previous.tail:
        return previous.tail[-1:], False
    return all_text(previous)[-1:], previous.tag == "xref"


def _is_inside_range(empty: etree._Element) -> bool:
    """Whether an empty cross-reference is a member of a printed range (``3–5``), without print of its own."""
    before, after = empty.getprevious(), empty.getnext()
    follows = before is not None and before.tag == "xref" and not (before.tail or "").strip("-–— ")
    precedes = after is not None and after.tag == "xref" and not (empty.tail or "").strip("-–— ")
    return follows or precedes


def _is_in_italics(paragraph: etree._Element) -> bool:
    """Whether every word of a paragraph is in italics, as authors mark what they quote in a reply."""
    if any(map(str.isalnum, paragraph.text or "")) or not len(paragraph):
        return False
    for child in paragraph:
        inner = child
        while inner.tag == "xref" and len(inner) == 1 and not inner.text:
            inner = inner[0]
        if inner.tag != "italic" and any(map(str.isalnum, all_text(child))):
            return False
        if any(map(str.isalnum, child.tail or "")):
            return False
    return any(map(str.isalnum, all_text(paragraph)))


def _chosen_alternative(element: etree._Element) -> etree._Element | None:
    children = list(element)
    for tag in ("tex-math", MATH, "table", "textual-form"):
        for child in children:
            if child.tag == tag and (tag != "tex-math" or strip_tex_wrapping(all_text(child))):
                return child
    return next((child for child in children if _HANDLERS.get(child.tag) is not Walker._skip), None)


def _one_formula(spans: list[Inline]) -> list[Inline]:
    r"""Join the spans of a displayed formula into one; words beside LaTeX become ``\text{…}``."""
    if len(spans) <= 1 and all(span.kind == "formula" for span in spans):
        return spans
    if not any(span.target == "tex" for span in spans):
        return [Inline("formula", "".join(span.text for span in spans))]
    parts = [
        span.text if span.target == "tex" or not span.text.strip() else f"\\text{{{span.text}}}"
        for span in spans
    ]
    return [Inline("formula", "".join(parts).strip(), "tex")]


def _without_colon(label: str) -> str:
    return label.rstrip(".: ")
