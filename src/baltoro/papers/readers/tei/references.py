"""The reference list: one entry per ``biblStruct``."""

from __future__ import annotations

from typing import Final

from lxml import etree

from baltoro.papers.fields import doi_of
from baltoro.papers.readers._xml import element_text
from baltoro.papers.readers.tei.elements import (
    NAME_TAGS,
    NS,
    XML_ID,
    year_in,
)
from baltoro.papers.schema import Reference

_ANALYTIC, _MONOGR, _TITLE, _AUTHOR, _DATE, _IDNO, _BIBL_STRUCT = (
    NS + name for name in ("analytic", "monogr", "title", "author", "date", "idno", "biblStruct")
)
_NAME_PARTS: Final = frozenset(NAME_TAGS)
# The last two end an author's name: the names inside them are of other people.
_ENTRY_TAGS: Final = (
    *(*NAME_TAGS, _AUTHOR, _TITLE, _DATE, _IDNO, _BIBL_STRUCT, _ANALYTIC, _MONOGR),
    *(NS + "editor", NS + "respStmt"),
)


def read_references(bibliography: etree._Element, references: list[Reference]) -> None:
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
                reference.year = year_in(element)
        elif tag == _IDNO:
            if reference.doi is None and (element.get("type") or "").lower() == "doi":
                reference.doi = doi_of(element.text)
        elif tag == _BIBL_STRUCT:
            reference.authors = reference.authors or _full_names(authors)
            key = element.get(XML_ID) or f"reference-{len(references) + 1}"
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
