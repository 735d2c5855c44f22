"""From real papers and reviews to examples: every record is counted once."""

from collections import Counter
from dataclasses import replace

import pytest

from baltoro.core.errors import InputError
from baltoro.instructions.example import examples_from_table, examples_to_table
from baltoro.instructions.reviews.aspects import ASPECTS, MergedReview, from_brackets, merged_review
from baltoro.instructions.reviews.build import (
    collect,
    example_of,
    light,
    merged_by_rules,
    pair_up,
    reviews_text,
)
from baltoro.instructions.reviews.config import LongTailConfig, ReviewsConfig
from baltoro.instructions.reviews.readers import ReadReviews, read_reviews
from baltoro.instructions.reviews.records import Part, Review, ReviewedPaper
from baltoro.papers import read
from baltoro.papers.schema import Block, Inline, Paper, Reject, Section
from baltoro.papers.schema import Review as Published


def _characters(text):
    return len(text) // 4 + 1


def _paper(name, **fields):
    section = Section(1, "Methods", None, [Block("paragraph", [Inline("text", "We melt rocks. " * 40)])])
    return Paper(paper_id=f"s/{name}", uri=f"{name}.mmd", title=f"Title {name}", sections=[section], **fields)


def _reviewed(key, *texts, **fields):
    reviews = [Review(f"r{number}", [Part("Weaknesses", text)]) for number, text in enumerate(texts, 1)]
    return ReviewedPaper(key, title=f"Title {key}", reviews=reviews, uri=f"reviews/{key}", **fields)


def merged_of(pairs, config):
    return {pair.paper.paper_id: merged_by_rules(pair.reviews, config) for pair in pairs.pairs}


def made_of(pairs, merged, config):
    outcomes = {
        pair.paper.paper_id: example_of(pair.paper, merged[pair.paper.paper_id], config, _characters)
        for pair in pairs.pairs
    }
    return collect(pairs, outcomes, config)


_LONG = "The experiments lack a comparison with older methods of the same kind. " * 4


def test_every_paper_ends_as_an_example_or_a_reject():
    inside = _paper(
        "own",
        reviews=[
            Published("reviewer-report", "However, the maps are missing. " * 9),
            Published("reply", "x"),
        ],
    )
    papers = [_paper("a"), _paper("b"), _paper("c"), inside, Reject("s/d", "d", "read", "empty_file", "")]
    reviews = ReadReviews([
        _reviewed("a", _LONG, "short", abstract="It rises.", dropped=Counter(author_reply=2)),
        _reviewed("b", "short"), _reviewed("z", _LONG),
    ])  # fmt: skip
    config = ReviewsConfig(papers="p", long_tail=LongTailConfig(min_input_tokens=None, min_response_tokens=8))
    pairs = pair_up(papers, reviews, config)
    heads = pair_up([light(one) if isinstance(one, Paper) else one for one in papers], reviews, config)
    assert (heads.counts, heads.rejects) == (pairs.counts, pairs.rejects)
    assert heads.pairs == [replace(pair, paper=light(pair.paper)) for pair in pairs.pairs]
    result = made_of(pairs, merged_of(pairs, config), config)
    assert [example.example_id for example in result.examples] == ["s/a#review", "s/own#review"]
    assert Counter(reject.reason for reject in result.rejects) == {
        "empty_file": 1, "review_too_short": 2, "no_review_left": 1,
        "paper_without_reviews": 1, "reviews_without_paper": 1,
    }  # fmt: skip
    counts = result.counts
    assert (
        counts["papers_read"],
        counts["papers_unreadable"],
        counts["joined_own_file"],
        counts["joined_stem"],
    ) == (5, 1, 1, 2)
    assert (
        counts["reviews_of_joined_papers"],
        counts["reviews_kept"],
        counts["not_counted_author_reply"],
    ) == (4, 2, 3)
    assert (counts["abstracts_filled"], counts["merged"], counts["examples"]) == (1, 2, 2)
    assert "[ABSTRACT]\nIt rises." in result.examples[0].text("input")
    assert examples_from_table(examples_to_table(result.examples)) == result.examples


def test_a_merger_that_fails_and_a_long_tail_are_counted():
    papers = [_paper(name) for name in "abc"]
    reviews = ReadReviews([_reviewed(name, _LONG) for name in "abc"])
    config = ReviewsConfig(
        papers="p", long_tail=LongTailConfig(min_input_tokens=None, min_response_tokens=100)
    )
    pairs = pair_up(papers, reviews, config)
    assert reviews_text(pairs.pairs[0], config, _characters).startswith("### Review 1\nWeaknesses:\n")
    merged = {
        "s/a": ("invalid_answer", "none of 3"),
        "s/b": merged_review({ASPECTS[0]: {"New": "word " * 100}}),
        "s/c": merged_review({ASPECTS[0]: {"New": "word"}}),
    }
    result = made_of(pairs, merged, config)
    assert [example.origin for example in result.examples] == ["s/b"]
    assert [(reject.paper_id, reject.reason) for reject in result.rejects] == [
        ("s/a", "invalid_answer"), ("s/c", "long_tail_short_response")
    ]  # fmt: skip
    assert (
        result.counts["invalid_answer"],
        result.counts["before_long_tail"],
        result.counts["examples"],
    ) == (1, 2, 1)
    assert result.histograms["whole example"].examples == 1


@pytest.mark.parametrize("source", ["nougat", "jats"])
def test_the_real_papers_and_reviews_become_examples(sample_data, source):
    if source == "nougat":
        papers, reviews = (
            [sample_data / "nougat/openreview"],
            read_reviews(str(sample_data / "nougat/aggregated_reviews")),
        )
    else:
        papers, reviews = [sample_data / "jats/elife", sample_data / "jats/reviewed"], None
    # The style sample of eLife has a letter of a few sentences.
    config = ReviewsConfig(papers="p", long_tail=LongTailConfig(min_response_tokens=32))
    records = [record for folder in papers for record in read(str(folder))]
    pairs = pair_up(records, reviews, config)
    merged = merged_of(pairs, config)
    assert all(isinstance(review, MergedReview) for review in merged.values())
    result = made_of(pairs, merged, config)
    assert result.counts["joined"] == result.counts["before_long_tail"] == {"nougat": 27, "jats": 9}[source]
    assert len(result.examples) == {"nougat": 27, "jats": 9}[source]
    for example in result.examples:
        assert from_brackets(example.text("assistant")) == merged[example.origin]
        assert result.lengths[example.example_id].total_tokens <= config.cutoff_tokens
    papers_rejected = {reject.paper_id for reject in result.rejects if "#" not in reject.paper_id}
    assert len(records) == len(result.examples) + len(papers_rejected)


def test_a_column_that_no_paper_has_is_refused():
    config = ReviewsConfig(papers="p", join={"metadata_column": "forum"})
    papers = [_paper("a", extra={"fora": "x"})]
    with pytest.raises(
        InputError, match=r"metadata_column=forum: no paper has this column; they have fora\."
    ):
        pair_up(papers, ReadReviews([_reviewed("a", _LONG)]), config)
    papers = [_paper("other", extra={"forum": "a"})]
    assert len(pair_up(papers, ReadReviews([_reviewed("a", _LONG)]), config).pairs) == 1


def test_points_of_no_length_are_refused():
    with pytest.raises(ValueError, match="min_point_words 20 is above max_point_words 10"):
        ReviewsConfig(papers="p", extractive={"min_point_words": 20, "max_point_words": 10})
