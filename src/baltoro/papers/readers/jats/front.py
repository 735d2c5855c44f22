"""What an article says about itself in ``article-meta`` and ``journal-meta``."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from baltoro.papers.readers._xml import element_text
from baltoro.papers.readers.jats.elements import XLINK_HREF, YEAR, clean_doi, contributor
from baltoro.papers.readers.jats.license import license_of
from baltoro.papers.readers.jats.walker import Walker
from baltoro.papers.schema import Block, Paper, Section

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
# Dates that say when a version was processed, not when the article appeared.
_NOT_PUBLICATION_DATES = {"pmc-release", "nihms-submitted", "update", "corrected", "retracted", "preprint"}
_TITLE_MARKERS = {"fn", "author-notes", "corresp", "aff"}
_VENUE_PATHS = (
    "journal-meta/journal-title-group/journal-title",
    "journal-meta/journal-title",
    "journal-meta/journal-title-group/abbrev-journal-title",
    "journal-meta/abbrev-journal-title",
    "journal-meta/publisher/publisher-name",
)


def read_front(front: etree._Element, paper: Paper, walker: Walker) -> None:
    """Fill a paper's bibliographic fields and its abstract.

    Args:
        front: the element that holds ``article-meta`` and ``journal-meta``.
        paper: changed in place.
        walker: of the article; gets abstracts of another kind than the main one as its first sections.
    """
    meta = front.find("article-meta")
    if meta is None:
        return
    paper.title = title_of(meta, walker)
    paper.authors = _authors(meta)
    paper.year = _publication_year(meta)
    paper.venue = next(
        (
            text
            for path in _VENUE_PATHS
            if (element := front.find(path)) is not None and (text := element_text(element))
        ),
        None,
    )
    for identifier in meta.iterfind("article-id"):
        if identifier.get("pub-id-type") == "doi":
            paper.doi = clean_doi(element_text(identifier))
            break
    paper.license = license_of(meta)
    keywords = (
        walker.string(keyword) for group in meta.iterfind("kwd-group") for keyword in _keywords(group)
    )
    paper.keywords = list(dict.fromkeys(filter(None, keywords)))
    _read_abstracts(meta, paper, walker)
    related = [
        f"{link.get('related-article-type')} {clean_doi(link.get(XLINK_HREF) or '')}"
        for link in meta.iterfind("related-article")
        if link.get("related-article-type") in {"retracted-article", "corrected-article"}
    ]
    if related:
        paper.extra["related_articles"] = "; ".join(related)


def _read_abstracts(meta: etree._Element, paper: Paper, walker: Walker) -> None:
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


def title_of(meta: etree._Element, walker: Walker) -> str:
    """Return title and subtitle without the markers of their footnotes, which are removed from the tree."""
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
                name = contributor(contrib)
                if name:
                    authors.append(name)
    return authors


def _publication_year(meta: etree._Element) -> int | None:
    years = []
    for date in meta.iterfind("pub-date"):
        if (date.get("pub-type") or date.get("date-type") or "") in _NOT_PUBLICATION_DATES:
            continue
        match = YEAR.search(date.findtext("year") or date.findtext("string-date") or "")
        if match:
            years.append(int(match.group()))
    return min(years, default=None)


def _keywords(group: etree._Element) -> Iterator[etree._Element]:
    for child in group:
        if child.tag in {"kwd", "compound-kwd"}:
            yield child
        elif child.tag == "nested-kwd":
            yield from _keywords(child)
