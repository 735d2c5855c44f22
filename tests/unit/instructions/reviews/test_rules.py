"""Which reviews count, and how they are written down for a merger."""

import pytest

from baltoro.core.config import decode
from baltoro.core.errors import ConfigError
from baltoro.instructions.reviews.config import ReviewsConfig, RulesConfig
from baltoro.instructions.reviews.filters import REASONS, drop_reason
from baltoro.instructions.reviews.records import Part, Review, ReviewedPaper
from baltoro.instructions.reviews.stringify import stringify, stringify_all


def _review(text="word " * 40, **fields):
    return Review("r1", [Part("", text.strip())], **fields)


@pytest.mark.parametrize(
    ("review", "rules", "reason"),
    [
        (_review(), {}, None),
        (_review("too short"), {}, "review_too_short"),
        (_review("word " * 2000), {}, "review_too_long"),
        (_review("x" * 90), {"min_words": None, "min_characters": 100}, "review_too_short"),
        (_review("x" * 110), {"min_words": None, "max_characters": 100}, "review_too_long"),
        (_review("a b\n\n" * 30), {"max_line_breaks": 20}, "review_line_breaks"),
        (_review("a b\n\n" * 30), {"max_line_breaks": 29}, None),
        (_review(round=1), {"rounds": "first"}, "review_later_round"),
        (_review(round=0), {"rounds": "first"}, None),
    ],
)
def test_bounds_drop_a_review_with_their_reason(review, rules, reason):
    dropped = drop_reason(review, ReviewedPaper("p"), RulesConfig(**rules))
    assert (dropped and dropped[0]) == reason
    assert reason is None or reason in REASONS


@pytest.mark.parametrize(
    ("review", "accepted", "dropped"),
    [
        (_review(rating=3, confidence=2), True, True),
        (_review(rating=8, confidence=2), False, True),
        (_review(rating=3, confidence=3), True, False),
        (_review(rating=8, confidence=1), True, False),
        (_review(rating=3, confidence=2), None, False),
        (_review(recommendation="reject", confidence=1), True, True),
        (_review(recommendation="major-revision", confidence=1), True, False),
        (_review(rating=3), True, False),
    ],
)
def test_only_unsure_reviews_against_the_decision_are_dropped(review, accepted, dropped):
    paper = ReviewedPaper("p", accepted=accepted)
    reason = drop_reason(review, paper, RulesConfig(drop_unsure_disagreement=True))
    assert (reason is not None) is dropped
    assert drop_reason(review, paper, RulesConfig()) is None


def test_a_review_as_text_has_scores_heads_and_parts():
    review = Review("r1", [Part("", "Fine."), Part("Strengths", "Clear.")], 7.0, 3.0)
    assert stringify(review) == "Rating: 7\nConfidence: 3\n\nFine.\n\nStrengths:\nClear."


def test_long_reviews_share_the_room_and_none_is_left_out():
    reviews = [
        _review("a b c"),
        _review("\n\n".join(["long " * 20] * 10)),
        _review("\n\n".join(["more " * 20] * 10)),
    ]
    text = stringify_all(reviews, count_tokens=lambda text: len(text.split()), max_tokens=150)
    assert len(text.split()) <= 150
    assert "a b c" in text
    assert text.count("long " * 20) == text.count("more " * 20) == 2
    assert stringify_all(reviews).count("more") == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merger": "endpoint"}, "endpoint.urls is empty"),
        ({"endpoint": {"urls": ["http://user:pass@host/v1"]}}, "must not carry a user"),
        ({"endpoint": {"urls": ["ftp://host"]}}, "give http://HOST"),
        (
            {"endpoint": {"urls": ["http://a/v1", "http://b/v1"], "api_key_environment": ["A", "B", "C"]}},
            "names 3 variables for 2 urls",
        ),
        ({"rules": {"min_words": 50, "max_words": 10}}, "min_words 50 is above max_words 10"),
        ({"cutoff_tokens": 1000}, "leaves fewer than 256 tokens"),
        ({"join": {"min_fractoin": 0.1}}, "min_fraction"),
    ],
)  # fmt: skip
def test_wrong_settings_say_what_is_allowed(settings, message):
    with pytest.raises(ConfigError, match=message):
        decode(ReviewsConfig, {"papers": "p", **settings}, "recipe")
