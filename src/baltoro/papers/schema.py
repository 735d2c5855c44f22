"""What a parsed paper is: one record type and one Arrow schema for every input format.

Readers fill a :class:`Paper`; renderers turn it into text; nothing in between keeps character offsets,
so cleaning a span can never break a neighbour's citation. Inline content is a list of typed
:class:`Inline` spans whose ``text`` values, joined with ``""``, give the block as it was printed:
readers keep the spaces between words and spans (or put one where the layout had a break), never
add a space where the source has none, and never glue two words together.

>>> block = Block("paragraph", [Inline("text", "Melt rises "), Inline("citation", "[3]", "b2")])
>>> block.printed()
'Melt rises [3]'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa

InlineKind = Literal["text", "citation", "formula", "figure_ref", "table_ref", "note_ref"]
BlockKind = Literal["paragraph", "formula", "figure", "table", "list", "note", "code"]

INLINE_KINDS: tuple[str, ...] = get_args(InlineKind)
BLOCK_KINDS: tuple[str, ...] = get_args(BlockKind)

UNKNOWN_LICENSE = "unknown"
"""The licence of a paper whose source states none: a value of its own, never an empty string."""


@dataclass(slots=True)
class Inline:
    """A span of text with one meaning.

    ``target`` is the ``Reference.key`` of a citation, or the ``Block.ref_id`` of a figure, table or
    note; ``None`` when the source does not link it. The text of a formula is LaTeX without delimiters
    where the source gives LaTeX or MathML, otherwise the glyphs as parsed; ``target`` is then
    ``"tex"`` for LaTeX and ``None`` for glyphs.
    """

    kind: InlineKind
    text: str
    target: str | None = None


@dataclass(slots=True)
class Block:
    """One paragraph-level element of a paper.

    ``inlines`` holds the text of a paragraph, list item, note or code block, the TeX or glyphs of a
    displayed formula (one ``formula`` span), or the caption of a figure or table (without its label).
    ``label`` is what the source prints as its name: ``"Figure 2"``, ``"Table 1"``, ``"(3)"``, the
    marker of a list item (``"1."``, ``"•"``) or of a note (``"a"``), or the heading of a part of a
    structured abstract (``"Methods"``). ``cells`` are the rows of a table as plain strings, the first
    row being its header. One list item is one block.
    """

    kind: BlockKind
    inlines: list[Inline] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)
    label: str | None = None
    ref_id: str | None = None

    def printed(self) -> str:
        """Return the spans' text joined as printed, without label and cells."""
        return "".join(inline.text for inline in self.inlines)


@dataclass(slots=True)
class Section:
    """A heading with the blocks up to the next heading; ``level`` 1 is a top section.

    Sections stand in reading order; the tree is implied by the levels. ``number`` is the printed number
    (``"2.1"``) without trailing dot, and is not repeated in ``heading``. Text before the first heading is
    a section with an empty heading at level 1.
    """

    level: int
    heading: str
    number: str | None = None
    blocks: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class Reference:
    """An entry of the reference list; ``key`` is what citations target, ``title`` may be empty."""

    key: str
    title: str = ""
    authors: list[str] = field(default_factory=list)
    year: int | None = None
    doi: str | None = None


@dataclass(slots=True)
class Review:
    """A peer review or reply published with a paper (JATS sub-articles); never part of its body.

    ``kind`` is the source's own term (``decision-letter``, ``reviewer-report``, ``editor-report``,
    ``aggregated-review-documents``, ``reply``, ``author-comment``); ``round`` counts from 0.
    """

    kind: str
    text: str
    round: int | None = None
    reviewer: str | None = None
    rating: str | None = None


@dataclass(slots=True)
class Paper:
    """One parsed paper. Readers leave the identity fields (first five) empty; ``papers.read`` fills them.

    ``paper_id`` is ``{source}/{key in source}`` with ``#record`` for a file that holds several; it never
    depends on content. ``authors`` are ``"Given Surname"``. ``article_type`` is the source's own term
    (``research-article``, ``correction``, ``retraction``). ``extra`` holds columns of the source's
    metadata table that have no field here (a forum id), what a reader counts about its input, and
    ``front_matter``: title-page lines that are no names (affiliations, e-mail addresses), never rendered.
    """

    paper_id: str = ""
    source: str = ""
    uri: str = ""
    etag: str = ""
    format: str = ""
    article_type: str | None = None
    title: str = ""
    abstract: list[Block] = field(default_factory=list)
    authors: list[str] = field(default_factory=list)
    year: int | None = None
    venue: str | None = None
    doi: str | None = None
    license: str = UNKNOWN_LICENSE
    language: str | None = None
    keywords: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    reviews: list[Review] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)

    def reference_by_key(self) -> dict[str, Reference]:
        """Return the reference list as a mapping from citation target to entry."""
        return {reference.key: reference for reference in self.references}

    def blocks(self) -> Iterable[Block]:
        """Yield the blocks of all sections in reading order (not the abstract's)."""
        for section in self.sections:
            yield from section.blocks


@dataclass(slots=True)
class Reject:
    """A record that cannot be used, with its reason: it is counted and written down, never dropped.

    ``stage`` names the step that refused it (``read``, ``clean``, ``filter``, ``dedup``), ``reason`` is one
    of a small fixed vocabulary (snake case), ``detail`` says what was found.
    """

    paper_id: str
    uri: str
    stage: str
    reason: str
    detail: str


def count_reasons(records: Iterable[object]) -> Counter[str]:
    """Return how many of some records are rejects, by reason."""
    return Counter(record.reason for record in records if isinstance(record, Reject))


class ReadReject(Exception):  # noqa: N818  (not an error of the run: a verdict on one record)
    """Raised by a reader when one record cannot be read; ``papers.read`` turns it into a :class:`Reject`.

    Args:
        reason: one of :data:`READ_REASONS`.
        detail: what was found, and where if known, in one line.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


READ_REASONS: dict[str, str] = {
    "not_parsed": "a PDF or another source document that no parser has turned into text yet",
    "empty_file": "zero bytes, or only white space",
    "too_large": "more bytes, or more text after decompression, than the reader accepts",
    "binary": "not text: NUL bytes or a binary signature",
    "bad_encoding": "bytes that are neither valid UTF-8 nor the encoding the file declares",
    "malformed_xml": "XML that is not well-formed (often a truncated download)",
    "malformed_json": "JSON that does not parse (often a truncated download)",
    "unsafe_xml": "an entity declaration, or nesting beyond the bound",
    "malformed_archive": "a gz, zst or tar container that cannot be unpacked",
    "malformed_table": "a Parquet or JSONL table that cannot be read, or lacks the named text column",
    "unknown_format": "none of the known formats, by content",
    "error_page": "an error message of the parsing service, saved in place of its result",
    "no_text": "well-formed, but without title, abstract or body text",
    "not_a_paper": "an editorial wrapper without text of its own",
    "duplicate_id": "a second record with the same paper_id",
    "reader_error": "the reader failed in an unforeseen way; please report it with the file",
}
"""Every reason a record can be refused for while reading, with its meaning."""


_INLINE = pa.struct([("kind", pa.string()), ("text", pa.string()), ("target", pa.string())])
_BLOCK = pa.struct(
    [
        ("kind", pa.string()),
        ("inlines", pa.list_(_INLINE)),
        ("cells", pa.list_(pa.list_(pa.string()))),
        ("label", pa.string()),
        ("ref_id", pa.string()),
    ]
)
_SECTION = pa.struct(
    [("level", pa.int8()), ("heading", pa.string()), ("number", pa.string()), ("blocks", pa.list_(_BLOCK))]
)
_REFERENCE = pa.struct(
    [
        ("key", pa.string()),
        ("title", pa.string()),
        ("authors", pa.list_(pa.string())),
        ("year", pa.int32()),
        ("doi", pa.string()),
    ]
)
_REVIEW = pa.struct(
    [
        ("kind", pa.string()),
        ("text", pa.string()),
        ("round", pa.int8()),
        ("reviewer", pa.string()),
        ("rating", pa.string()),
    ]
)

PAPER_SCHEMA = pa.schema(
    [
        ("paper_id", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("format", pa.string()),
        ("article_type", pa.string()),
        ("title", pa.string()),
        ("abstract", pa.list_(_BLOCK)),
        ("authors", pa.list_(pa.string())),
        ("year", pa.int32()),
        ("venue", pa.string()),
        ("doi", pa.string()),
        ("license", pa.string()),
        ("language", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("sections", pa.list_(_SECTION)),
        ("references", pa.list_(_REFERENCE)),
        ("reviews", pa.list_(_REVIEW)),
        ("extra", pa.map_(pa.string(), pa.string())),
    ]
)
"""The one Arrow schema of papers, the same for all formats."""

REJECT_SCHEMA = pa.schema([(name, pa.string()) for name in ("paper_id", "uri", "stage", "reason", "detail")])
"""The schema of every rejects table."""


def rejects_to_table(rejects: Iterable[Reject]) -> pa.Table:
    """Return rejects as an Arrow table in :data:`REJECT_SCHEMA`."""
    rows = [{name: getattr(reject, name) for name in REJECT_SCHEMA.names} for reject in rejects]
    return pa.Table.from_pylist(rows, schema=REJECT_SCHEMA)


def papers_to_table(papers: Iterable[Paper]) -> pa.Table:
    """Return papers as an Arrow table in :data:`PAPER_SCHEMA`."""
    return pa.Table.from_pylist([paper_to_dict(paper) for paper in papers], schema=PAPER_SCHEMA)


def papers_from_table(table: pa.Table) -> list[Paper]:
    """Return the papers of an Arrow table in :data:`PAPER_SCHEMA`, in row order."""
    return [paper_from_dict(row) for row in table.to_pylist(maps_as_pydicts="strict")]


def paper_to_dict(paper: Paper) -> dict[str, Any]:
    """Return a paper as plain dicts and lists (what ``papers show --json`` prints)."""
    record = {name: getattr(paper, name) for name in PAPER_SCHEMA.names}
    record["abstract"] = [_block_to_dict(block) for block in paper.abstract]
    record["sections"] = [
        {
            "level": section.level,
            "heading": section.heading,
            "number": section.number,
            "blocks": [_block_to_dict(block) for block in section.blocks],
        }
        for section in paper.sections
    ]
    record["references"] = [
        {"key": r.key, "title": r.title, "authors": r.authors, "year": r.year, "doi": r.doi}
        for r in paper.references
    ]
    record["reviews"] = [
        {"kind": r.kind, "text": r.text, "round": r.round, "reviewer": r.reviewer, "rating": r.rating}
        for r in paper.reviews
    ]
    return record


def paper_from_dict(record: dict[str, Any]) -> Paper:
    """Return the paper of a record made by :func:`paper_to_dict` or read from Arrow."""
    fields = dict(record)
    fields["abstract"] = [_block_from_dict(block) for block in record["abstract"] or []]
    fields["sections"] = [
        Section(s["level"], s["heading"], s["number"], [_block_from_dict(block) for block in s["blocks"]])
        for s in record["sections"] or []
    ]
    fields["references"] = [Reference(**r) for r in record["references"] or []]
    fields["reviews"] = [Review(**r) for r in record["reviews"] or []]
    fields["extra"] = dict(record["extra"] or {})
    return Paper(**fields)


def _block_to_dict(block: Block) -> dict[str, Any]:
    return {
        "kind": block.kind,
        "inlines": [{"kind": i.kind, "text": i.text, "target": i.target} for i in block.inlines],
        "cells": block.cells,
        "label": block.label,
        "ref_id": block.ref_id,
    }


def _block_from_dict(record: dict[str, Any]) -> Block:
    return Block(
        kind=record["kind"],
        inlines=[Inline(**inline) for inline in record["inlines"]],
        cells=record["cells"],
        label=record["label"],
        ref_id=record["ref_id"],
    )
