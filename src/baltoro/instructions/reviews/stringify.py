"""The reviews of one paper as one text: what a merger reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from baltoro.instructions.reviews.records import Review


def stringify(review: Review) -> str:
    """Return one review as text: what it says first of its scores, then its parts under their heads."""
    scores = [
        f"Rating: {review.rating:g}" if review.rating is not None else "",
        f"Confidence: {review.confidence:g}" if review.confidence is not None else "",
        f"Recommendation: {review.recommendation}" if review.recommendation else "",
    ]
    head = "\n".join(filter(None, scores))
    return f"{head}\n\n{review.text()}" if head else review.text()


def stringify_all(
    reviews: Sequence[Review],
    *,
    count_tokens: Callable[[str], int] | None = None,
    max_tokens: int | None = None,
) -> str:
    """Return all reviews of a paper, numbered in order.

    Where they are longer than ``max_tokens``, each gets an equal share, what short ones leave goes to the
    long ones, and a review is cut after a paragraph: no referee is left out.

    Args:
        reviews: in order.
        count_tokens: counts a text's tokens; needed with ``max_tokens``.
        max_tokens: bound on the whole.
    """
    texts = [stringify(review) for review in reviews]
    if max_tokens is not None and count_tokens is not None:
        lengths = [count_tokens(text) for text in texts]
        heads = 8 * len(texts)
        if sum(lengths) + heads > max_tokens:
            shares = _shares(lengths, max_tokens - heads)
            texts = [
                text if length <= share else _first_paragraphs(text, share, count_tokens)
                for text, length, share in zip(texts, lengths, shares, strict=True)
            ]
    return "\n\n".join(f"### Review {number}\n{text}" for number, text in enumerate(texts, 1))


def _shares(lengths: Sequence[int], total: int) -> list[int]:
    """Return how many tokens each text gets: no more than it has, the rest split evenly."""
    shares = [0] * len(lengths)
    left = max(total, 0)
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for position, index in enumerate(order):
        shares[index] = min(lengths[index], left // (len(order) - position))
        left -= shares[index]
    return shares


def _first_paragraphs(text: str, max_tokens: int, count_tokens: Callable[[str], int]) -> str:
    kept: list[str] = []
    used = 0
    for paragraph in text.split("\n\n"):
        used += count_tokens(paragraph) + 2
        if used > max_tokens:
            break
        kept.append(paragraph)
    return "\n\n".join(kept)
