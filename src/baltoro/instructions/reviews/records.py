"""What a reviewed paper is: one record type for every layout in which reviews come.

>>> review = Review("r1", [Part("Strengths", "The proof is short.")], rating=7.0)
>>> review.text()
'Strengths:\\nThe proof is short.'
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Part:
    """A stretch of a review under one head; ``head`` is ``""`` for text that stands under none."""

    head: str
    text: str


@dataclass(slots=True)
class Review:
    """One referee's view of a paper, or a chair's.

    Attributes:
        key: unique within the paper and stable: the id of a note, or ``r1``, ``r2`` … in file order.
        parts: its text in order, by head (``Strengths``, ``Weaknesses`` …) where the source has heads.
        rating: the overall score as printed number, on the venue's own scale; ``None`` if there is none.
        confidence: the referee's confidence, on the venue's own scale.
        recommendation: the verdict in words (``minor-revision``, ``Accept (poster)``), if the source has one.
        reviewer: name or number of the referee, as published.
        round: counts from 0; ``None`` if the source does not say.
    """

    key: str
    parts: list[Part] = field(default_factory=list)
    rating: float | None = None
    confidence: float | None = None
    recommendation: str | None = None
    reviewer: str | None = None
    round: int | None = None

    def text(self) -> str:
        """Return the review as text: heads on a line of their own, parts separated by a blank line."""
        return "\n\n".join(
            f"{part.head}:\n{part.text}" if part.head else part.text for part in self.parts if part.text
        )


DROPPED: dict[str, str] = {
    "author_reply": "written by the paper's authors",
    "public_comment": "written by someone who is neither author nor of the committee",
    "discussion": "a comment of a referee or chair that reviews nothing: no rating, or an answer to "
    "an answer",
    "not_rated_comment": "a rating of -1: a comment that was counted as a review",
    "comment_within_aggregated_review": "the same, of which the text of an aggregated review was merged too",
    "deleted": "withdrawn by who wrote it",
    "empty": "without text",
}
"""What is left out while reading reviews, with its meaning."""


@dataclass(slots=True)
class ReviewedPaper:
    """All that is known about the reviewing of one paper.

    Attributes:
        key: the paper's id in the source of the reviews (forum id, number, file stem).
        stem: the file's name without its suffixes; empty for a record among others in one file.
        uri: the file it came from.
        layout: ``peerread``, ``asap``, ``openreview``, ``jats`` or ``flat``.
        title: as the reviewing site has it; it fills a paper whose parser found none.
        abstract: likewise.
        decision: in the venue's words (``Accept (poster)``, ``Reject``).
        accepted: the decision as yes or no, ``None`` if unknown.
        reviews: by referees, in order.
        meta_reviews: by chairs and editors, kept apart: never merged into the response.
        dropped: what was left out while reading, by a name in :data:`DROPPED`.
    """

    key: str
    stem: str = ""
    uri: str = ""
    layout: str = ""
    title: str = ""
    abstract: str = ""
    venue: str | None = None
    year: int | None = None
    decision: str | None = None
    accepted: bool | None = None
    reviews: list[Review] = field(default_factory=list)
    meta_reviews: list[Review] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


# --- scores and decisions ----------------------------------------------------------------------------

_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)\b")
_REFUSED = re.compile(
    r"\breject|\bdeclin|\bwithdr|not\s+accept|not\s+be\s+accept|\bunacceptable", re.IGNORECASE
)
_ACCEPTED = re.compile(r"\baccept|\bposter\b|\boral\b|\bspotlight\b|\bnotable\b", re.IGNORECASE)
_SMALL_REVISION = re.compile(r"minor.{0,3}revision", re.IGNORECASE)

NOT_RATED = -1.0
"""The rating with which some collections mark a comment that they counted as a review."""


def score(value: object) -> float | None:
    """Return the number a score begins with: ``8``, ``"8"``, ``"8: Top 50% of accepted papers"``.

    >>> score("3: The reviewer is fairly confident"), score("strong accept"), score(True)
    (3.0, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    found = _NUMBER.match(value) if isinstance(value, str) else None
    return float(found[1]) if found else None


def is_acceptance(words: str | None) -> bool | None:
    """Return whether a decision or recommendation is for the paper, ``None`` where it does not say.

    >>> is_acceptance("Accept (poster)"), is_acceptance("weak reject"), is_acceptance("major-revision")
    (True, False, None)
    """
    if not words:
        return None
    if _REFUSED.search(words):
        return False
    return True if _ACCEPTED.search(words) or _SMALL_REVISION.search(words) else None
