"""The merger that copies: the right aspect, near-equal points once, nothing invented."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.instructions.reviews.aspects import ASPECTS
from baltoro.instructions.reviews.config import ExtractiveConfig
from baltoro.instructions.reviews.cues import stance_of
from baltoro.instructions.reviews.extractive import extract
from baltoro.instructions.reviews.heads import kind_of, split_heads
from baltoro.instructions.reviews.points import gist_of, pieces, sentences
from baltoro.instructions.reviews.readers import read_reviews
from baltoro.instructions.reviews.records import Part, Review

NOVELTY, ACCEPT, REJECT, SUGGEST = ASPECTS


def _review(text, key="r1"):
    return Review(key, split_heads(text))


def test_heads_of_any_spelling_lead_to_their_aspect():
    text = (
        "SUMMARY:\nThe paper introduces a new task for melt.\nIt has ten pages of maps.\n\n### Strengths\n"
        "1. The proofs are complete and short.\n2) The idea is novel for this field.\n**Cons:** The "
        "data are from one "
        "volcano alone.\nLIMITATIONS:\nOnly the upper mantle is modelled.\nQuestions for the authors\n"
        "- How is porosity measured here?\nRating: 7"
    )
    review = extract([_review(text)]).review
    assert list(review.of(NOVELTY).values()) == [
        "The paper introduces a new task for melt. It has ten pages of maps.",
        "The idea is novel for this field.",
    ]
    assert list(review.of(ACCEPT).values()) == ["The proofs are complete and short."]
    assert list(review.of(REJECT).values()) == [
        "The data are from one volcano alone.", "Only the upper mantle is modelled."
    ]  # fmt: skip
    assert list(review.of(SUGGEST).values()) == ["How is porosity measured here?"]


def test_free_text_is_sorted_by_what_its_sentences_do():
    text = (
        "The manuscript presents the first map of melt. The figures are well designed. However, the "
        "error bars are "
        "missing. Please add a table of sites. The volcano is in Iceland."
    )
    extraction = extract([_review(text)])
    assert [list(extraction.review.of(aspect).values()) for aspect in ASPECTS] == [
        ["The manuscript presents the first map of melt."],
        ["The figures are well designed."],
        ["However, the error bars are missing."],
        ["Please add a table of sites."],
    ]
    assert extraction.unassigned == 1


def test_points_of_several_referees_stand_once_and_first():
    first = "Weaknesses:\n- The text is far too long.\n- The comparison lacks recent baseline methods."
    second = "Weaknesses:\n- Comparison lacks recent baseline methods!\n- No error bars are given."
    extraction = extract([_review(first, "r1"), _review(second, "r2")])
    assert list(extraction.review.of(REJECT).values()) == [
        "The comparison lacks recent baseline methods.",
        "The text is far too long.",
        "No error bars are given.",
    ]
    assert (extraction.points, extraction.joined) == (4, 1)


def test_an_aspect_is_bounded_and_the_rest_counted():
    names = ("alpha", "beta", "gamma", "delta", "epsilon")
    text = "Weaknesses:\n" + "\n".join(f"- Claim {name} has no proof at all." for name in names)
    extraction = extract([_review(text)], ExtractiveConfig(max_points=2, same_point_overlap=1.0))
    assert list(extraction.review.of(REJECT)) == [
        "Claim alpha has no proof",
        "Claim beta has no proof",
    ]
    assert (extraction.points, extraction.joined, extraction.beyond_limit) == (5, 0, 3)


def test_a_long_point_is_cut_after_a_sentence():
    text = "Weaknesses:\n- " + " ".join(f"Sentence number {number} is weak here." for number in range(9))
    (detail,) = extract([_review(text)], ExtractiveConfig(max_point_words=20)).review.of(REJECT).values()
    assert (
        detail
        == "Sentence number 0 is weak here. Sentence number 1 is weak here. Sentence number 2 is weak here."
    )


def test_equal_gists_are_numbered():
    text = "Strengths:\n- Clarity: the proofs are easy to follow.\n- Clarity: every figure has a legend."
    assert list(extract([_review(text)]).review.of(ACCEPT)) == ["Clarity", "Clarity (2)"]


_VOCABULARY = """the paper is novel however lacks data please add e.g. Fig. 3 (see [2]). First: good! Why?
\\(x_1. A\\) - Strengths: Weaknesses: **Minor:** 1. W2: n/a None."""
_WORDS = st.lists(
    st.sampled_from([*_VOCABULARY.split(), "\n", "\n\n", "\n- ", "\nStrengths:\n", "\nCons: "]), max_size=60
)


@settings(max_examples=80)
@given(_WORDS)
def test_every_detail_is_a_span_of_a_review(words):
    review = _review(" ".join(words))
    whole = [" ".join(part.text.split()) for part in review.parts]
    for points in extract([review], ExtractiveConfig(min_point_words=1)).review.points:
        for gist, detail in points.items():
            assert any(detail in text for text in whole)
            assert gist


def test_every_detail_of_the_real_reviews_is_a_span_and_most_have_all_four_aspects(sample_data):
    full = 0
    papers = read_reviews(str(sample_data / "nougat/aggregated_reviews")).papers
    for paper in papers:
        whole = " ".join(" ".join(part.text.split()) for part in paper.reviews[0].parts)
        review = extract(paper.reviews).review
        assert all(detail in whole for points in review.points for detail in points.values())
        full += all(review.points)
    assert len(papers) == 27
    assert full >= 25


def test_sentences_end_neither_at_abbreviations_nor_in_formulas():
    text = "See Fig. 3 of Smith et al. They use \\(a. B\\) here. It works, e.g. in caves. (It does.) Good?"
    assert sentences(text) == [
        "See Fig. 3 of Smith et al. They use \\(a. B\\) here.", "It works, e.g. in caves.", "(It "
        "does.)", "Good?"
    ]  # fmt: skip


def test_list_items_lose_their_marks_and_empty_answers_go():
    text = "- one thing\n  goes on\n2) two things\nW1: third\n\n---\nNone\n\nYou write:\n\n**Bold.**"
    assert [(piece.text, piece.is_item) for piece in pieces(text)] == [
        ("one thing goes on", True), ("two things", True), ("third", True), ("Bold.", False)
    ]  # fmt: skip


def test_a_gist_is_a_label_or_a_lead_that_ends_well():
    assert gist_of("Novelty: The task is new to me.") == ("Novelty", "The task is new to me.")
    assert gist_of("The use of \\(a + b\\) in the proof of the theorem is odd.")[0].startswith(
        "Use of \\(a + b\\) in"
    )
    assert (
        gist_of("I would suggest that the authors report the variance of each run.")[0]
        == "Report the variance of each run"
    )


def test_a_word_that_is_no_head_stays_text():
    assert split_heads("Dear authors:\nthe writing\nis fine") == [
        Part("", "Dear authors:\nthe writing\nis fine")
    ]
    assert (kind_of("Strengths (required)"), kind_of("Pros and cons"), kind_of("Iceland")) == (
        "strengths",
        "mixed",
        None,
    )


def test_praise_of_a_study_of_a_lack_is_praise():
    assert stance_of("This convincing study shows a lack of turnover.") == "praise"
    assert stance_of("The study is convincing but the text lacks detail.") == "objection"
    assert stance_of("I cannot recommend acceptance, as the proof is wrong.") == "objection"


@pytest.mark.parametrize(
    ("text", "gist"),
    [
        (
            "The dataset encompasses a wide range of time-varying dynamical systems, from waves to plasmas.",
            "Dataset encompasses a wide range of time-varying dynamical systems",
        ),
        (
            "The rationale behind the choice of the relative ordering among the many stages that follow is "
            "thin.",
            "Rationale behind the choice of the relative ordering",
        ),
        ("Additionally, the paper is well organised.", "Paper is well organised"),
        ("Lastly, including a map would help.", "Including a map would help"),
        (
            "There is no comparison with the methods that were published in the last three years elsewhere.",
            "No comparison with the methods that were published",
        ),
    ],
)
def test_a_gist_ends_with_a_phrase_and_begins_with_the_matter(text, gist):
    assert gist_of(text) == (gist, text)
