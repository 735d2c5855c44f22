"""JATS and NLM article XML (PubMed Central, PLOS, eLife, Cambridge, ScienceBeam) to one :class:`Paper`.

What goes where:

* Text before the first heading, floats and back matter keep their place in reading order: abstracts of
  another kind than the main one (author summary, digest, teaser) as sections before the body, then the
  body, ``floats-group``, back matter, and notes that stand in ``front`` (data availability).
* A figure, table, box or displayed formula stands once, where the source has it; one inside a paragraph
  splits that paragraph. A box keeps its title as a paragraph, because the text after it belongs to the
  section around it.
* A cell that spans rows or columns keeps its text in the first of its places; the others are empty.
* Superscript digits, signs and single letters become Unicode superscripts (``10⁵``, ``word¹²``), as
  printed: joined plainly they would change numbers and glue markers to words.
* Formulas inside plain strings (titles, headings, cells) stand as ``$LaTeX$``.
* Words that only exist for machines are left out: alternative text, object identifiers, copyright lines
  of single figures, author notes, funding tables. ``ack`` without a title gets the heading that journals
  print for it, a further abstract without one the name of its ``abstract-type``.

Element names follow JATS 1.4 (ANSI/NISO Z39.96-2024) and NLM Journal Publishing 2.x and 3.0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import cast

from lxml import etree

from baltoro.papers.readers._xml import InlineBuilder, collapse_space, element_text, parse_xml
from baltoro.papers.readers.mathml import edge_spacing_as_spaces, mathml_to_latex, strip_tex_wrapping
from baltoro.papers.schema import (
    UNKNOWN_LICENSE,
    Block,
    BlockKind,
    Inline,
    InlineKind,
    Paper,
    ReadReject,
    Reference,
    Review,
    Section,
)

_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_MATH = "{http://www.w3.org/1998/Math/MathML}math"
_LICENSE_REF = "{http://www.niso.org/schemas/ali/1.0/}license_ref"
_PLAIN_NAMESPACES = ("jats.nlm.nih.gov", "dtd.nlm.nih.gov", "1999/xhtml", "oasis-exchange")

_MAIN_ABSTRACTS = {None, "", "abstract", "main", "primary", "full", "structured", "section"}
_ABSTRACT_HEADINGS = {
    "summary": "Summary",
    "executive-summary": "Summary",
    "toc": "Summary",
    "teaser": "Summary",
    "web-summary": "Summary",
    "short": "Summary",
    "graphical": "Graphical abstract",
    "editor": "Editor's summary",
    "editor-summary": "Editor's summary",
    "author-highlights": "Highlights",
    "key-points": "Key points",
}
_SECTION_HEADINGS = {"ack": "Acknowledgments"}
# Dates that say when a version was processed, not when the article appeared.
_NOT_PUBLICATION_DATES = {"pmc-release", "nihms-submitted", "update", "corrected", "retracted", "preprint"}
_XREF_KINDS: dict[str, InlineKind] = {
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
_TITLE_MARKERS = {"fn", "author-notes", "corresp", "aff"}
_CITATIONS = {"mixed-citation", "element-citation", "nlm-citation", "citation"}
_TITLE_TAGS = ("article-title", "chapter-title", "part-title", "data-title", "source")
_UNUSED_CITATION_PARTS = {"volume", "issue", "fpage", "lpage", "publisher-name", "publisher-loc", "etal"}
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
_REPLY_KINDS = {"reply", "author-comment", "response", "rebuttal"}
_SKIPPED_IN_SECTIONS = {"title", "label", "ref-list"}

_MAX_TABLE_COLUMNS = 500
_MAX_TABLE_ROWSPAN = 5000

_SUPERSCRIPTS = dict(
    zip(
        map(ord, "0123456789+=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW"),
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ",
        strict=True,
    )
)
_SUBSCRIPTS = dict(zip(map(ord, "0123456789+-−=()"), "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎", strict=True))
_WORD_OF_LETTERS = re.compile(r"[^\W\d_]{2}")
_OUTER_DASH = re.compile(r"^[-−–]|[-−–]$")
_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)(?!\d)")
_DOI = re.compile(r"10\.\d{4,9}/[^\s\"<>]+")
_SECTION_NUMBER = re.compile(r"(?:\d+|[A-Z]|[IVXLC]+)(?:\.(?:\d+|[A-Za-z]))*\.?")
_NUMBERED_HEADING = re.compile(r"(\d+(?:\.\d+)*)\.\s+(?=\S)")
_CITATION_SEPARATOR = re.compile(r"(\s*[,;]\s*)")
_ROUND_IN_TITLE = re.compile(r"\bR(\d+)/PR\d+|\b[Dd]ecision [Ll]etter (\d+)")
_VERSION_IN_TITLE = re.compile(r"\b(?:[Vv]ersion|[Rr]ound) (\d+)\b")
_REVIEWER_IN_TITLE = re.compile(r"\b(?:Reviewer|Referee)\s*#?\s*\d+\b")
_TEX_SYNTAX = re.compile(r"[\\^_{}]")
_CC_MODIFIERS = r"((?:[\s\-–/,]*(?:non-?\s?commercial|no-?\s?deriv\w*|share-?\s?alike|nc|nd|sa)\b)*)"
_CC_LICENSE = re.compile(
    rf"(?:creative\s+commons[\s:]+attribution|\bcc[\s\-]by\b){_CC_MODIFIERS}", re.IGNORECASE
)
_CC_VERSION = re.compile(r"\b([1-4]\.0)\b")
_NONCOMMERCIAL_USE = re.compile(r"non-?\s?commercial", re.IGNORECASE)


def parse_jats(data: bytes) -> Paper:
    """Read one JATS or NLM article; the identity fields are left empty.

    ``year`` is the earliest year among the publication dates (electronic, print, collection), so that a
    paper is dated by its first appearance. ``license`` is the licence address where one is given, else a
    short name recognised in the text (``CC BY 4.0``, ``CC0``), else the text itself. Sub-articles and
    responses become ``reviews``; in authors' replies a quoted paragraph starts with ``"> "``.
    ``extra`` counts what was left out (``formulas_without_text``, ``translations_skipped``) and names
    ``related_articles`` of a correction or retraction.

    Args:
        data: the bytes of one document, uncompressed.

    Raises:
        ReadReject: what :func:`parse_xml` raises; ``unsafe_xml`` when floats nest hundreds of levels deep;
            ``unknown_format`` when there is not exactly one article; ``no_text`` when there is no title, no
            abstract and no body text.
    """
    article = _article_of(parse_xml(data))
    try:
        paper = _ArticleReader(article).read()
    except RecursionError:
        raise ReadReject("unsafe_xml", "blocks nested deeper than any article's") from None
    if not (paper.title or paper.abstract or any(_has_words(section) for section in paper.sections)):
        raise ReadReject("no_text", "a JATS article without title, abstract or body text")
    return paper


def _article_of(root: etree._Element) -> etree._Element:
    """Return the article element, unwrapped from a PMC or OAI envelope and without JATS namespaces."""
    if root.tag.startswith("{"):
        _drop_namespaces(root)
    if root.tag == "article":
        return root
    articles = list(islice(root.iter("article"), 2))
    if len(articles) == 1:
        return articles[0]
    found = "no <article>" if not articles else "several <article> elements, one per file is read"
    raise ReadReject("unknown_format", f"root element <{root.tag}> holds {found}")


def _drop_namespaces(tree: etree._Element) -> None:
    for element in tree.iter():
        namespace, _, name = element.tag.rpartition("}")
        if any(plain in namespace for plain in _PLAIN_NAMESPACES):
            element.tag = name


def _has_words(section: Section) -> bool:
    return any(block.inlines or block.cells or block.label for block in section.blocks)


class _Flow:
    """Text on its way into blocks.

    ``is_flat`` text has no blocks (captions, cells, headings): what would be a block is set off by spaces.
    ``is_joined`` text keeps its paragraphs in one block (list items). ``is_string`` means that span kinds
    are not needed. The label goes to the first block; one that is not printed in the source (the number of
    a list item) is dropped when no text comes.
    """

    __slots__ = (
        *("blocks", "builder", "kind", "label", "notes", "ref_id"),
        *("is_flat", "is_joined", "is_label_printed", "is_string"),
    )

    def __init__(
        self,
        blocks: list[Block],
        kind: BlockKind = "paragraph",
        *,
        label: str | None = None,
        ref_id: str | None = None,
        is_flat: bool = False,
        is_joined: bool = False,
        is_string: bool = False,
        is_label_printed: bool = True,
    ) -> None:
        self.blocks = blocks
        self.builder = InlineBuilder()
        self.kind = kind
        self.label = label
        self.ref_id = ref_id
        self.is_flat = is_flat
        self.is_joined = is_joined
        self.is_string = is_string
        self.is_label_printed = is_label_printed
        self.notes: list[Block] = []

    def flush(self) -> None:
        """End the block under construction, if it has text."""
        if not self.builder.is_empty:
            spans = self.builder.build()
            if spans:
                self.blocks.append(Block(self.kind, spans, [], self.label, self.ref_id))
                self.label = self.ref_id = None

    def close(self) -> None:
        """End the block; a printed label without text and waiting footnotes become blocks of their own."""
        self.flush()
        if self.label is not None and self.is_label_printed:
            self.blocks.append(Block(self.kind, [], [], self.label, self.ref_id))
            self.label = self.ref_id = None
        if self.notes:
            self.blocks.extend(self.notes)
            self.notes = []


class _Walker:
    """Turns the content of one article or sub-article into sections and blocks, in one pass."""

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
        flow = _Flow(open_section.blocks if open_section is not None else [])
        is_listed = open_section is not None
        flow.builder.add_text(element.text)
        for child in element:
            tag = child.tag
            if tag in _SKIPPED_IN_SECTIONS:
                pass
            elif tag in _SECTION_TAGS and (tag != "fn-group" or child.find("title") is not None):
                flow.close()
                self.section(child, level)
                flow = _Flow([])
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
                flow.builder.add_text(tail)
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
        title = element.find("title")
        if title is not None:
            heading = self.string(title, notes)
        label = element.find("label")
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
        flow = _Flow(blocks)
        for child in element:
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

    def block(self, element: etree._Element, flow: _Flow) -> None:
        """Read one block-level element; an unknown one is taken for a paragraph."""
        handler = _HANDLERS.get(element.tag)
        if handler is not None:
            handler(self, element, flow)
        else:
            flow.flush()
            self.content(element, flow)
            flow.flush()

    # Inline content

    def content(self, element: etree._Element, flow: _Flow) -> None:
        """Read text and children of an element in order; unknown elements contribute their content."""
        add_text = flow.builder.add_text
        text = element.text
        if text:
            add_text(text)
        for child in element:
            handler = _HANDLERS.get(child.tag)
            if handler is not None:
                handler(self, child, flow)
            elif len(child):
                self.content(child, flow)
            else:
                add_text(child.text)
            tail = child.tail
            if tail:
                add_text(tail)

    def string(self, element: etree._Element, notes: list[Block] | None = None) -> str:
        """Return an element's text as one line; its footnotes go to ``notes`` or are left out."""
        if not len(element):
            text = element.text
            return collapse_space(text).strip(" ") if text else ""
        flow = _Flow([], is_flat=True, is_string=True)
        self.content(element, flow)
        if notes is not None:
            notes.extend(flow.notes)
        return "".join([inline.text for inline in flow.builder.build()])

    def _separated(self, element: etree._Element, flow: _Flow) -> None:
        flow.builder.add_break()
        self.content(element, flow)
        flow.builder.add_break()

    def _skip(self, element: etree._Element, flow: _Flow) -> None:
        pass

    def _break(self, element: etree._Element, flow: _Flow) -> None:  # noqa: ARG002  (one signature for all)
        flow.builder.add_break()

    def _superscript(self, element: etree._Element, flow: _Flow) -> None:
        add_text = flow.builder.add_text
        if not len(element):
            add_text(_raised(element.text or "", with_dashes=True))
            return
        add_text(_raised(element.text or ""))
        for child in element:
            if child.tag == "xref":
                self._xref(child, flow, is_raised=True)
            elif child.tag in _HANDLERS:
                _HANDLERS[child.tag](self, child, flow)
            else:
                add_text(_raised("".join(_texts(child))))
            add_text(_raised(child.tail or ""))

    def _subscript(self, element: etree._Element, flow: _Flow) -> None:
        # "CO2" is how subscripts are written in plain text, but "log102" is another number.
        if not len(element) and (element.tail or "")[:1].isdigit():
            flow.builder.add_text((element.text or "").translate(_SUBSCRIPTS))
        else:
            self.content(element, flow)

    def _xref(self, element: etree._Element, flow: _Flow, *, is_raised: bool = False) -> None:
        kind = _XREF_KINDS.get(element.get("ref-type") or "", "text")
        target = element.get("rid")
        text = element.text or ""
        if len(element):
            raw = "".join(_texts(element))
            lead, trail = raw[:1].isspace(), raw[-1:].isspace()
            text = f"{' ' if lead else ''}{self.string(element)}{' ' if trail else ''}"
        if flow.is_string or kind == "text":
            flow.builder.add_text(_raised(text) if is_raised else text)
            return
        if kind == "citation" and not text and target and not _is_inside_range(element):
            text = self._reference_labels.get(target, "")
        if is_raised:
            text = _raised(text)
        elif kind in {"citation", "note_ref"} and text[:1].isalnum():
            before, follows_xref = _character_before(element)
            if before.isalnum() and follows_xref:
                flow.builder.add_break()
            elif before.isalnum():
                text = _raised(text)
        if target and " " in target:
            targets = target.split()
            parts = _CITATION_SEPARATOR.split(text) if kind == "citation" else []
            if len(parts) == 2 * len(targets) - 1:
                for position, part in enumerate(parts):
                    if position % 2:
                        flow.builder.add_text(part)
                    else:
                        flow.builder.add(kind, part, targets[position // 2])
                return
            target = targets[0] if targets else None
        flow.builder.add(kind, text, target)

    def _link(self, element: etree._Element, flow: _Flow) -> None:
        if len(element) or (element.text or "").strip():
            self.content(element, flow)
        else:
            flow.builder.add_text(element.get(_XLINK_HREF))

    def _name(self, element: etree._Element, flow: _Flow) -> None:
        for child in element:
            self._separated(child, flow)

    def _citation_part(self, element: etree._Element, flow: _Flow) -> None:
        """Read a part of a bibliographic entry inside text, set apart from a part it would run into."""
        previous = element.getprevious()
        if previous is not None and not previous.tail and previous.tag in _CITATION_PARTS:
            flow.builder.add_break()
        self.content(element, flow)

    def _title(self, element: etree._Element, flow: _Flow) -> None:
        self._separated(element, flow)
        if not (flow.is_flat or flow.is_joined):
            flow.flush()

    def _label(self, element: etree._Element, flow: _Flow) -> None:
        if not (flow.is_flat or flow.is_joined):
            flow.flush()
        self._separated(element, flow)

    def _paragraph(self, element: etree._Element, flow: _Flow) -> None:
        if flow.is_flat or flow.is_joined:
            self._separated(element, flow)
            return
        flow.flush()
        if self._marks_quotes and (
            self._quote_depth or (self._marks_italic_quotes and _is_in_italics(element))
        ):
            flow.builder.add_text("> ")
        self.content(element, flow)
        flow.flush()
        if flow.notes:
            flow.close()

    def _quote(self, element: etree._Element, flow: _Flow) -> None:
        self._quote_depth += 1
        self._boxed(element, flow)
        self._quote_depth -= 1

    def _boxed(self, element: etree._Element, flow: _Flow) -> None:
        """Read an element whose content stands in the flow around it, set off from it."""
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        self.content(element, flow)
        flow.close()

    # Formulas

    def _add_formula(self, flow: _Flow, text: str, target: str | None) -> None:
        if not flow.is_string:
            flow.builder.add("formula", text, target)
        elif target == "tex" and _TEX_SYNTAX.search(text):
            core = text.strip(" ")
            flow.builder.add_text(text.replace(core, f"${core}$", 1))
        else:
            flow.builder.add_text(text)

    def _tex(self, element: etree._Element, flow: _Flow) -> None:
        tex = strip_tex_wrapping("".join(_texts(element)))
        self._add_formula(flow, edge_spacing_as_spaces(tex), "tex")

    def _math(self, element: etree._Element, flow: _Flow) -> None:
        latex = mathml_to_latex(element)
        if latex.strip(" "):
            self._add_formula(flow, latex, "tex")
        else:
            self._add_formula(flow, element.get("alttext") or "", None)

    def _alternatives(self, element: etree._Element, flow: _Flow) -> None:
        """Read one of the representations of the same thing: TeX, MathML, a table, then text."""
        chosen = _chosen_alternative(element)
        if chosen is not None:
            self.block(chosen, flow)

    def _formula_content(self, element: etree._Element, flow: _Flow) -> None:
        """Read a formula element: its TeX or MathML with the words around it, or its glyphs."""
        formulas = list(element.iter("tex-math", _MATH))
        if not formulas:
            glyphs = self._glyphs(element)
            if glyphs:
                self._add_formula(flow, glyphs, None)
            else:
                self.counts["formulas_without_text"] += 1
            return
        flow.builder.add_text(element.text)
        siblings = [child for child in element if child.tag == "tex-math"]
        for child in element:
            # TeX beside MathML without <alternatives> around them is the same formula twice.
            is_twin = bool(siblings) and child.tag == _MATH
            if child.tag != "label" and not is_twin:
                handler = _HANDLERS.get(child.tag)
                if handler is not None:
                    handler(self, child, flow)
                else:
                    self.content(child, flow)
            flow.builder.add_text(child.tail)

    def _glyphs(self, element: etree._Element) -> str:
        flow = _Flow([], is_flat=True, is_string=True)
        flow.builder.add_text(element.text)
        for child in element:
            if child.tag == "textual-form" or child.tag not in _HANDLERS:
                self.content(child, flow)
            elif child.tag != "label":
                _HANDLERS[child.tag](self, child, flow)
            flow.builder.add_text(child.tail)
        return "".join([inline.text for inline in flow.builder.build()])

    def _inline_formula(self, element: etree._Element, flow: _Flow) -> None:
        self._formula_content(element, flow)

    def _display_formula(self, element: etree._Element, flow: _Flow) -> None:
        label = element.find("label")
        number = self.string(label) if label is not None else None
        if flow.is_flat:
            flow.builder.add_break()
            self._formula_content(element, flow)
            if number:
                flow.builder.add_break()
                flow.builder.add_text(number)
            flow.builder.add_break()
            return
        flow.close()
        inner = _Flow([], is_flat=True)
        self._formula_content(element, inner)
        spans = inner.builder.build()
        if spans or number:
            flow.blocks.append(Block("formula", _one_formula(spans), [], number, element.get("id")))

    # Floats

    def _caption(self, element: etree._Element, flow: _Flow, kind: BlockKind) -> list[etree._Element]:
        """Add a float's block (label and caption); return the children that stand below it."""
        caption = _Flow([], is_flat=True)
        label = None
        below: list[etree._Element] = []
        for child in element:
            tag = child.tag
            if tag == "label":
                label = _without_colon(self.string(child))
            elif tag in {"caption", "attrib"} or (tag == "p" and kind == "figure"):
                self._separated(child, caption)
            elif tag not in _SKIPPED_IN_FLOATS:
                below.append(child)
        spans = caption.builder.build()
        cells: list[list[str]] = []
        if kind == "table":
            # Only the first table belongs to the caption; more of them follow as blocks of their own.
            for position, child in enumerate(below):
                table = _table_of(child)
                if table is not None:
                    cells = self._cells(table, caption.notes)
                    del below[position]
                    break
        if spans or label or cells:
            flow.blocks.append(Block(kind, spans, cells, label, element.get("id")))
        flow.blocks.extend(caption.notes)
        return below

    def _float(self, element: etree._Element, flow: _Flow, kind: BlockKind) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        for child in self._caption(element, flow, kind):
            self.block(child, flow)
        flow.close()

    def _figure(self, element: etree._Element, flow: _Flow) -> None:
        self._float(element, flow, "figure")

    def _table_wrap(self, element: etree._Element, flow: _Flow) -> None:
        self._float(element, flow, "table")

    def _media(self, element: etree._Element, flow: _Flow) -> None:
        if len(element):
            self._float(element, flow, "figure")

    def _supplement(self, element: etree._Element, flow: _Flow) -> None:
        """Read the label and caption of supporting information as a paragraph with a label."""
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        label = element.find("label")
        text = _without_colon(self.string(label)) if label is not None else None
        inner = _Flow(flow.blocks, label=text or None, ref_id=element.get("id"), is_joined=True)
        for child in element:
            if child.tag == "media":
                self._separated(child, inner)
            elif child.tag != "label":
                self.block(child, inner)
            inner.builder.add_text(child.tail)
        inner.close()

    def _table_foot(self, element: etree._Element, flow: _Flow) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        notes = _Flow(flow.blocks, "note")
        for child in element:
            self.block(child, notes)
        notes.close()

    def _bare_table(self, element: etree._Element, flow: _Flow) -> None:
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
        """Return the rows of an XHTML or OASIS table on a grid of equal width."""
        columns = {
            name: position
            for position, name in enumerate(spec.get("colname") for spec in table.iter("colspec"))
        }
        rows: list[list[str]] = []
        occupied: dict[int, int] = {}
        group: etree._Element | None = None
        for row in table.iter("tr", "row"):
            parent = row.getparent()
            if parent is not group:
                if parent is None or not _is_part_of(parent, table):
                    continue
                # A cell cannot reach into the next group of rows, whatever its rowspan says.
                group, occupied = parent, {}
            texts: list[str] = []
            blocked, occupied = occupied, {}
            for column, rows_left in blocked.items():
                if rows_left > 1:
                    occupied[column] = rows_left - 1
            for cell in row:
                if cell.tag not in _CELL_TAGS:
                    continue
                while len(texts) in blocked:
                    texts.append("")
                texts.append(self.string(cell, notes))
                if not columns and cell.get("colspan", "1") == "1" and cell.get("rowspan", "1") == "1":
                    continue
                column_count, row_count = _spans(cell, columns)
                start = len(texts) - 1
                texts.extend([""] * (column_count - 1))
                if row_count > 1:
                    for column in range(start, start + column_count):
                        occupied[column] = row_count - 1
            if any(texts):
                rows.append(texts)
        width = max(map(len, rows), default=0)
        for texts in rows:
            texts.extend([""] * (width - len(texts)))
        return rows

    # Lists, notes, code

    def _list(self, element: etree._Element, flow: _Flow) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        list_type = element.get("list-type") or ""
        position = 0
        for child in element:
            if child.tag != "list-item":
                outer = _Flow(flow.blocks)
                self.block(child, outer)
                outer.close()
                continue
            position += 1
            label = child.find("label")
            marker = self.string(label) if label is not None else _marker(list_type, position)
            item = _Flow(
                flow.blocks,
                "list",
                label=marker or None,
                ref_id=child.get("id"),
                is_joined=True,
                is_label_printed=label is not None,
            )
            for part in child:
                if part.tag != "label":
                    self.block(part, item)
                item.builder.add_text(part.tail)
            item.close()

    def _definition_list(self, element: etree._Element, flow: _Flow) -> None:
        if flow.is_flat:
            self._separated(element, flow)
            return
        flow.close()
        for child in element:
            if child.tag != "def-item":
                outer = _Flow(flow.blocks)
                self.block(child, outer)
                outer.close()
                continue
            term = " ".join(filter(None, (self.string(part) for part in child if part.tag == "term")))
            item = _Flow(flow.blocks, "list", label=term or None, is_joined=True)
            for part in child:
                if part.tag not in {"term", "label"}:
                    self._separated(part, item)
            item.close()

    def _footnote(self, element: etree._Element, flow: _Flow) -> None:
        """Read a footnote: in running text its marker stays and the note follows the paragraph."""
        label_element = element.find("label")
        label = self.string(label_element) if label_element is not None else None
        blocks: list[Block] = []
        note = _Flow(blocks, "note", label=label or None, ref_id=element.get("id"))
        for child in element:
            if child.tag != "label":
                self.block(child, note)
            note.builder.add_text(child.tail)
        note.close()
        if flow.is_flat or not flow.builder.is_empty:
            if label and not flow.is_string:
                flow.builder.add("note_ref", _raised(label), element.get("id"))
            flow.notes.extend(blocks)
        else:
            flow.close()
            flow.blocks.extend(blocks)

    def _code(self, element: etree._Element, flow: _Flow) -> None:
        text = "".join(_texts(element))
        if flow.is_flat or (element.tag == "code" and "\n" not in text and not flow.builder.is_empty):
            flow.builder.add_text(text)
            return
        flow.close()
        text = text.strip("\r\n")
        if text.strip():
            flow.blocks.append(Block("code", [Inline("text", text)], [], None, element.get("id")))


_Handler = Callable[[_Walker, etree._Element, _Flow], None]
_HANDLERS: dict[str, _Handler] = {
    "p": _Walker._paragraph,
    "xref": _Walker._xref,
    "sup": _Walker._superscript,
    "sub": _Walker._subscript,
    "ext-link": _Walker._link,
    "uri": _Walker._link,
    "name": _Walker._name,
    **dict.fromkeys(_CITATION_PARTS, _Walker._citation_part),
    "title": _Walker._title,
    "label": _Walker._label,
    "inline-formula": _Walker._inline_formula,
    "chem-formula": _Walker._inline_formula,
    "disp-formula": _Walker._display_formula,
    "disp-formula-group": _Walker._boxed,
    "alternatives": _Walker._alternatives,
    "tex-math": _Walker._tex,
    _MATH: _Walker._math,
    "fig": _Walker._figure,
    "fig-group": _Walker._figure,
    "table-wrap": _Walker._table_wrap,
    "table-wrap-group": _Walker._table_wrap,
    "table-wrap-foot": _Walker._table_foot,
    "table": _Walker._bare_table,
    "array": _Walker._bare_table,
    "media": _Walker._media,
    "supplementary-material": _Walker._supplement,
    "list": _Walker._list,
    "def-list": _Walker._definition_list,
    "fn": _Walker._footnote,
    "fn-group": _Walker._boxed,
    "boxed-text": _Walker._boxed,
    "statement": _Walker._boxed,
    "disp-quote": _Walker._quote,
    "verse-group": _Walker._boxed,
    "speech": _Walker._boxed,
    "sec": _Walker._boxed,
    "preformat": _Walker._code,
    "code": _Walker._code,
    **dict.fromkeys(("break", "hr"), _Walker._break),
    **dict.fromkeys(
        ("td", "th", "tr", "entry", "row", "list-item", "def-item", "term", "def", "caption", "attrib"),
        _Walker._separated,
    ),
    **dict.fromkeys(("verse-line", "speaker", "subtitle", "sig", "address", "addr-line"), _Walker._separated),
    **dict.fromkeys(
        ("graphic", "inline-graphic", "inline-media", "object-id", "alt-text", "long-desc", "permissions"),
        _Walker._skip,
    ),
    **dict.fromkeys(("sec-meta", "ref-list", "kwd-group", "processing-meta", "colgroup"), _Walker._skip),
}
_SKIPPED_IN_FLOATS = {
    *("graphic", "inline-graphic", "object-id", "alt-text", "long-desc", "permissions", "kwd-group"),
    *("email", "ext-link", "uri", "subj-group", "fn-meta"),
}
_CELL_TAGS = {"td", "th", "entry"}
_ROW_GROUPS = {"thead", "tbody", "tfoot", "tgroup"}


def _texts(element: etree._Element) -> list[str]:
    return cast("list[str]", list(element.itertext()))


def _raised(text: str, *, with_dashes: bool = False) -> str:
    """Return a superscript as Unicode superscripts, or as it is when it holds words.

    A dash is a minus sign at either end of a whole superscript; between numbers it is a range.
    """
    if not text or _WORD_OF_LETTERS.search(text):
        return text
    if with_dashes:
        text = _OUTER_DASH.sub("⁻", text.strip()) if text.strip() != "–" else text
    return text.translate(_SUPERSCRIPTS)


def _character_before(element: etree._Element) -> tuple[str, bool]:
    """Return the character printed before an element, and whether another cross-reference ends there."""
    previous = element.getprevious()
    if previous is None:
        parent = element.getparent()
        return ((parent.text or "") if parent is not None else "")[-1:], False
    if previous.tail:
        return previous.tail[-1:], False
    return "".join(_texts(previous))[-1:], previous.tag == "xref"


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
        if inner.tag != "italic" and any(map(str.isalnum, "".join(_texts(child)))):
            return False
        if any(map(str.isalnum, child.tail or "")):
            return False
    return any(map(str.isalnum, "".join(_texts(paragraph))))


def _chosen_alternative(element: etree._Element) -> etree._Element | None:
    children = list(element)
    for tag in ("tex-math", _MATH, "table", "textual-form"):
        for child in children:
            if child.tag == tag and (tag != "tex-math" or strip_tex_wrapping("".join(_texts(child)))):
                return child
    return next((child for child in children if _HANDLERS.get(child.tag) is not _Walker._skip), None)


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


def _table_of(element: etree._Element) -> etree._Element | None:
    """Return the table that an element is or, as one of several representations, holds.

    XHTML and OASIS tables may come with a namespace of their own.
    """
    if element.tag in {"table", "array"}:
        return element
    if element.tag == "alternatives" or element.tag.startswith("{"):
        for table in element.iter("{*}table"):
            if table.tag.startswith("{"):
                _drop_namespaces(table)
            return table
    return None


def _is_part_of(row_group: etree._Element, table: etree._Element) -> bool:
    """Whether rows belong to this table and not to one inside a cell."""
    ancestor: etree._Element | None = row_group
    while ancestor is not None and ancestor.tag in _ROW_GROUPS:
        ancestor = ancestor.getparent()
    return ancestor is table


def _spans(cell: etree._Element, columns: dict[str | None, int]) -> tuple[int, int]:
    """Return how many columns and rows a cell covers, by XHTML or OASIS attributes."""
    first, last = columns.get(cell.get("namest")), columns.get(cell.get("nameend"))
    if first is not None and last is not None and columns:
        column_count = last - first + 1
    else:
        column_count = _whole_number(cell.get("colspan"), 1)
    row_count = _whole_number(cell.get("rowspan"), _whole_number(cell.get("morerows"), 0) + 1)
    return min(max(column_count, 1), _MAX_TABLE_COLUMNS), min(max(row_count, 1), _MAX_TABLE_ROWSPAN)


def _whole_number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else default


def _marker(list_type: str, position: int) -> str:
    match list_type:
        case "order":
            return f"{position}."
        case "bullet":
            return "•"
        case "alpha-lower" | "alpha-upper":
            letters = ""
            while position:
                position, remainder = divmod(position - 1, 26)
                letters = chr(ord("a") + remainder) + letters
            return f"{letters if list_type == 'alpha-lower' else letters.upper()}."
        case "roman-lower" | "roman-upper":
            numeral = _roman(position)
            return f"{numeral if list_type == 'roman-lower' else numeral.upper()}."
        case _:
            return ""


def _roman(number: int) -> str:
    values = (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl")
    numeral = ""
    for value, letters in (*values, (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")):
        count, number = divmod(number, value)
        numeral += letters * count
    return numeral


class _ArticleReader:
    """Fills one :class:`Paper` from one ``article`` element."""

    def __init__(self, article: etree._Element) -> None:
        self._article = article
        front = article.find("front")
        self._front = front if front is not None else article
        self._meta = self._front.find("article-meta")

    def read(self) -> Paper:
        article = self._article
        paper = Paper(article_type=article.get("article-type"))
        language = article.get(_XML_LANG)
        paper.language = language.strip().lower() or None if language else None
        areas = [area for name in ("body", "floats-group", "back") for area in article.findall(name)]
        labels: dict[str, str] = {}
        for area in areas:
            for ref in area.iter("ref"):
                _read_reference(ref, paper.references, labels)
        walker = _Walker(labels)
        if self._meta is not None:
            self._read_meta(self._meta, paper, walker)
        for area in areas:
            walker.container(area, 1)
        for note in self._front.findall("notes"):
            walker.section(note, 1)
        paper.sections = walker.sections
        self._read_reviews(article, paper, walker.counts)
        paper.extra.update({name: str(count) for name, count in sorted(walker.counts.items())})
        return paper

    def _read_meta(self, meta: etree._Element, paper: Paper, walker: _Walker) -> None:
        paper.title = _title(meta, walker)
        paper.authors = _authors(meta)
        paper.year = _publication_year(meta)
        paper.venue = self._venue()
        for identifier in meta.iterfind("article-id"):
            if identifier.get("pub-id-type") == "doi":
                paper.doi = _clean_doi(element_text(identifier))
                break
        paper.license = _license(meta)
        keywords = (
            walker.string(keyword) for group in meta.iterfind("kwd-group") for keyword in _keywords(group)
        )
        paper.keywords = list(dict.fromkeys(filter(None, keywords)))
        for abstract in meta.iterfind("abstract"):
            blocks: list[Block] = []
            title = walker.abstract_blocks(abstract, blocks)
            abstract_type = abstract.get("abstract-type")
            if not blocks:
                continue
            if abstract_type in _MAIN_ABSTRACTS and not paper.abstract:
                paper.abstract = blocks
            else:
                heading = title or _ABSTRACT_HEADINGS.get(abstract_type or "", "")
                heading = heading or (abstract_type or "").replace("-", " ").capitalize() or "Abstract"
                walker.sections.append(Section(1, heading, None, blocks))
        translated = len(meta.findall("trans-abstract"))
        if translated:
            walker.counts["translations_skipped"] += translated
        related = [
            f"{link.get('related-article-type')} {_clean_doi(link.get(_XLINK_HREF) or '')}"
            for link in meta.iterfind("related-article")
            if link.get("related-article-type") in {"retracted-article", "corrected-article"}
        ]
        if related:
            paper.extra["related_articles"] = "; ".join(related)

    def _venue(self) -> str | None:
        for path in (
            "journal-meta/journal-title-group/journal-title",
            "journal-meta/journal-title",
            "journal-meta/journal-title-group/abbrev-journal-title",
            "journal-meta/abbrev-journal-title",
            "journal-meta/publisher/publisher-name",
        ):
            element = self._front.find(path)
            if element is not None and element_text(element):
                return element_text(element)
        return None

    def _read_reviews(self, parent: etree._Element, paper: Paper, counts: Counter[str]) -> None:
        for sub_article in parent.iterchildren("sub-article", "response"):
            kind = sub_article.get("article-type") or sub_article.get("response-type") or sub_article.tag
            if kind == "translation":
                counts["translations_skipped"] += 1
                continue
            review = _read_review(sub_article, kind)
            if review.text:
                paper.reviews.append(review)
            else:
                counts["reviews_without_text"] += 1
            self._read_reviews(sub_article, paper, counts)


def _title(meta: etree._Element, walker: _Walker) -> str:
    group = meta.find("title-group")
    if group is None:
        return ""
    title = ""
    for child in group:
        if child.tag in {"article-title", "subtitle"}:
            for marker in list(child.iter("xref", "fn")):
                if marker.tag == "fn" or marker.get("ref-type") in _TITLE_MARKERS:
                    _remove_keeping_tail(marker)
            text = walker.string(child)
            separator = " " if not title or not text or title[-1] in ":?!.–—-" else ": "
            title = f"{title}{separator}{text}".strip()
    return title


def _remove_keeping_tail(element: etree._Element) -> None:
    tail = element.tail
    element.clear()
    element.tail = tail


def _authors(meta: etree._Element) -> list[str]:
    authors: list[str] = []
    for group in meta.iterfind("contrib-group"):
        for contrib in group.iterfind("contrib"):
            if (contrib.get("contrib-type") or "author").lower() == "author":
                name = _contributor(contrib)
                if name:
                    authors.append(name)
    return authors


def _contributor(contrib: etree._Element) -> str:
    for child in contrib:
        if child.tag == "name-alternatives" and len(child):
            child = child[0]  # noqa: PLW2901  (the first of several spellings of one name)
        if child.tag in {"name", "string-name"}:
            return _person(child)
        if child.tag == "collab":
            # A group may list its members inside its own name.
            members = [part for part in child if part.tag == "contrib-group"]
            text = "".join(_texts(child))
            for member in members:
                text = text.replace("".join(_texts(member)), " ")
            return collapse_space(text).strip(" ,;")
        if child.tag == "anonymous":
            return "anonymous"
    return ""


def _person(name: etree._Element) -> str:
    """Return ``"Given Surname Suffix"``; a name without these parts as printed."""
    surname = given = suffix = ""
    for part in name:
        tag = part.tag
        if tag == "surname":
            surname = part.text or "" if not len(part) else "".join(_texts(part))
        elif tag == "given-names":
            given = part.text or "" if not len(part) else "".join(_texts(part))
        elif tag == "suffix":
            suffix = "".join(_texts(part))
    if not surname and not given:
        return element_text(name)
    full = f"{given} {surname} {suffix}" if suffix else f"{given} {surname}"
    return collapse_space(full).strip(" ")


def _publication_year(meta: etree._Element) -> int | None:
    years = []
    for date in meta.iterfind("pub-date"):
        if (date.get("pub-type") or date.get("date-type") or "") in _NOT_PUBLICATION_DATES:
            continue
        match = _YEAR.search(date.findtext("year") or date.findtext("string-date") or "")
        if match:
            years.append(int(match.group()))
    return min(years, default=None)


def _keywords(group: etree._Element) -> Iterator[etree._Element]:
    for child in group:
        if child.tag in {"kwd", "compound-kwd"}:
            yield child
        elif child.tag == "nested-kwd":
            yield from _keywords(child)


def _clean_doi(text: str) -> str | None:
    match = _DOI.search(text)
    return match.group().rstrip(".,;)") if match else text.strip() or None


def _license(meta: etree._Element) -> str:
    addresses: list[str] = []
    texts: list[str] = []
    for permissions in meta.iterfind("permissions"):
        for element in permissions.iter("license", _LICENSE_REF):
            if element.tag == _LICENSE_REF:
                addresses.append(element_text(element))
            else:
                addresses.append((element.get(_XLINK_HREF) or "").strip())
                texts.append(_license_text(element))
                links = (link.get(_XLINK_HREF) or "" for link in element.iter("ext-link", "uri"))
                addresses.extend(link for link in links if "creativecommons.org/" in link)
        # NLM 2 articles state it in the copyright line; a plain copyright line is not a licence.
        statement = permissions.find("copyright-statement")
        if statement is not None and not texts:
            texts.append(_known_license(element_text(statement)) or "")
    addresses = [address for address in addresses if address]
    for address in addresses:
        if "creativecommons.org/" in address:
            return address
    if addresses:
        return addresses[0]
    for text in filter(None, texts):
        return _known_license(text) or text
    return UNKNOWN_LICENSE


def _license_text(license_element: etree._Element) -> str:
    paragraphs = [child for child in license_element if child.tag != _LICENSE_REF]
    return " ".join(filter(None, map(element_text, paragraphs))) or element_text(license_element)


def _known_license(text: str) -> str | None:
    """Return the short name of a licence described in words, or ``None`` when in doubt."""
    match = _CC_LICENSE.search(text)
    if match:
        modifiers = match.group(1).lower()
        short = "CC BY"
        for pattern, name in ((r"non|\bnc", "-NC"), (r"deriv|\bnd", "-ND"), (r"share|\bsa", "-SA")):
            if re.search(pattern, modifiers):
                short += name
        if "-NC" not in short and _NONCOMMERCIAL_USE.search(text):
            return None
        version = _CC_VERSION.search(text, match.end(), match.end() + 80)
        return f"{short} {version.group(1)}" if version else short
    if re.search(r"\bCC0\b|public[\s-]domain", text, re.IGNORECASE):
        return "CC0"
    return None


def _read_reference(ref: etree._Element, references: list[Reference], labels: dict[str, str]) -> None:
    """Append the entry of a ``ref``; each of several works under one number is an entry of its own."""
    key = ref.get("id") or ""
    citations: list[etree._Element] = []
    for child in ref:
        tag = child.tag
        if tag in _CITATIONS:
            citations.append(child)
        elif tag == "citation-alternatives":
            # The element form has its parts tagged most completely.
            parts = sorted((part for part in child if part.tag in _CITATIONS), key=lambda part: part.tag)
            citations.extend(parts[:1])
        elif tag == "label":
            labels[key] = element_text(child)
    if not citations:
        note = " ".join(filter(None, (element_text(child) for child in ref if child.tag != "label")))
        if key or note:
            references.append(Reference(key, note))
        return
    for position, citation in enumerate(citations):
        own_key = key if position == 0 else citation.get("id") or ""
        if position and not own_key:
            continue
        references.append(_reference(citation, own_key))


def _reference(citation: etree._Element, key: str) -> Reference:
    authors: list[str] = []
    titles: dict[str, str] = {}
    year: int | None = None
    doi: str | None = None
    weak_doi: str | None = None
    for child in citation:
        tag = child.tag
        if tag in _UNUSED_CITATION_PARTS:
            continue
        if tag in {"name", "string-name"}:
            authors.append(_person(child))
        elif tag == "person-group":
            if child.get("person-group-type") in {None, "author"}:
                for member in child:
                    if member.tag in {"name", "string-name"}:
                        authors.append(_person(member))
                    elif member.tag == "collab":
                        authors.append(element_text(member))
        elif tag == "collab":
            authors.append(element_text(child))
        elif tag in _TITLE_TAGS:
            if tag not in titles:
                titles[tag] = _plain_title(child)
        elif tag == "year":
            match = _YEAR.search(child.text or "")
            if match and year is None:
                year = int(match.group())
        elif tag in {"pub-id", "object-id"}:
            if child.get("pub-id-type") == "doi" and doi is None:
                doi = _clean_doi(element_text(child))
        elif tag in {"ext-link", "uri", "comment"} and weak_doi is None:
            match = _DOI.search(child.get(_XLINK_HREF) or "") or _DOI.search("".join(_texts(child)))
            weak_doi = match.group().rstrip(".,;)") if match else None
    title = next((titles[tag] for tag in _TITLE_TAGS if titles.get(tag)), "")
    return Reference(key, title or _citation_text(citation), authors, year, doi or weak_doi)


_PLAIN_WALKER = _Walker({})


def _plain_title(element: etree._Element) -> str:
    return _PLAIN_WALKER.string(element)


def _citation_text(citation: etree._Element) -> str:
    """Return a citation's words as printed; the parts of an element citation are set apart."""
    if citation.tag in {"mixed-citation", "citation"}:
        return element_text(citation)
    return collapse_space(" ".join(_texts(citation))).strip(" ")


def _read_review(sub_article: etree._Element, kind: str) -> Review:
    stub = sub_article.find("front-stub")
    if stub is None:
        stub = sub_article.find("front/article-meta")
    walker = _Walker({}, marks_italic_quotes=kind in _REPLY_KINDS)
    title = reviewer = rating = None
    round_number = None
    if stub is not None:
        title = _title(stub, walker)
        names = [
            name for group in stub.iterfind("contrib-group") for name in map(_contributor, group) if name
        ]
        reviewer = ", ".join(names) or None
        for meta in stub.iter("custom-meta"):
            name = (meta.findtext("meta-name") or "").strip().lower()
            value = (meta.findtext("meta-value") or "").strip()
            if name == "recommendation":
                rating = value or None
            elif name == "revision-round" and value.isdigit():
                round_number = int(value)
    if title:
        printed = _ROUND_IN_TITLE.search(title)
        counted_from_one = _VERSION_IN_TITLE.search(title)
        if printed:
            round_number = int(printed.group(1) or printed.group(2))
        elif counted_from_one and round_number is None:
            round_number = max(int(counted_from_one.group(1)) - 1, 0)
        in_title = _REVIEWER_IN_TITLE.search(title)
        if reviewer is None and in_title:
            reviewer = in_title.group()
    for name in ("body", "floats-group", "back"):
        for area in sub_article.findall(name):
            walker.container(area, 1)
    round_number = round_number if round_number is not None and round_number < 128 else None
    return Review(kind, _letter(walker.sections), round_number, reviewer, rating)


def _letter(sections: list[Section]) -> str:
    """Return sections as plain text with a blank line between paragraphs."""
    paragraphs: list[str] = []
    for section in sections:
        paragraphs.append(f"{section.number or ''} {section.heading}".strip())
        for block in section.blocks:
            paragraphs.append(f"{block.label or ''} {block.printed()}".strip())
            paragraphs.append("\n".join(" | ".join(row) for row in block.cells))
    return "\n\n".join(filter(None, paragraphs))
