"""The merger that needs no model: points of all reviews, sorted into four aspects, near-equal ones once.

What it does not do: invent. Every detail is a span of one review (white space aside); a sentence that neither
a head nor a cue assigns is left out and counted. Points that several referees raise come first, then the
order of the reviews.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from baltoro.instructions.reviews.aspects import ASPECTS, MergedReview, merged_review
from baltoro.instructions.reviews.config import ExtractiveConfig
from baltoro.instructions.reviews.cues import names_novelty, stance_of
from baltoro.instructions.reviews.heads import kind_of
from baltoro.instructions.reviews.points import gist_of, pieces, sentences, statements
from baltoro.instructions.reviews.records import Review

_NOVELTY, _ACCEPT, _REJECT, _SUGGEST = ASPECTS
_OF_STANCE = {"novelty": _NOVELTY, "praise": _ACCEPT, "objection": _REJECT, "request": _SUGGEST}
_DEFAULT = ExtractiveConfig()


@dataclass(slots=True)
class _Point:
    """A point with the referees who raise it; ``words`` are its content words."""

    text: str
    words: frozenset[str]
    referees: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Extraction:
    """A merged review and what became of the reviews' points.

    Attributes:
        review: the merged review.
        points: points found under some aspect, before near-equal ones were joined.
        joined: points that said again what another one says.
        beyond_limit: points left out because their aspect was full.
        unassigned: sentences that neither a head nor a cue assigns to an aspect.
    """

    review: MergedReview
    points: int
    joined: int
    beyond_limit: int
    unassigned: int


def extract(reviews: Sequence[Review], config: ExtractiveConfig = _DEFAULT) -> Extraction:
    """Merge the reviews of one paper into the four aspects.

    Args:
        reviews: of one paper, in order.
        config: bounds on points, and when two are one.
    """
    found: dict[str, list[_Point]] = {aspect: [] for aspect in ASPECTS}
    points = joined = unassigned = 0
    for review in reviews:
        for aspect, text in _assigned(review):
            if aspect is None:
                unassigned += 1
                continue
            text = _shortened(text, config.max_point_words)  # noqa: PLW2901  (the same point, within its bound)
            if len(text.split()) < config.min_point_words:
                unassigned += 1
                continue
            points += 1
            words = _content_words(text)
            same = next((one for one in found[aspect] if _same(one.words, words, config)), None)
            if same is None:
                found[aspect].append(_Point(text, words, {review.key}))
            else:
                joined += 1
                same.referees.add(review.key)
    beyond = 0
    merged: dict[str, dict[str, str]] = {}
    for aspect, own in found.items():
        # sorted is stable: points of equally many referees keep the order of the reviews.
        ranked = sorted(own, key=lambda point: -len(point.referees))
        beyond += max(len(ranked) - config.max_points, 0)
        merged[aspect] = _with_gists(point.text for point in ranked[: config.max_points])
    return Extraction(merged_review(merged), points, joined, beyond, unassigned)


def _assigned(review: Review) -> Iterator[tuple[str | None, str]]:
    """Yield ``(aspect, point)`` of a review; the aspect of a sentence that no rule knows is ``None``."""
    for part in review.parts:
        kind = kind_of(part.head) or "mixed"
        if kind == "ignored":
            continue
        for piece in pieces(part.text):
            if kind == "summary":
                yield from _from_summary(piece.text)
            elif kind == "mixed":
                yield from _from_mixed(piece.text, is_item=piece.is_item)
            else:
                for text in [piece.text] if piece.is_item else statements(piece.text):
                    yield _under(kind, text), text


def _under(kind: str, text: str) -> str:
    """Return the aspect of a point under a head that takes a side."""
    if kind == "strengths":
        return _NOVELTY if names_novelty(text) else _ACCEPT
    if kind == "novelty":
        return _REJECT if stance_of(text) == "objection" else _NOVELTY
    if kind == "weaknesses":
        # A weakness may be worded as a request ("Please compare …"): what to do is what authors look for.
        return _SUGGEST if stance_of(text) == "request" and not text.rstrip().endswith("?") else _REJECT
    return _SUGGEST


def _from_summary(text: str) -> Iterator[tuple[str | None, str]]:
    """Yield what a summary says of the paper's news; the rest of it describes the paper and is left out."""
    found = [sentence for sentence in statements(text) if names_novelty(sentence)]
    for sentence in statements(text):
        yield (_NOVELTY if sentence in found else None), sentence


def _from_mixed(text: str, *, is_item: bool) -> Iterator[tuple[str | None, str]]:
    """Yield the points of free text by their cues; a list item stays whole under its first known cue."""
    groups = statements(text)
    if is_item and len(text.split()) <= _WHOLE_ITEM_WORDS:
        stances = [stance for group in groups if (stance := stance_of(group))]
        # What an item asks for in the end matters more than how it leads there.
        stance = "request" if "request" in stances else next(iter(stances), None)
        yield (_OF_STANCE[stance] if stance else None), text
        return
    for group in groups:
        stance = next((found for one in sentences(group) if (found := stance_of(one))), None)
        yield (_OF_STANCE[stance] if stance else None), group


_WHOLE_ITEM_WORDS = 70


def _shortened(text: str, max_words: int) -> str:
    """Return a point's first whole sentences within the bound, at least one; that one is cut at words."""
    if len(text.split()) <= max_words:
        return text
    kept: list[str] = []
    for sentence in sentences(text):
        if kept and sum(len(one.split()) for one in (*kept, sentence)) > max_words:
            break
        kept.append(sentence)
    return " ".join(kept) if len(" ".join(kept).split()) <= max_words else " ".join(text.split()[:max_words])


_STOP_WORDS = (
    "the a an of to in on at by for from with and or but as that this these those is are was were be been "
    "it its their they we i you authors author paper work study manuscript would should could may might "
    "can also more some any such than not no do does have has had which there which what how very "
    "recommend suggest please improve provide include consider including additionally furthermore lastly"
)
_STOP = frozenset(_STOP_WORDS.split())


def _content_words(text: str) -> frozenset[str]:
    """Return a text's content words, cut to stems of six letters."""
    words = re.findall(r"[a-z0-9]{2,}", text.casefold())
    return frozenset(word[:6] for word in words if word not in _STOP)


def _same(words: frozenset[str], others: frozenset[str], config: ExtractiveConfig) -> bool:
    union = len(words | others)
    return union > 0 and len(words & others) / union >= config.same_point_overlap


def _with_gists(texts: Iterator[str]) -> dict[str, str]:
    """Return ``{gist: detail}``; a gist that stands already is numbered."""
    points: dict[str, str] = {}
    for text in texts:
        gist, detail = gist_of(text)
        name, number = gist, 2
        while name in points:
            name, number = f"{gist} ({number})", number + 1
        points[name] = detail
    return points
