"""The whole article, in reading order: front matter, body, floats, back matter, notes, reviews."""

from __future__ import annotations

from itertools import islice

from lxml import etree

from baltoro.papers.readers._xml import parse_xml
from baltoro.papers.readers.jats.elements import XML_LANG, drop_namespaces
from baltoro.papers.readers.jats.front import read_front
from baltoro.papers.readers.jats.handlers import HANDLERS
from baltoro.papers.readers.jats.references import read_reference
from baltoro.papers.readers.jats.reviews import read_reviews
from baltoro.papers.readers.jats.walker import Walker
from baltoro.papers.schema import Paper, ReadReject, Section


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
        paper = _read_article(article)
    except RecursionError:
        raise ReadReject("unsafe_xml", "blocks nested deeper than any article's") from None
    if not (paper.title or paper.abstract or any(_has_words(section) for section in paper.sections)):
        raise ReadReject("no_text", "a JATS article without title, abstract or body text")
    return paper


def _article_of(root: etree._Element) -> etree._Element:
    """Return the article element, unwrapped from a PMC or OAI envelope and without JATS namespaces."""
    if root.tag.startswith("{"):
        drop_namespaces(root)
    if root.tag == "article":
        return root
    articles = list(islice(root.iter("article"), 2))
    if len(articles) == 1:
        return articles[0]
    found = "no <article>" if not articles else "several <article> elements, one per file is read"
    raise ReadReject("unknown_format", f"root element <{root.tag}> holds {found}")


def _read_article(article: etree._Element) -> Paper:
    paper = Paper(article_type=article.get("article-type"))
    language = article.get(XML_LANG)
    paper.language = language.strip().lower() or None if language else None
    areas = [area for name in ("body", "floats-group", "back") for area in article.findall(name)]
    labels: dict[str, str] = {}
    for area in areas:
        for ref in area.iter("ref"):
            read_reference(ref, paper.references, labels)
    walker = Walker(HANDLERS, labels)
    front = article.find("front")
    if front is None:
        front = article
    read_front(front, paper, walker)
    for area in areas:
        walker.container(area, 1)
    for note in front.findall("notes"):
        walker.section(note, 1)
    paper.sections = walker.sections
    read_reviews(article, paper, walker.counts)
    paper.extra.update({name: str(count) for name, count in sorted(walker.counts.items())})
    return paper


def _has_words(section: Section) -> bool:
    return any(block.inlines or block.cells or block.label for block in section.blocks)
