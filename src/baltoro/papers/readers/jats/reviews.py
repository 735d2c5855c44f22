"""Peer reviews and replies: the sub-articles and responses of an article, apart from its body."""

from __future__ import annotations

import re
from collections import Counter

from lxml import etree

from baltoro.papers.readers.jats.elements import contributor
from baltoro.papers.readers.jats.front import title_of
from baltoro.papers.readers.jats.handlers import HANDLERS
from baltoro.papers.readers.jats.walker import Walker
from baltoro.papers.schema import Paper, Review, Section

_ROUND_IN_TITLE = re.compile(r"\bR(\d+)/PR\d+|\b[Dd]ecision [Ll]etter (\d+)")
_VERSION_IN_TITLE = re.compile(r"\b(?:[Vv]ersion|[Rr]ound) (\d+)\b")
_REVIEWER_IN_TITLE = re.compile(r"\b(?:Reviewer|Referee)\s*#?\s*\d+\b")
_REPLY_KINDS = {"reply", "author-comment", "response", "rebuttal"}
_MOST_ROUNDS = 128


def read_reviews(parent: etree._Element, paper: Paper, counts: Counter[str]) -> None:
    """Append the reviews below an article or sub-article in document order.

    Args:
        parent: whose sub-articles are read, with theirs.
        paper: gets the reviews.
        counts: gets the number of translations skipped and of reviews without text.
    """
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
        read_reviews(sub_article, paper, counts)


def _read_review(sub_article: etree._Element, kind: str) -> Review:
    stub = sub_article.find("front-stub")
    if stub is None:
        stub = sub_article.find("front/article-meta")
    walker = Walker(HANDLERS, {}, marks_italic_quotes=kind in _REPLY_KINDS)
    title = reviewer = rating = None
    round_number = None
    if stub is not None:
        title = title_of(stub, walker)
        names = [name for group in stub.iterfind("contrib-group") for name in map(contributor, group) if name]
        reviewer = ", ".join(names) or None
        for meta in stub.iter("custom-meta"):
            name = (meta.findtext("meta-name") or "").strip().lower()
            value = (meta.findtext("meta-value") or "").strip()
            if name == "recommendation":
                rating = value or None
            elif name == "revision-round" and value.isdecimal():
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
    round_number = round_number if round_number is not None and round_number < _MOST_ROUNDS else None
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
