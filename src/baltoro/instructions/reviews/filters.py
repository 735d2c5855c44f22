"""Which single reviews count: length, line breaks, round, and confidence against the decision."""

from __future__ import annotations

from baltoro.instructions.reviews.config import RulesConfig
from baltoro.instructions.reviews.records import Review, ReviewedPaper, is_acceptance

REASONS: dict[str, str] = {
    "review_too_short": "fewer words or characters than the lower bound",
    "review_too_long": "more words or characters than the upper bound",
    "review_line_breaks": "more line breaks than a review of sound layout has",
    "review_later_round": "of a later round, and only the first is wanted",
    "review_unsure_disagreement": "disagrees with the decision, with low confidence",
}
"""Why a review is dropped, with its meaning."""


def drop_reason(review: Review, paper: ReviewedPaper, rules: RulesConfig) -> tuple[str, str] | None:
    """Return ``(reason, detail)`` if a review is to be dropped, else ``None``."""
    text = review.text()
    words, characters, breaks = (
        len(text.split()),
        len(text),
        sum(bool(line.strip()) for line in text.splitlines()) - 1,
    )
    for measure, number in (("words", words), ("characters", characters)):
        low, high = getattr(rules, f"min_{measure}"), getattr(rules, f"max_{measure}")
        if low is not None and number < low:
            return "review_too_short", f"{number} {measure}, at least {low} are kept"
        if high is not None and number > high:
            return "review_too_long", f"{number} {measure}, at most {high} are kept"
    if rules.max_line_breaks is not None and breaks > rules.max_line_breaks:
        return "review_line_breaks", f"{breaks} line breaks, at most {rules.max_line_breaks} are kept"
    if rules.rounds == "first" and review.round:
        return "review_later_round", f"round {review.round}"
    if rules.drop_unsure_disagreement and _unsure_disagreement(review, paper, rules):
        detail = f"rating {review.rating}, confidence {review.confidence}, decision {paper.decision}"
        return "review_unsure_disagreement", detail
    return None


def _unsure_disagreement(review: Review, paper: ReviewedPaper, rules: RulesConfig) -> bool:
    if paper.accepted is None or review.confidence is None or review.confidence > rules.low_confidence:
        return False
    stance = (
        review.rating >= rules.accept_from_rating
        if review.rating is not None
        else is_acceptance(review.recommendation)
    )
    return stance is not None and stance is not paper.accepted
