"""GROBID TEI: the XML that GROBID (0.5 and later) makes of a PDF.

GROBID promises well-formed XML, not schema-valid XML, so the tree is read leniently: known elements by
meaning, unknown ones for their text, and every part of the body exactly once. Element paths follow
GROBID's "TEI encoding of results"; what real files do beyond that is noted where it is handled.

Figures, tables and linked footnotes stand at the end of ``<body>``, far from where they are discussed.
Each becomes a block once, after the block that mentions it first, or at the end of the last section of
the part it stands in if nothing mentions it.
"""

from __future__ import annotations

import json
import re
from typing import Final

from lxml import etree

from baltoro.papers.fields import (
    doi_of,
    label_key,
    level_of_number,
    split_heading,
    split_label,
    words_of,
    year_of,
)
from baltoro.papers.readers._xml import (
    InlineBuilder,
    all_text,
    children_of,
    collapse_space,
    element_text,
    parse_xml,
)
from baltoro.papers.schema import (
    UNKNOWN_LICENSE,
    Block,
    BlockKind,
    Inline,
    InlineKind,
    Paper,
    ReadReject,
    Reference,
    Section,
)

TEI_NAMESPACE = "http://www.tei-c.org/ns/1.0"

_NS: Final = "{" + TEI_NAMESPACE + "}"
_XML_ID: Final = "{http://www.w3.org/XML/1998/namespace}id"
_XML_LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"

_HEAD_TAG, _LABEL, _ROW, _CELL, _NOTE, _LIST_BIBL = (
    _NS + name for name in ("head", "label", "row", "cell", "note", "listBibl")
)
_ANALYTIC, _MONOGR, _TITLE, _AUTHOR, _DATE, _IDNO = (
    _NS + name for name in ("analytic", "monogr", "title", "author", "date", "idno")
)
_FORENAME, _SURNAME, _BIBL_STRUCT = (_NS + name for name in ("forename", "surname", "biblStruct"))
_NAME_TAGS: Final = (_FORENAME, _SURNAME, _NS + "genName")
_NAME_PARTS: Final = frozenset(_NAME_TAGS)
# The last two end an author's name: the names inside them are of other people.
_ENTRY_TAGS: Final = (
    *(*_NAME_TAGS, _AUTHOR, _TITLE, _DATE, _IDNO, _BIBL_STRUCT, _ANALYTIC, _MONOGR),
    *(_NS + "editor", _NS + "respStmt"),
)

# What the walk does with an element; one that has no entry is inline markup around text.
_REFERENCE, _FORMULA, _PARAGRAPH, _DIVISION, _HEAD, _FLOAT, _LIST, _TABLE, _BREAK, _APART = range(1, 11)
_ROLES: Final[dict[str, int]] = {
    _NS + name: role
    for role, names in {
        _REFERENCE: ("ref",),
        _FORMULA: ("formula",),
        _PARAGRAPH: ("p", "ab", "quote", "lg", "sp"),
        _DIVISION: ("div", "front", "body", "back", "abstract"),
        _HEAD: ("head",),
        _FLOAT: ("figure", "note"),
        _LIST: ("list",),
        _TABLE: ("table",),
        _BREAK: ("s", "l", "lb", "pb", "cb", "label", "item", "row", "cell", "figDesc"),
        # The reference list, pictures, and funders as data, which repeat what stands in the text.
        _APART: ("listBibl", "listOrg", "graphic"),
    }.items()
    for name in names
}

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

# What a caption begins with if its first letter stands in the head: "Fig. 2 M" and "-waves".
_CONTINUES: Final = frozenset("-.,;:)")
_MAX_LEVEL = 6
_MAX_COLUMNS = 200

_NUMBER_ALONE = re.compile(r"[A-Z]?\d{0,2}(?:\.\d{1,2})*\.?")
_ROMAN_NUMBER = re.compile(r"[IVX]+")
_HYPHENATED = re.compile(r"([^\W\d_]+)- ?([^\W\d_]+)")
_LICENCE_WORDS = re.compile(r"licen[cs]e|creative commons|\bCC[ -](?:BY|0)|public domain", re.IGNORECASE)
_GROBID_STATUS = re.compile(rb"\[[A-Z][A-Z_]+\]")
_ERROR_KEYS: Final = frozenset({"error", "errors", "message", "code", "status", "description", "detail"})
_ERROR_ROOTS: Final = frozenset({"html", "error", "fault"})


def looks_like_tei(root_tag: str) -> bool:
    """Whether a root element (``{namespace}name`` or a bare name) is that of a TEI document."""
    return root_tag in (_NS + "TEI", "TEI")


def service_error(data: bytes) -> str | None:
    """Return the message of an error that the parsing service sent in place of a document, or ``None``.

    Such answers are saved under the name of the paper by batch clients: an HTML page, a JSON object with
    ``message`` or ``error``, an XML ``<Error>``, or GROBID's own line ``[STATUS] explanation``.
    """
    start = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    lowered = start[:64].lower()
    if lowered.startswith((b"<!doctype html", b"<html")):
        title = re.search(rb"<title[^>]*>(.*?)</title>", data[:65536], re.IGNORECASE | re.DOTALL)
        return "an HTML page" + (f" titled {_excerpt(title.group(1))!r}" if title else "")
    if start.startswith(b"{") and len(data) < 65536:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if isinstance(answer, dict) and len(answer) <= 10 and not _ERROR_KEYS.isdisjoint(answer):
            return f"a JSON answer: {_excerpt(data)}"
    if _GROBID_STATUS.match(start):
        return f"a status line: {_excerpt(start)}"
    return None


def parse_tei(data: bytes) -> Paper:
    """Read one GROBID TEI document.

    Identity fields and ``format`` stay empty. ``extra`` gets ``arxiv_id`` (the paper's own identifier) and
    ``parser`` (GROBID and its version) where the header states them. A citation keeps its printed text;
    its target is set when the reference list holds the entry. Lettering of a picture that GROBID put
    before a figure's label is dropped where the description repeats the label; no other text is. Back matter
    without a head gets one from its type ("Acknowledgements", "Appendix").

    Args:
        data: the bytes of one file.

    Raises:
        ReadReject: ``error_page``, ``unknown_format`` (XML with another root), ``no_text``, or any reason of
            :func:`~baltoro.papers.readers._xml.parse_xml`.
    """
    message = service_error(data)
    if message is not None:
        raise ReadReject("error_page", message)
    root = parse_xml(data)
    if not looks_like_tei(root.tag):
        name = etree.QName(root).localname
        if name.lower() in _ERROR_ROOTS:
            raise ReadReject("error_page", f"an XML answer <{name}>: {element_text(root)[:200]}")
        raise ReadReject("unknown_format", f"the root element is <{name}>, not <TEI>")
    if root.tag == "TEI":
        _qualify(root)
    return _read_paper(root)


def _excerpt(data: bytes) -> str:
    return " ".join(data[:400].decode("utf-8", "replace").split())[:200]


def _qualify(root: etree._Element) -> None:
    """Put a document without namespace into TEI's, so that the reader knows one name per element."""
    for element in root.iter():
        if not element.tag.startswith("{"):
            element.tag = _NS + element.tag


def _read_paper(root: etree._Element) -> Paper:
    paper = Paper()
    for bibliography in root.iter(_NS + "listBibl"):
        _read_references(bibliography, paper.references)
    citation_keys = {reference.key for reference in paper.references}
    header: etree._Element | None = None
    texts: list[etree._Element] = []
    for child in root:
        if child.tag == _NS + "teiHeader" and header is None:
            header = child
        elif child.tag == _NS + "text":
            texts.append(child)

    float_ids = {
        identifier
        for text in texts
        for element in text.iter(_NS + "figure", _NS + "note")
        if (identifier := element.get(_XML_ID)) and all_text(element).strip()
    }
    reader = _TextReader(citation_keys, float_ids)
    for text in texts:
        paper.language = paper.language or text.get(_XML_LANG)
        reader.read_text(text)
    paper.sections = reader.finish()
    if header is not None:
        paper.language = paper.language or header.get(_XML_LANG)
        _read_header(header, paper)
        abstract = header.find(f"{_NS}profileDesc/{_NS}abstract")
        if abstract is not None:
            paper.abstract = _read_abstract(abstract, citation_keys)
    if not paper.sections and not paper.abstract and not paper.title:
        raise ReadReject("no_text", "the TEI has neither title, abstract nor body text")
    if "-" in paper.title:
        paper.title = _rejoin_cut_words(paper.title, paper)
    return paper


# Header ---------------------------------------------------------------------------------------------------


def _read_header(header: etree._Element, paper: Paper) -> None:
    """Fill the bibliographic fields; only the header's own ``biblStruct`` is consulted, never a reference."""
    stated_titles: list[etree._Element] = []
    sources: list[etree._Element] = []
    published: list[etree._Element] = []
    for element in header.iter(
        _NS + "titleStmt", _NS + "publicationStmt", _NS + "sourceDesc", _NS + "application", _NS + "keywords"
    ):
        name = element.tag[len(_NS) :]
        if name == "titleStmt":
            stated_titles += element.iterchildren(_NS + "title")
        elif name == "publicationStmt":
            published += element.iterchildren(_NS + "date")
            for availability in element.iterchildren(_NS + "availability"):
                paper.license = _licence(availability)
        elif name == "sourceDesc":
            sources += element.iterchildren(_NS + "biblStruct")
        elif name == "application":
            parser = f"{element.get('ident', 'GROBID')} {element.get('version', '')}".strip()
            paper.extra.setdefault("parser", parser)
        else:
            paper.keywords += _keywords(element)

    monograph_title = ""
    monograph_authors: list[str] = []
    for source in sources:
        for element in source.iter(_NS + "title", _NS + "author", _NS + "idno", _NS + "date"):
            parent = element.getparent()
            in_analytic = parent is not None and parent.tag == _NS + "analytic"
            if element.tag == _NS + "title":
                if in_analytic:
                    stated_titles.append(element)
                elif element.get("level") != "a" and element.get("type") != "abbrev" and not monograph_title:
                    monograph_title = element_text(element)
            elif element.tag == _NS + "author":
                name = _person(element)
                if name:
                    (paper.authors if in_analytic else monograph_authors).append(name)
            elif element.tag == _NS + "idno":
                _read_identifier(element, paper)
            else:
                published.append(element)

    paper.authors = paper.authors or monograph_authors
    stated_titles.sort(key=lambda title: title.get("type") != "main")
    paper.title = next((text for title in stated_titles if (text := element_text(title))), "")
    if paper.title:
        paper.venue = monograph_title if monograph_title != paper.title else None
    else:
        paper.title = monograph_title
    paper.venue = paper.venue or None
    published.sort(key=lambda date: date.get("type") != "published")
    paper.year = next((year for date in published if (year := _year(date)) is not None), None)


def _read_identifier(element: etree._Element, paper: Paper) -> None:
    kind = (element.get("type") or "").lower()
    if kind == "doi" and paper.doi is None:
        paper.doi = doi_of(element_text(element))
    elif kind == "arxiv" and "arxiv_id" not in paper.extra:
        # "arXiv:2602.20117v1[cs.AI]": the category is not part of the identifier.
        identifier = re.sub(r"^arxiv:\s*|\s*\[.*\]$", "", element_text(element), flags=re.IGNORECASE)
        if identifier:
            paper.extra["arxiv_id"] = identifier


def _year(date: etree._Element) -> int | None:
    return year_of(date.get("when")) or year_of(date.text)


def _person(author: etree._Element) -> str:
    """Return ``Given Middle Surname``; an author without a name (a stray affiliation) gives ``""``."""
    names = [text for part in author.iter(*_NAME_TAGS) if (text := element_text(part))]
    if not names:
        for part in author.iterchildren(_NS + "persName", _NS + "name"):
            names.append(element_text(part))
    return " ".join(names) or collapse_space(author.text or "").strip()


def _licence(availability: etree._Element) -> str:
    """Return the licence's address, else its text; a mere copyright notice states no licence."""
    for element in availability.iter(_NS + "licence", _NS + "license"):
        target = element.get("target") or next(
            (link for child in element.iter() if (link := child.get("target"))), None
        )
        text = target or element_text(element)
        if text:
            return text
    text = element_text(availability)
    return text if _LICENCE_WORDS.search(text) else UNKNOWN_LICENSE


def _keywords(keywords: etree._Element) -> list[str]:
    terms = [text for term in keywords.iter(_NS + "term") if (text := element_text(term))]
    if terms:
        return terms
    return words_of(element_text(keywords))


def _rejoin_cut_words(title: str, paper: Paper) -> str:
    """Undo a line-break hyphen in a title ("PROMPT-ING") where the paper itself shows the right form.

    A pair is joined only if the text has the joined word and nowhere the hyphenated one.
    """
    body = ""

    def join(match: re.Match[str]) -> str:
        nonlocal body
        if not body:
            blocks = (*paper.abstract, *paper.blocks())
            # Piece by piece, because ASCII is put into lower case many times faster than other text.
            body = "\n".join([inline.text.lower() for block in blocks for inline in block.inlines])
        joined = (match.group(1) + match.group(2)).lower()
        hyphenated = f"{match.group(1)}-{match.group(2)}".lower()
        if hyphenated in body or joined not in body or not re.search(rf"\b{joined}\b", body):
            return match.group()
        return match.group(1) + match.group(2)

    return _HYPHENATED.sub(join, title)


def _read_abstract(abstract: etree._Element, citation_keys: set[str]) -> list[Block]:
    reader = _TextReader(citation_keys, set())
    reader.read_flow(abstract)
    blocks: list[Block] = []
    for section in reader.finish():
        heading = " ".join(part for part in (section.number, section.heading) if part)
        if heading and heading.lower().strip(" .:") != "abstract":
            if section.blocks and section.blocks[0].label is None:
                section.blocks[0].label = heading
            else:
                blocks.append(Block("paragraph", [Inline("text", heading)]))
        blocks += section.blocks
    return blocks


# References -----------------------------------------------------------------------------------------------


def _read_references(bibliography: etree._Element, references: list[Reference]) -> None:
    """Append the entries of one ``listBibl``; each keeps its place even if GROBID found nothing in it.

    The title is that of the article, else of the book or report (``level="m"``), never of the journal; the
    authors likewise are the article's, else the book's, never the editors. References are half of a TEI
    file's elements, so one pass visits only those that matter.
    """
    taken = {reference.key for reference in references}
    reference = Reference("")
    authors: list[list[str]] = []
    names: list[str] = []
    in_article = False
    for element in bibliography.iter(*_ENTRY_TAGS):
        tag = element.tag
        if tag in _NAME_PARTS:
            text = element.text
            if text:
                names.append(text.strip())
        elif tag == _AUTHOR:
            names = []
            authors.append(names)
        elif tag == _TITLE:
            # The article stands before the book it is in, so the first title found is the entry's.
            if not reference.title and (in_article or element.get("level", "m") == "m"):
                reference.title = element_text(element)
        elif tag == _DATE:
            if reference.year is None:
                reference.year = _year(element)
        elif tag == _IDNO:
            if reference.doi is None and (element.get("type") or "").lower() == "doi":
                reference.doi = doi_of(element.text)
        elif tag == _BIBL_STRUCT:
            reference.authors = reference.authors or _full_names(authors)
            key = element.get(_XML_ID) or f"reference-{len(references) + 1}"
            while key in taken:
                key = f"{key}-{len(references) + 1}"
            taken.add(key)
            reference = Reference(key)
            references.append(reference)
            authors = []
            in_article = False
        elif tag == _ANALYTIC:
            in_article = True
        elif tag == _MONOGR:
            reference.authors = _full_names(authors)
            authors = []
            in_article = False
        else:
            names = []
    reference.authors = reference.authors or _full_names(authors)


def _full_names(authors: list[list[str]]) -> list[str]:
    return [name for names in authors if (name := " ".join(names))]


# Text -----------------------------------------------------------------------------------------------------


class _TextReader:
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
        # Floats at the end of a part, each with the section it falls back to, and who mentions them.
        self._floats: list[tuple[str | None, Section, list[Block]]] = []
        self._mentioned_in: dict[str, Block] = {}

    def read_text(self, text: etree._Element) -> None:
        """Read a ``text`` element: front matter, body, and the typed divisions of the back matter."""
        for part in text:
            if part.tag == _NS + "back":
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
        self._place_floats()
        return [section for section in self._sections if section.blocks or section.heading or section.number]

    def _read_back(self, back: etree._Element) -> None:
        self._default_heading = ""
        for child in back:
            role = _ROLES.get(child.tag)
            if role == _FLOAT:
                self._set_apart(child)
            elif role != _APART:
                kind = child.get("type")
                if kind == "references" and all(part.tag in (_HEAD_TAG, _LIST_BIBL) for part in child):
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
        builder, roles = self._builder, _ROLES
        add_piece = builder.pieces.append
        text = element.text
        if text:
            add_piece(text)
        outer_level = level
        mark = ""
        for child in children_of(element):
            role = roles.get(child.tag, 0)
            tail = child.tail
            if role == _REFERENCE:
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
            elif role == _APART:
                pass
            elif role == _FORMULA:
                self._add_formula(child, tail, roles.get(element.tag) == _DIVISION and not self._is_flat)
            elif role == _BREAK or self._is_flat:
                add_piece(" ")
                self._walk(child, level)
                add_piece(" ")
            elif role == _FLOAT:
                if in_part:
                    self._set_apart(child)
                else:
                    self._following += self._float_blocks(child)
            elif role == _TABLE:
                self._following.append(Block("table", cells=self._cells(child)))
            else:
                self._close_block()
                if role == _HEAD:
                    level = self._open_section(child, outer_level)
                elif role == _LIST:
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
            (labels if child.tag == _LABEL else parts).append(all_text(child))
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
                self._append(Block("formula", inlines, label=label or None, ref_id=element.get(_XML_ID)))
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
            if child.tag == _LABEL:
                self._close_block()
                self._label = element_text(child) or None
            else:
                if not self._builder.is_empty:
                    self._close_block()
                self._kind = "paragraph" if child.tag == _HEAD_TAG else "list"
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
        text = _printed(self._flatten(head))
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
                for target in self._mentions:
                    self._mentioned_in.setdefault(target, block)
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

    # Figures, tables, notes

    def _float_blocks(self, element: etree._Element) -> list[Block]:
        """Return a figure, table or note as blocks: itself, then the notes and figures inside it."""
        if element.tag == _NOTE:
            inlines = self._flatten(element)
            note = Block("note", inlines, label=element.get("n"), ref_id=element.get(_XML_ID))
            return [note] if inlines else []
        head = number = ""
        caption = InlineBuilder()
        caption.add_text(element.text)
        cells: list[list[str]] = []
        inner: list[Block] = []
        for child in children_of(element):
            role = _ROLES.get(child.tag, 0)
            if role == _HEAD:
                head = f"{head} {_printed(self._flatten(child))}".strip()
            elif child.tag == _LABEL:
                number = element_text(child)
            elif role == _TABLE:
                cells += self._cells(child)
            elif role == _FLOAT:
                inner += self._float_blocks(child)
            elif role != _APART:
                for inline in self._flatten(child):
                    caption.add(inline.kind, inline.text, inline.target)
            caption.add_break()
            caption.add_text(child.tail)
        kind: BlockKind = "table" if cells or element.get("type") == "table" else "figure"
        label, inlines = _split_caption(head, number, kind, caption.build())
        block = Block(kind, inlines, cells, label, element.get(_XML_ID))
        return [block, *inner] if inlines or cells or label else inner

    def _cells(self, table: etree._Element) -> list[list[str]]:
        """Return the rows of a table; a cell over several columns is followed by empty ones."""
        rows: list[list[str]] = []
        for row in table.iter(_ROW):
            cells: list[str] = []
            for cell in children_of(row):
                if cell.tag != _CELL:
                    continue
                if len(cell):
                    cells.append(_printed(self._flatten(cell)))
                else:
                    text = cell.text
                    cells.append(collapse_space(text).strip(" ") if text else "")
                columns = cell.get("cols")
                if columns and columns.isdecimal() and len(cells) < _MAX_COLUMNS:
                    cells += [""] * (min(int(columns[:4]), _MAX_COLUMNS) - 1)
            if cells:
                rows.append(cells)
        if not rows:
            text = _printed(self._flatten(table))
            return [[text]] if text else []
        return rows

    def _set_apart(self, element: etree._Element) -> None:
        blocks = self._float_blocks(element)
        if blocks:
            self._close_block()
            self._floats.append((element.get(_XML_ID), self._current_section(), blocks))

    def _place_floats(self) -> None:
        """Put each float after the block that mentions it first, else at the end of its section.

        A sentence that runs on (into a formula, or into a paragraph that begins in lower case) is not
        interrupted: the float follows its last piece.
        """
        waiting: dict[int, list[Block]] = {}
        for ref_id, section, blocks in self._floats:
            anchor = self._mentioned_in.get(ref_id) if ref_id else None
            if anchor is None:
                section.blocks += blocks
            else:
                waiting.setdefault(id(anchor), []).extend(blocks)
        if not waiting:
            return
        for section in self._sections:
            placed: list[Block] = []
            due: list[Block] = []
            for block in section.blocks:
                if due and not (block.kind == "formula" or block.printed()[:1].islower()):
                    placed += due
                    due = []
                placed.append(block)
                due += waiting.get(id(block), ())
            section.blocks = placed + due


def _ends_inside_number(block: Block) -> bool:
    """Whether a formula ends in ``(`` and its number has no parentheses: GROBID put the ``)`` in the next."""
    label = block.label or ""
    return block.kind == "formula" and block.printed().endswith("(") and label[:1].isalnum()


def _printed(inlines: list[Inline]) -> str:
    return "".join(inline.text for inline in inlines)


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
