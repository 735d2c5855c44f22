"""The whole way from papers and reviews to examples, as plain functions over records in memory.

:func:`pair_up` reads nothing and asks nobody: papers (the head of each is enough) and reviewed papers in,
pairs with the reviews that count out. The reviews of a pair are merged by rules (:func:`merged_by_rules`) or
by an endpoint. :func:`example_of` makes the example of one whole paper, :func:`collect` the set. What is read
is what is kept plus what is rejected, at every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from baltoro.core.errors import InputError
from baltoro.instructions.example import Example
from baltoro.instructions.reviews.aspects import MergedReview
from baltoro.instructions.reviews.config import ReviewsConfig
from baltoro.instructions.reviews.extractive import extract
from baltoro.instructions.reviews.filters import REASONS as DROP_REASONS
from baltoro.instructions.reviews.filters import drop_reason
from baltoro.instructions.reviews.join import fill_empty, join, paper_key
from baltoro.instructions.reviews.long_tail import Histogram, Lengths, bounds_of, histogram
from baltoro.instructions.reviews.readers import STAGE, ReadReviews, from_paper
from baltoro.instructions.reviews.records import Review, ReviewedPaper
from baltoro.instructions.reviews.stringify import stringify_all
from baltoro.instructions.reviews.triples import EXAMPLE_REASONS, TokenCount, review_example
from baltoro.papers.metadata import ROW_KEY
from baltoro.papers.schema import Paper, Reject

CUT_PARTS = ("abstract", "captions", "content")
"""What of a paper may be cut; of these the counts ``cut_…``, over the examples that are kept."""


@dataclass(slots=True)
class Pair:
    """A paper with the reviews that count."""

    paper: Paper
    reviewed: ReviewedPaper
    reviews: list[Review]


@dataclass(slots=True)
class Pairs:
    """The pairs in the order of ``paper_id``, with everything that was left out on the way.

    ``counts`` holds the steps in order; ``titles_differ`` lists pairs that want a look.
    """

    pairs: list[Pair]
    rejects: list[Reject]
    counts: dict[str, int]
    titles_differ: list[str] = field(default_factory=list)


def pair_up(papers: Iterable[Paper | Reject], reviews: ReadReviews | None, config: ReviewsConfig) -> Pairs:
    """Join papers and reviews, and drop the reviews that do not count.

    Args:
        papers: what reading the papers gave.
        reviews: what reading the reviews gave; ``None`` takes those inside the papers' files only. Papers
            that carry reviews keep their own either way.
        config: the settings.

    Raises:
        InputError: too few papers and reviews found their partner.
    """
    rejects: list[Reject] = []
    by_id: dict[str, Paper] = {}
    own: dict[str, ReviewedPaper] = {}
    for record in papers:
        if isinstance(record, Reject):
            rejects.append(record)
            continue
        by_id[record.paper_id] = record
        if record.reviews and (inside := from_paper(record)):
            own[record.paper_id] = inside
    counts = {"papers_read": len(by_id) + len(rejects), "papers_unreadable": len(rejects)}
    without = [paper for paper_id, paper in by_id.items() if paper_id not in own]
    found = {**own}
    counts["joined_own_file"] = len(own)
    differ: list[str] = []
    if reviews is None:
        for paper in without:
            detail = "no reviews by referees inside the file"
            rejects.append(Reject(paper.paper_id, paper.uri, STAGE, "paper_without_reviews", detail))
    else:
        # Reviews of a paper that carries them itself are no second source.
        left = [one for one in reviews.papers if one.uri not in {by_id[paper_id].uri for paper_id in own}]
        counts["reviewed_papers_read"] = len(reviews.papers)
        counts["review_records_rejected"] = len(reviews.rejects)
        rejects += reviews.rejects
        if without or left:
            _refuse_absent_column(without, config)
            joined = join([paper_key(paper, config.join) for paper in without], left, config.join)
            for method in ("stem", "metadata", "title"):
                counts[f"joined_{method}"] = joined.found_by[method]
            found |= joined.pairs
            rejects += joined.rejects
            differ = joined.titles_differ
    counts["joined"] = len(found)
    _count_dropped(found.values(), counts)
    counts |= dict.fromkeys(DROP_REASONS, 0)
    counts |= {"reviews_kept": 0, "no_review_left": 0}
    pairs: list[Pair] = []
    filled: Counter[str] = Counter()
    for paper_id in sorted(found):
        pair = _counted_pair(
            by_id[paper_id], found[paper_id], config, rejects=rejects, counts=counts, filled=filled
        )
        if pair is not None:
            pairs.append(pair)
    counts["titles_filled"], counts["abstracts_filled"] = filled["title"], filled["abstract"]
    counts["papers_with_reviews"] = len(pairs)
    return Pairs(pairs, rejects, counts, differ)


def _refuse_absent_column(papers: Sequence[Paper], config: ReviewsConfig) -> None:
    """Refuse a column to join by that not one paper has.

    Raises:
        InputError: with the columns that papers have.
    """
    column = config.join.metadata_column
    if column is None or not papers or any(column in paper.extra for paper in papers):
        return
    known = sorted({name for paper in papers for name in paper.extra if name != ROW_KEY})
    raise InputError(
        f"instructions.reviews.join.metadata_column={column}: no paper has this column; they have "
        f"{', '.join(known) or 'none'}. Name the table with it in instructions.reviews.papers_metadata (its "
        "own key finds the papers and is no such column), or set metadata_column to null"
    )


def _count_dropped(reviewed: Iterable[ReviewedPaper], counts: dict[str, int]) -> None:
    dropped: Counter[str] = Counter()
    reviews = meta_reviews = 0
    for one in reviewed:
        dropped += one.dropped
        reviews += len(one.reviews)
        meta_reviews += len(one.meta_reviews)
    counts |= {f"not_counted_{name}": number for name, number in sorted(dropped.items())}
    counts |= {"meta_reviews_apart": meta_reviews, "reviews_of_joined_papers": reviews}


def _counted_pair(
    paper: Paper,
    reviewed: ReviewedPaper,
    config: ReviewsConfig,
    *,
    rejects: list[Reject],
    counts: dict[str, int],
    filled: Counter[str],
) -> Pair | None:
    """Return the pair with the reviews that pass the rules, ``None`` if none does."""
    kept: list[Review] = []
    for review in reviewed.reviews:
        reason = drop_reason(review, reviewed, config.rules)
        if reason is None:
            kept.append(review)
        else:
            rejects.append(Reject(f"{paper.paper_id}#{review.key}", reviewed.uri, STAGE, *reason))
            counts[reason[0]] += 1
    counts["reviews_kept"] += len(kept)
    if not kept:
        counts["no_review_left"] += 1
        detail = f"none of {len(reviewed.reviews)} reviews is left"
        rejects.append(Reject(paper.paper_id, paper.uri, STAGE, "no_review_left", detail))
        return None
    full = fill_empty(paper, reviewed)
    filled["title"] += full.title != paper.title
    filled["abstract"] += full.abstract is not paper.abstract
    return Pair(full, reviewed, kept)


@dataclass(slots=True)
class ReviewSet:
    """The examples in the order of ``paper_id``, with rejects, the counts of every step, and lengths."""

    examples: list[Example]
    rejects: list[Reject]
    counts: dict[str, int]
    lengths: dict[str, Lengths]
    histograms: dict[str, Histogram]


@dataclass(frozen=True, slots=True)
class Made:
    """The example of one paper.

    Attributes:
        example: the triple.
        lengths: of it, in tokens.
        cut: parts of the paper that were cut.
        content_lost: whether nothing of its content is left.
    """

    example: Example
    lengths: Lengths
    cut: tuple[str, ...]
    content_lost: bool


def light(paper: Paper) -> Paper:
    """Return what :func:`pair_up` looks at of a paper: its head, so that those of a million fit in memory."""
    return replace(paper, authors=[], keywords=[], sections=[], references=[])


def example_of(
    paper: Paper,
    outcome: MergedReview | tuple[str, str],
    config: ReviewsConfig,
    count_tokens: TokenCount,
) -> Made | Reject:
    """Return the example of a paper and its merged review, or why there is none.

    Args:
        paper: whole, its title and abstract those of its pair.
        outcome: the merged review, or ``(reason, detail)`` why there is none.
        config: the settings.
        count_tokens: counts tokens without special ones.
    """
    if not isinstance(outcome, MergedReview):
        return Reject(paper.paper_id, paper.uri, STAGE, *outcome)
    found = review_example(paper, outcome, count_tokens, config)
    if isinstance(found, Reject):
        return found
    example, prompt, response_tokens = found
    total = config.template_room_tokens + count_tokens(prompt.instruction) + prompt.input_tokens
    lengths = Lengths(prompt.input_tokens, response_tokens, total + response_tokens)
    cut = tuple(part for part in CUT_PARTS if part in prompt.cut)
    return Made(example, lengths, cut, prompt.content_lost)


def collect(pairs: Pairs, outcomes: Mapping[str, Made | Reject], config: ReviewsConfig) -> ReviewSet:
    """Return the set of all examples, those too short or too long left out.

    Args:
        pairs: from :func:`pair_up`.
        outcomes: by ``paper_id``, of every pair: what :func:`example_of` gave.
        config: the settings.
    """
    rejects = list(pairs.rejects)
    counts = dict(pairs.counts)
    made: list[Made] = []
    uris = {pair.paper.paper_id: pair.paper.uri for pair in pairs.pairs}
    not_merged = 0
    for pair in pairs.pairs:
        outcome = outcomes[pair.paper.paper_id]
        if isinstance(outcome, Reject):
            rejects.append(outcome)
            counts[outcome.reason] = counts.get(outcome.reason, 0) + 1
            not_merged += outcome.reason not in EXAMPLE_REASONS
        else:
            made.append(outcome)
    counts["merged"] = len(pairs.pairs) - not_merged
    counts["before_long_tail"] = len(made)
    bounds = bounds_of([one.lengths for one in made], config.long_tail)
    examples: list[Example] = []
    kept: dict[str, Lengths] = {}
    cut: Counter[str] = Counter()
    for one in made:
        reason = bounds.reason(one.lengths)
        if reason is None:
            examples.append(one.example)
            kept[one.example.example_id] = one.lengths
            cut.update(one.cut)
            cut["content_lost"] += one.content_lost
        else:
            rejects.append(Reject(one.example.origin, uris[one.example.origin], STAGE, *reason))
            counts[reason[0]] = counts.get(reason[0], 0) + 1
    counts["examples"] = len(examples)
    counts |= {f"cut_{part}": cut[part] for part in CUT_PARTS} | {"content_lost": cut["content_lost"]}
    return ReviewSet(
        examples, rejects, counts, kept, histograms_of(kept.values(), config.histogram_bin_tokens)
    )


def histograms_of(lengths: Iterable[Lengths], bin_tokens: int) -> dict[str, Histogram]:
    """Return the histograms of whole examples, papers and responses; responses in finer bins."""
    lengths = list(lengths)
    return {
        "whole example": histogram([one.total_tokens for one in lengths], bin_tokens),
        "paper": histogram([one.input_tokens for one in lengths], bin_tokens),
        "response": histogram([one.response_tokens for one in lengths], max(bin_tokens // 8, 1)),
    }


def merged_by_rules(reviews: Sequence[Review], config: ReviewsConfig) -> MergedReview | tuple[str, str]:
    """Return the reviews of one paper merged by the rules that copy, or ``(reason, detail)``."""
    extraction = extract(reviews, config.extractive)
    if extraction.review.count():
        return extraction.review
    detail = f"no head and no cue assigns any of {extraction.unassigned} sentences to an aspect"
    return "no_points_found", detail


def reviews_text(pair: Pair, config: ReviewsConfig, count_tokens: Callable[[str], int]) -> str:
    """Return the reviews of a pair as the text that the endpoint merges."""
    return stringify_all(
        pair.reviews, count_tokens=count_tokens, max_tokens=config.endpoint.max_review_tokens
    )
