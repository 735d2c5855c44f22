"""S2ORC and doc2json JSON, in the three layouts it is published in.

* doc2json: ``{paper_id, title, authors, abstract, pdf_parse | latex_parse: {body_text, …}}``, newer ones
  with ``identifiers: {doi, pubmed_id, pmc_id}`` of the paper itself
* S2ORC 2019: ``{paper_id, metadata, s2_pdf_hash, grobid_parse, latex_parse}``, either parse may be null
* S2ORC 2020/21 and CORD-19: ``abstract``, ``body_text``, ``bib_entries`` … on top, at times no metadata

A paragraph's ``cite_spans``, ``ref_spans`` and ``eq_spans`` are character offsets into its text, so they
are applied to the raw text and nothing is normalised before. A span whose stated text is not what stands
at its offsets is misplaced: the text stays, the link is dropped, and ``extra["misplaced_spans"]`` counts
it. Parses of LaTeX put placeholders (``BIBREF3``, ``FIGREF1``, ``INLINEFORM0``) into the text; they are
printed as what they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from baltoro.papers.fields import (
    doi_of,
    label_key,
    level_of_number,
    people_of,
    split_heading,
    split_label,
    text_of,
    year_of,
)
from baltoro.papers.readers._json import mappings
from baltoro.papers.readers._spans import Span, inlines_from_spans
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

_PLACEHOLDER = re.compile(r"\b(BIBREF|FIGREF|TABREF|EQREF|FOOTREF|SECREFU?|INLINEFORM|DISPLAYFORM)\d+\b")
_FORMULA_PLACEHOLDER = re.compile(r"EQUATION|(?:INLINE|DISPLAY)?FORM(?:ULA)?\d+|EQREF\d*")
_REF_KINDS: dict[str, InlineKind] = {"figure": "figure_ref", "table": "table_ref", "footnote": "note_ref"}
_BLOCK_KINDS: dict[str, BlockKind] = {"figure": "figure", "table": "table", "footnote": "note"}
_LABEL_KINDS: dict[str, InlineKind] = {"fig": "figure_ref", "tab": "table_ref"}
_PREFIX_TYPES = {"FIGREF": "figure", "TABREF": "table", "FOOTREF": "footnote"}
_IDENTIFIERS = ("arxiv_id", "acl_id", "pmc_id", "pubmed_id")


def parse_s2orc(document: Mapping[str, Any]) -> Paper:
    """Return the paper of one S2ORC or doc2json record.

    Of two parses the one with body text is read; if both have it, the LaTeX one (it keeps formulas),
    unless it holds less than half as much text as the other.

    Raises:
        ReadReject: ``no_text`` where neither title, abstract nor body text is there.
    """
    stated = document.get("metadata")
    metadata: Mapping[str, Any] = stated if isinstance(stated, dict) else {}
    named = document.get("identifiers")
    identifiers: Mapping[str, Any] = named if isinstance(named, dict) else {}
    parse = _best_parse(document)
    paper = Paper(
        title=text_of(metadata.get("title")) or text_of(document.get("title")),
        authors=people_of(metadata.get("authors") or document.get("authors")),
        year=year_of(metadata.get("year")) or year_of(document.get("year")),
        venue=text_of(metadata.get("venue"))
        or text_of(metadata.get("journal"))
        or text_of(document.get("venue"))
        or None,
        doi=doi_of(metadata.get("doi"))
        or doi_of(document.get("doi"))
        or doi_of(identifiers.get("doi") or identifiers.get("DOI")),
        license=text_of(metadata.get("license")) or text_of(document.get("license")) or UNKNOWN_LICENSE,
    )
    for name in _IDENTIFIERS:
        if value := text_of(metadata.get(name)) or text_of(identifiers.get(name)):
            paper.extra[name] = value
    reader = _ParseReader(parse)
    paper.references = reader.references
    paper.abstract = _abstract(reader, parse, metadata, document)
    paper.sections = reader.sections(parse)
    counts = {"misplaced_spans": reader.misplaced, "formulas_not_decoded": reader.lost_formulas}
    for name, count in counts.items():
        if count:
            paper.extra[name] = str(count)
    if not (paper.title or paper.abstract or any(section.blocks for section in paper.sections)):
        raise ReadReject("no_text", "neither title, abstract nor body text")
    return paper


def _best_parse(document: Mapping[str, Any]) -> Mapping[str, Any]:
    names = ("latex_parse", "pdf_parse", "grobid_parse")
    parses = {name: parse for name in names if isinstance(parse := document.get(name), dict)}
    if len(parses) < 2:
        return next(iter(parses.values()), document)
    lengths = {
        name: sum(len(text_of(item.get("text"))) for item in mappings(parse.get("body_text")))
        for name, parse in parses.items()
    }
    longest = max(lengths, key=lambda name: lengths[name])
    return parses["latex_parse" if 2 * lengths.get("latex_parse", -1) >= lengths[longest] else longest]


def _abstract(
    reader: _ParseReader, parse: Mapping[str, Any], metadata: Mapping[str, Any], document: Mapping[str, Any]
) -> list[Block]:
    for value in (parse.get("abstract"), metadata.get("abstract"), document.get("abstract")):
        paragraphs = value if isinstance(value, list) else [{"text": value}]
        blocks: list[Block] = []
        for item in paragraphs:
            paragraph = {"text": item} if isinstance(item, str) else item
            block = reader.block(paragraph) if isinstance(paragraph, dict) else None
            if block is None:
                continue
            heading = "".join(part[1] for part in _section_parts(paragraph)[-1:])
            if heading and heading.lower() != "abstract":
                block.label = heading
            blocks.append(block)
        if blocks:
            return blocks
    return []


@dataclass
class _ParseReader:
    """What the paragraphs of one parse refer to, and what is still to be placed."""

    parse: Mapping[str, Any]
    references: list[Reference] = field(default_factory=list)
    misplaced: int = 0
    lost_formulas: int = 0

    def __post_init__(self) -> None:
        self.references = [
            Reference(
                key=key,
                title=text_of(entry.get("title")),
                authors=people_of(entry.get("authors")),
                year=year_of(entry.get("year")),
                doi=_reference_doi(entry),
            )
            for key, entry in _entries(self.parse.get("bib_entries"))
        ]
        self.printed: dict[str, str] = {
            reference.key: f"[{number}]" for number, reference in enumerate(self.references, 1)
        }
        self.floats: dict[str, Block] = {}
        self.float_by_label: dict[tuple[str, str], str] = {}
        floats: list[tuple[str, str, dict[str, Any]]] = []
        counts: dict[str, int] = {}
        for key, entry in _entries(self.parse.get("ref_entries")):
            kind = text_of(entry.get("type")) or text_of(entry.get("type_str")) or _type_of(key)
            number = text_of(entry.get("num")) or text_of(entry.get("fig_num"))
            counts[kind] = counts.get(kind, 0) + 1
            if kind in _REF_KINDS:
                floats.append((key, kind, entry))
                self.printed[key] = number or str(counts[kind])
            else:
                self.printed[key] = f"({number.strip('()')})" if kind == "equation" and number else number
        # Captions may cite, so they are read once everything that can be cited is known.
        for key, kind, entry in floats:
            block = self._float(key, kind, entry)
            if block is not None:
                self.floats[key] = block
                if label := label_key(block.label):
                    self.float_by_label.setdefault(label, key)

    def _float(self, key: str, kind: str, entry: Mapping[str, Any]) -> Block | None:
        caption = text_of(entry.get("text"))
        number = text_of(entry.get("num")) or text_of(entry.get("fig_num"))
        label: str | None
        if kind == "footnote":
            label = number or None
        else:
            label, caption = split_label(caption)
            if label is None and number:
                label = f"{kind.capitalize()} {number}"
        cells = _cells(entry.get("content") or entry.get("html")) if kind == "table" else []
        inlines = inlines_from_spans(
            caption, self._placeholders(caption, []) if _may_hold_placeholders(caption) else []
        )
        if not inlines and not cells:
            return None
        return Block(_BLOCK_KINDS[kind], inlines, cells, label, key)

    def sections(self, parse: Mapping[str, Any]) -> list[Section]:
        """Return body and back matter in reading order, each float once, after its first mention."""
        sections = list(self._paragraphs(parse.get("body_text")))
        back = list(self._paragraphs(parse.get("back_matter")))
        if self.floats:
            if not sections:
                sections.append(Section(1, ""))
            sections[-1].blocks.extend(self.floats.values())
            self.floats = {}
        return sections + back

    def _paragraphs(self, value: Any) -> Iterator[Section]:
        path: list[tuple[str | None, str]] = []
        stated: tuple[Any, Any] | None = None
        section: Section | None = None
        for paragraph in mappings(value):
            block = self.block(paragraph)
            if block is None:
                continue
            parts = path
            if stated != (paragraph.get("section"), paragraph.get("sec_num")):
                stated = (paragraph.get("section"), paragraph.get("sec_num"))
                parts = _section_parts(paragraph)
            if section is None or parts != path:
                if section is not None:
                    yield section
                shared = 0
                while shared < min(len(parts), len(path)) and parts[shared] == path[shared]:
                    shared += 1
                for depth in range(shared, len(parts) - 1):
                    number, heading = parts[depth]
                    yield Section(max(depth + 1, level_of_number(number)), heading, number)
                number, heading = parts[-1] if parts else (None, "")
                section = Section(max(len(parts), level_of_number(number), 1), heading, number)
                path = parts
            section.blocks.append(block)
            for inline in block.inlines:
                if inline.target is not None and inline.target in self.floats:
                    section.blocks.append(self.floats.pop(inline.target))
        if section is not None:
            yield section

    def block(self, paragraph: Mapping[str, Any]) -> Block | None:
        """Return a paragraph, or the displayed formula it consists of; ``None`` if it has no text."""
        text = paragraph.get("text")
        if not isinstance(text, str) or not text.strip():
            return None
        has_placeholders = _may_hold_placeholders(text)
        spans = self._spans(text, paragraph, has_placeholders)
        if has_placeholders:
            spans += self._placeholders(text, spans)
        if not spans:
            return Block("paragraph", [Inline("text", text, None)], [], None, None)
        inlines = inlines_from_spans(text, spans)
        if not (has_placeholders or paragraph.get("eq_spans")):
            return Block("paragraph", inlines, [], None, None)
        content = [inline for inline in inlines if inline.text.strip()]
        if not content:
            return None
        if len(content) == 1 and content[0].kind == "formula":
            return Block("formula", content, label=self._formula_label(paragraph))
        return Block("paragraph", inlines)

    def _spans(self, text: str, paragraph: Mapping[str, Any], has_placeholders: bool) -> list[Span]:
        spans: list[Span] = []
        length = len(text)
        for name in ("cite_spans", "ref_spans", "eq_spans"):
            for item in mappings(paragraph.get(name)):
                get = item.get
                start, end = get("start"), get("end")
                if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length):
                    self.misplaced += 1
                    continue
                there = text[start:end]
                stated = get("text")
                formula = name == "eq_spans"
                placeholder = has_placeholders and (
                    (_FORMULA_PLACEHOLDER if formula else _PLACEHOLDER).fullmatch(there) is not None
                )
                is_misplaced = stated != there and isinstance(stated, str) and stated.strip() != there.strip()
                if is_misplaced and not placeholder:
                    self.misplaced += 1
                    continue
                if formula:
                    spans.append(self._formula(item, there, start, end, placeholder))
                    continue
                stated_id = get("ref_id")
                ref_id = stated_id if isinstance(stated_id, str) else None
                key = ref_id or (there if placeholder else None)
                printed = self.printed.get(key or "", "") if placeholder else None
                if name == "cite_spans":
                    spans.append(Span(start, end, "citation", key, printed))
                else:
                    kind, target = self._float_named(key, there)
                    spans.append(Span(start, end, kind, target, printed))
        return spans

    def _formula(self, item: Mapping[str, Any], there: str, start: int, end: int, placeholder: bool) -> Span:
        latex, glyphs = text_of(item.get("latex")), text_of(item.get("raw_str"))
        if not glyphs and not _FORMULA_PLACEHOLDER.fullmatch(text_of(item.get("text"))):
            glyphs = text_of(item.get("text"))
        if latex:
            return Span(start, end, "formula", "tex", latex)
        if glyphs or not placeholder:
            return Span(start, end, "formula", None, glyphs or there)
        self.lost_formulas += 1
        return Span(start, end, "formula", None, "")

    def _float_named(self, key: str | None, text: str) -> tuple[InlineKind, str | None]:
        """Return kind and target of a mention, by its id or by its wording ("Fig. 3")."""
        label = label_key(text.strip("() "))
        if key is None and label is not None:
            key = self.float_by_label.get(label)
        kind = _REF_KINDS.get(_type_of(key or ""))
        if kind is None and label is not None:
            kind = _LABEL_KINDS.get(label[0])
        return (kind, key) if kind else ("text", None)

    def _placeholders(self, text: str, spans: list[Span]) -> list[Span]:
        found: list[Span] = []
        taken = {(span.start, span.end) for span in spans}
        for match in _PLACEHOLDER.finditer(text):
            if match.span() in taken:
                continue
            key, prefix = match.group(), match.group(1)
            if prefix in ("INLINEFORM", "DISPLAYFORM"):
                self.lost_formulas += 1
            kind: InlineKind = "citation" if prefix == "BIBREF" else _REF_KINDS.get(_type_of(key), "text")
            target = key if kind != "text" else None
            found.append(Span(*match.span(), kind, target, self.printed.get(key, "")))
        return found

    def _formula_label(self, paragraph: Mapping[str, Any]) -> str | None:
        for item in mappings(paragraph.get("eq_spans")):
            number = text_of(item.get("eq_num")) or self.printed.get(text_of(item.get("ref_id")), "")
            if number:
                return f"({number.strip('()')})"
        return None


def _may_hold_placeholders(text: str) -> bool:
    return "REF" in text or "FORM" in text or "EQUATION" in text


def _section_parts(paragraph: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """Return the path of (number, heading) of a paragraph's section, outermost first.

    ``section`` is a string (nested headings joined by ``::``), null, a pair ``[number, heading]``, or a
    list of such pairs; ``sec_num`` is the number of the innermost one.
    """
    value = paragraph.get("section")
    if isinstance(value, list):
        pairs = value if value and all(isinstance(item, list) for item in value) else [value]
        parts = [_pair(pair) for pair in pairs]
    else:
        headings = text_of(value).split("::")
        parts = [split_heading(heading) for heading in headings]
        number = text_of(paragraph.get("sec_num")).rstrip(".")
        if number:
            parts[-1] = (number, " ".join(headings[-1].split()))
    return [part for part in parts if part[0] or part[1]]


def _pair(value: list[Any]) -> tuple[str | None, str]:
    if len(value) == 2:
        return text_of(value[0]).rstrip(".") or None, " ".join(text_of(value[1]).split())
    return split_heading(" ".join(text_of(item) for item in value))


def _type_of(key: str) -> str:
    return next((kind for prefix, kind in _PREFIX_TYPES.items() if key.startswith(prefix)), "")


def _reference_doi(entry: Mapping[str, Any]) -> str | None:
    other = entry.get("other_ids")
    if isinstance(other, dict):
        return doi_of(other.get("doi") or other.get("DOI")) or doi_of(entry.get("doi"))
    return doi_of(entry.get("doi"))


def _cells(content: Any) -> list[list[str]]:
    """Return the rows of a table given as HTML (parses of PDFs) or as rows of cells (of LaTeX)."""
    if isinstance(content, list):
        rows = [
            [text_of(cell.get("text")) for cell in mappings(row.get("cells"))] for row in mappings(content)
        ]
        return [row for row in rows if any(row)]
    if not isinstance(content, str) or "<" not in content:
        return []
    from lxml import etree, html

    try:
        table = html.fragment_fromstring(content, create_parent="div")
    except (etree.ParserError, ValueError):
        return []
    rows = [
        [" ".join(str(cell.text_content()).split()) for cell in row.iterfind("*") if cell.tag in ("td", "th")]
        for row in table.iter("tr")
    ]
    return [row for row in rows if any(row)]


def _entries(value: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict):
        return []
    return [(str(key), entry) for key, entry in value.items() if isinstance(entry, dict)]
