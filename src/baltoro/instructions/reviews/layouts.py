"""The layouts in which one record holds all reviews of one paper: PeerRead, ASAP-Review, flat text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from baltoro.instructions.reviews.heads import split_heads
from baltoro.instructions.reviews.records import NOT_RATED, Review, ReviewedPaper, is_acceptance, score
from baltoro.papers.detect import decode
from baltoro.papers.schema import ReadReject


def text_field(value: Any) -> str:
    """Return a text or number of a record as text, ``""`` for anything else."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _reviews_list(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    reviews = record.get("reviews")
    if not isinstance(reviews, list) or not all(isinstance(review, Mapping) for review in reviews):
        raise ReadReject("malformed_json", "reviews is not a list of objects")
    return reviews


def _add(paper: ReviewedPaper, review: Review, *, meta: bool = False) -> None:
    """File a review under referees or chairs, or count why it is none."""
    if review.rating == NOT_RATED:
        paper.dropped["not_rated_comment"] += 1
    elif not any(part.text for part in review.parts):
        paper.dropped["empty"] += 1
    elif meta:
        paper.meta_reviews.append(review)
    else:
        paper.reviews.append(review)


def peerread_paper(record: Mapping[str, Any], stem: str, uri: str) -> ReviewedPaper:
    """Return the reviewed paper of a PeerRead record.

    Raises:
        ReadReject: the record is not of that layout.
    """
    paper = ReviewedPaper(
        key=text_field(record.get("id")) or stem, stem=stem, uri=uri, layout="peerread",
        title=text_field(record.get("title")), abstract=text_field(record.get("abstract")),
        venue=text_field(record.get("conference")) or None,
    )  # fmt: skip
    for number, entry in enumerate(_reviews_list(record), 1):
        rating = entry.get("RECOMMENDATION", entry.get("RATING"))
        meta = entry.get("IS_META_REVIEW") is True
        review = Review(
            f"r{number}",
            split_heads(text_field(entry.get("comments"))),
            rating=score(rating),
            confidence=score(entry.get("REVIEWER_CONFIDENCE")),
            recommendation=text_field(rating) if score(rating) is None else None,
        )
        if meta and review.recommendation:
            paper.decision = review.recommendation
        signed = text_field(entry.get("OTHER_KEYS")).lower()
        # ICLR 2017 there mixes the forum's comments into the reviews; the signature is all that tells them.
        if "author" in signed or re.match(
            r"(?:re|reply|response)\b\W", text_field(entry.get("TITLE")).lower()
        ):
            paper.dropped["author_reply"] += 1
        elif not meta and _unscored_comment(entry, record):
            paper.dropped["discussion"] += 1
        else:
            _add(paper, review, meta=meta)
    accepted = record.get("accepted")
    paper.accepted = accepted if isinstance(accepted, bool) else is_acceptance(paper.decision)
    return paper


def _unscored_comment(entry: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Tell whether a paper's other reviews carry a recommendation and this entry does not."""
    scored = any(
        score(other.get("RECOMMENDATION")) is not None
        for other in record["reviews"]
        if other.get("IS_META_REVIEW") is not True
    )
    return scored and entry.get("RECOMMENDATION") is None


def asap_paper(record: Mapping[str, Any], stem: str, uri: str) -> ReviewedPaper:
    """Return the reviewed paper of an ASAP-Review record.

    Raises:
        ReadReject: the record is not of that layout.
    """
    paper = ReviewedPaper(key=text_field(record.get("id")) or stem, stem=stem, uri=uri, layout="asap")
    for number, entry in enumerate(_reviews_list(record), 1):
        _add(
            paper,
            Review(
                f"r{number}",
                split_heads(text_field(entry.get("review"))),
                rating=score(entry.get("rating")),
                confidence=score(entry.get("confidence")),
            ),
        )
    meta = record.get("metaReview", record.get("meta_review"))
    texts = meta if isinstance(meta, list) else [meta]
    for number, text in enumerate(texts, 1):
        text = text.get("review", text.get("metaReview")) if isinstance(text, Mapping) else text  # noqa: PLW2901
        if text_field(text):
            _add(paper, Review(f"m{number}", split_heads(text_field(text))), meta=True)
    fill_from_table(paper, record)
    return paper


def fill_from_table(paper: ReviewedPaper, fields: Mapping[str, Any]) -> None:
    """Fill what a reviewed paper does not say yet from its metadata record."""
    paper.title = paper.title or text_field(fields.get("title"))
    paper.abstract = paper.abstract or text_field(fields.get("abstract"))
    paper.venue = paper.venue or text_field(fields.get("conference")) or None
    paper.decision = paper.decision or text_field(fields.get("decision")) or None
    if paper.accepted is None:
        paper.accepted = is_acceptance(paper.decision)


_FIELD = re.compile(
    r"(?m)^(ID|Title|Conference|Year|Abstract|Decision|Original \w+|Number of Reviews):[ \t]*(.*)$"
)


def flat_paper(payload: Any, stem: str, uri: str) -> ReviewedPaper:
    """Return the reviewed paper of a flat text with one merged review.

    Raises:
        ReadReject: the record is not of that layout.
    """
    if not isinstance(payload, bytes):
        raise ReadReject("unknown_layout", "no text where the layout flat was declared")
    text = decode(payload).replace("\r\n", "\n")
    head, mark, body = text.partition("\nAggregated Review:")
    if not mark:
        raise ReadReject("unknown_layout", "no line 'Aggregated Review:'")
    fields = {name: value.strip() for name, value in _FIELD.findall(head)}
    year = fields.get("Year", "")
    paper = ReviewedPaper(
        key=fields.get("ID") or stem, stem=stem, uri=uri, layout="flat",
        title=fields.get("Title", ""), abstract=fields.get("Abstract", ""),
        venue=fields.get("Conference") or None, year=int(year) if year.isdecimal() else None,
        decision=fields.get("Decision") or None, accepted=is_acceptance(fields.get("Decision")),
    )  # fmt: skip
    ratings = [score(item) for item in fields.get("Original Ratings", "").split(",")]
    confidences = [score(item) for item in fields.get("Original Confidences", "").split(",")]
    # The text is one review merged out of these; a rating of -1 was a comment that they counted in.
    paper.dropped["comment_within_aggregated_review"] = sum(rating == NOT_RATED for rating in ratings)
    review = Review("r1", split_heads(body))
    review.rating = _mean([rating for rating in ratings if rating is not None and rating != NOT_RATED])
    review.confidence = _mean([value for value in confidences if value is not None and value != NOT_RATED])
    _add(paper, review)
    paper.dropped += Counter()
    return paper


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None
