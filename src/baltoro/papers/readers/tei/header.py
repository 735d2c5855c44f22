"""What the header says about the paper: title, authors, dates, identifiers, licence, keywords."""

from __future__ import annotations

import re

from lxml import etree

from baltoro.papers.fields import doi_of, words_of
from baltoro.papers.readers._xml import collapse_space, element_text
from baltoro.papers.readers.tei.elements import NAME_TAGS, NS, year_in
from baltoro.papers.schema import UNKNOWN_LICENSE, Paper

_LICENCE_WORDS = re.compile(r"licen[cs]e|creative commons|\bCC[ -](?:BY|0)|public domain", re.IGNORECASE)


def read_header(header: etree._Element, paper: Paper) -> None:
    """Fill the bibliographic fields; only the header's own ``biblStruct`` is consulted, never a reference."""
    stated_titles: list[etree._Element] = []
    sources: list[etree._Element] = []
    published: list[etree._Element] = []
    for element in header.iter(
        NS + "titleStmt", NS + "publicationStmt", NS + "sourceDesc", NS + "application", NS + "keywords"
    ):
        name = element.tag[len(NS) :]
        if name == "titleStmt":
            stated_titles += element.iterchildren(NS + "title")
        elif name == "publicationStmt":
            published += element.iterchildren(NS + "date")
            for availability in element.iterchildren(NS + "availability"):
                paper.license = _licence(availability)
        elif name == "sourceDesc":
            sources += element.iterchildren(NS + "biblStruct")
        elif name == "application":
            parser = f"{element.get('ident', 'GROBID')} {element.get('version', '')}".strip()
            paper.extra.setdefault("parser", parser)
        else:
            paper.keywords += _keywords(element)

    monograph_title = ""
    monograph_authors: list[str] = []
    for source in sources:
        for element in source.iter(NS + "title", NS + "author", NS + "idno", NS + "date"):
            parent = element.getparent()
            in_analytic = parent is not None and parent.tag == NS + "analytic"
            if element.tag == NS + "title":
                if in_analytic:
                    stated_titles.append(element)
                elif element.get("level") != "a" and element.get("type") != "abbrev" and not monograph_title:
                    monograph_title = element_text(element)
            elif element.tag == NS + "author":
                name = _person(element)
                if name:
                    (paper.authors if in_analytic else monograph_authors).append(name)
            elif element.tag == NS + "idno":
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
    paper.year = next((year for date in published if (year := year_in(date)) is not None), None)


def _read_identifier(element: etree._Element, paper: Paper) -> None:
    kind = (element.get("type") or "").lower()
    if kind == "doi" and paper.doi is None:
        paper.doi = doi_of(element_text(element))
    elif kind == "arxiv" and "arxiv_id" not in paper.extra:
        # "arXiv:2602.20117v1[cs.AI]": the category is not part of the identifier.
        identifier = re.sub(r"^arxiv:\s*|\s*\[.*\]$", "", element_text(element), flags=re.IGNORECASE)
        if identifier:
            paper.extra["arxiv_id"] = identifier


def _person(author: etree._Element) -> str:
    """Return ``Given Middle Surname``; an author without a name (a stray affiliation) gives ``""``."""
    names = [text for part in author.iter(*NAME_TAGS) if (text := element_text(part))]
    if not names:
        for part in author.iterchildren(NS + "persName", NS + "name"):
            names.append(element_text(part))
    return " ".join(names) or collapse_space(author.text or "").strip()


def _licence(availability: etree._Element) -> str:
    """Return the licence's address, else its text; a mere copyright notice states no licence."""
    for element in availability.iter(NS + "licence", NS + "license"):
        target = element.get("target") or next(
            (link for child in element.iter() if (link := child.get("target"))), None
        )
        text = target or element_text(element)
        if text:
            return text
    text = element_text(availability)
    return text if _LICENCE_WORDS.search(text) else UNKNOWN_LICENSE


def _keywords(keywords: etree._Element) -> list[str]:
    terms = [text for term in keywords.iter(NS + "term") if (text := element_text(term))]
    if terms:
        return terms
    return words_of(element_text(keywords))
