"""OpenReview notes to reviewed papers: who wrote a note, and whether it is a review.

Old API: ``{id, forum, replyto, invitation, signatures, content: {review: "…", rating: "6: …"}}``. New API:
``invitations`` is a list and every value of ``content`` is ``{"value": …}``. The submission is the note whose
id is the forum.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from baltoro.instructions.reviews.heads import kind_of, split_heads
from baltoro.instructions.reviews.records import (
    NOT_RATED,
    Part,
    Review,
    ReviewedPaper,
    is_acceptance,
    score,
)

_META = re.compile(r"meta.?review", re.IGNORECASE)
_DECISION = re.compile(r"decision|acceptance", re.IGNORECASE)
_REVIEW = re.compile(r"review(?!er)", re.IGNORECASE)
_COMMENT = re.compile(r"comment|rebuttal|response|discussion|question|withdraw|revision|reply", re.IGNORECASE)
_AUTHORS = re.compile(r"/Authors?\b", re.IGNORECASE)
_COMMITTEE = re.compile(r"/(?:Anon)?Reviewer|/(?:Senior_)?Area_?Chair|/Program_Chair|/(?:Area_)?Chair|/AC\b")
_RATING = ("rating", "recommendation", "overall_rating", "score", "overall_score", "preliminary_rating")
_NO_TEXT = re.compile(
    r"title|rating|confidence|score|recommendation|venue|_id$|ethic|conduct|license|pdf|keywords|authors|"
    r"experience|time_spent|first_time|reproducibility_checklist|acknowledg|expertise|consent|signature|"
    r"soundness|presentation|contribution$|excitement|assessment|bibtex|agreement|certif|policy|flag",
    re.IGNORECASE,
)
_FREE = frozenset(("review", "comment", "main_review", "metareview", "text"))
_SCORE_TEXT = re.compile(r"\s*-?\d+(?:\.\d+)?\s*(?:$|[:\-–.]\s*.{0,120}$|\w+$)", re.DOTALL)


def gather_notes(notes: Iterable[tuple[Mapping[str, Any], str]]) -> list[ReviewedPaper]:
    """Return one reviewed paper per forum, ordered by forum.

    Args:
        notes: ``(note, uri of its file)`` in any order; a note that comes twice counts once.
    """
    forums: dict[str, dict[str, tuple[Mapping[str, Any], str]]] = {}
    for number, (note, uri) in enumerate(notes):
        note_id = str(note.get("id") or f"unnamed {number}")
        forums.setdefault(str(note["forum"]), {}).setdefault(note_id, (note, uri))
    return [_paper(forum, forums[forum]) for forum in sorted(forums)]


def _paper(forum: str, notes: Mapping[str, tuple[Mapping[str, Any], str]]) -> ReviewedPaper:
    first_uri = min(uri for _, uri in notes.values())
    paper = ReviewedPaper(key=forum, uri=first_uri, layout="openreview")
    submission, uri = notes.get(forum, ({}, first_uri))
    content = _content(submission)
    paper.uri = uri
    paper.title, paper.abstract = _string(content.get("title")), _string(content.get("abstract"))
    paper.venue = _string(content.get("venue")) or None
    created = submission.get("cdate")
    if isinstance(created, int | float) and not isinstance(created, bool):
        paper.year = datetime.fromtimestamp(created / 1000, UTC).year
    replies = [(note_id, note) for note_id, (note, _) in notes.items() if note_id != forum]
    for note_id, note in sorted(replies, key=lambda reply: (_created(reply[1]), reply[0])):
        _file(paper, note_id, note)
    if paper.decision is None and is_acceptance(paper.venue) is not None:
        # The newer API has the decision in the venue's words: "ICLR 2024 poster", "Submitted to …" says none.
        paper.decision = paper.venue
    paper.accepted = is_acceptance(paper.decision)
    return paper


def _file(paper: ReviewedPaper, note_id: str, note: Mapping[str, Any]) -> None:
    """Put one reply where it belongs, or count why it is left out."""
    content = _content(note)
    invitation = _invitation(note)
    signatures = " ".join(map(str, note.get("signatures") or ()))
    if note.get("ddate") is not None:
        paper.dropped["deleted"] += 1
        return
    if _AUTHORS.search(signatures):
        paper.dropped["author_reply"] += 1
        return
    rating = next((score(content[name]) for name in _RATING if score(content.get(name)) is not None), None)
    verdict = next((text for name in _RATING if (text := _string(content.get(name)))), None)
    decision = _string(content.get("decision"))
    review = Review(
        note_id,
        _parts(content),
        rating=rating,
        confidence=score(content.get("confidence", content.get("reviewer_confidence"))),
        recommendation=verdict if rating is None else None,
        reviewer=signatures.rpartition("/")[2] or None,
    )
    if _META.search(invitation) or (_DECISION.search(invitation) and not _COMMENT.search(invitation)):
        paper.decision = decision or paper.decision or review.recommendation
        if any(part.text for part in review.parts):
            paper.meta_reviews.append(review)
        return
    if rating == NOT_RATED:
        paper.dropped["not_rated_comment"] += 1
        return
    answers_the_paper = note.get("replyto") in (None, paper.key)
    named_review = bool(_REVIEW.search(invitation)) and not _COMMENT.search(invitation)
    if not answers_the_paper or not (named_review or rating is not None):
        from_committee = bool(_COMMITTEE.search(signatures))
        paper.dropped["discussion" if from_committee else "public_comment"] += 1
    elif not any(part.text for part in review.parts):
        paper.dropped["empty"] += 1
    else:
        paper.reviews.append(review)


def _content(note: Mapping[str, Any]) -> dict[str, Any]:
    content = note.get("content")
    if not isinstance(content, Mapping):
        return {}
    return {
        str(name): value["value"] if isinstance(value, Mapping) and "value" in value else value
        for name, value in content.items()
    }


def _invitation(note: Mapping[str, Any]) -> str:
    """Return the last part of a note's invitation, the one it was made by (``Official_Review``)."""
    invitations = note.get("invitations")
    first = invitations[0] if isinstance(invitations, list) and invitations else note.get("invitation")
    return str(first or "").rpartition("/")[2]


def _parts(content: Mapping[str, Any]) -> list[Part]:
    """Return the text fields of a form as parts; a field's own heads refine it."""
    parts: list[Part] = []
    for name, value in content.items():
        text = _string(value)
        if not text or _SCORE_TEXT.fullmatch(text):
            continue
        head = name.replace("_", " ").strip().capitalize()
        unknown = kind_of(head) is None and name not in _FREE
        if kind_of(head) == "ignored" or (unknown and (_NO_TEXT.search(name) or len(text.split()) < 4)):
            continue
        own = split_heads(text)
        if own and not own[0].head:
            # Texts named "review" or "comment" are free: their head says nothing.
            own[0].head = "" if name in _FREE else head
        parts += own
    return parts


def _string(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _created(note: Mapping[str, Any]) -> float:
    created = note.get("cdate") or note.get("tcdate")
    return float(created) if isinstance(created, int | float) else 0.0
