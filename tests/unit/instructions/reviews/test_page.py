"""A review as people see it: nothing on the page can run, nothing is left out."""

from dataclasses import replace

import pytest

from baltoro.instructions.reviews.aspects import ASPECTS, merged_review
from baltoro.instructions.reviews.page import review_page, review_text
from baltoro.instructions.reviews.service import PaperReview, ServicePrompt
from baltoro.instructions.reviews.triples import ReviewPrompt

EVIL = '<script>alert("x")</script> & \x1b[2J'


@pytest.fixture
def found():
    review = merged_review(
        {
            ASPECTS[0]: {"New task": r"It sets \(x > 0\)." + "\nAnd so on.", "": "No gist."},
            ASPECTS[2]: {"Small": "Two samples."},
        }
    )
    return PaperReview(
        paper_id="papers/p.xml",
        title="On melt",
        uri="s3://bucket/p.xml",
        model="reviewer-7b",
        prompt=ServicePrompt(ReviewPrompt("Review.", "[TITLE]\nOn melt", 9870, "content"), 15003),
        response="as it came",
        review=review,
        unparsed="Here it is.",
        finished=True,
        prompt_tokens=10_300,
        response_tokens=300,
        taught=True,
    )


def test_the_page_shows_title_aspects_points_and_what_the_model_read(found):
    page = review_page(found, reviewed_on="2026-01-31")
    for shown in (
        "<h1>On melt</h1>",
        "s3://bucket/p.xml",
        "reviewer-7b",
        "2026-01-31",
        "content cut to 9,870 of 15,003 tokens of the paper",
        "<b>New task</b>",
        r"It sets \(x &gt; 0\)." + "\nAnd so on.",
        "No gist.",
        "<pre>Here it is.</pre>",
    ):
        assert shown in page
    places = [page.index(f"<h2>{aspect}</h2>") for aspect in ASPECTS]
    assert places == sorted(places)
    assert page.count("Nothing said.") == 2
    assert "limit of tokens" not in page
    assert "Written by a machine on 2026-01-31: the language model reviewer-7b. It may be wrong" in page
    assert "of which nothing says" not in page
    untaught = review_page(replace(found, taught=False), reviewed_on="2026-01-31")
    assert "reviewer-7b, of which nothing says that it was tuned on reviews. It may be wrong" in untaught


def test_everything_on_the_page_is_escaped_and_nothing_is_fetched(found):
    review = merged_review({ASPECTS[0]: {EVIL: EVIL}})
    evil = replace(found, title=EVIL, uri=EVIL, model=EVIL, unparsed=EVIL, review=review)
    page = review_page(evil, reviewed_on="today")
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; \ufffd[2J") == 7
    assert "default-src 'none'" in page
    assert not any(word in page for word in ("http://", "https://", "src=", "href=", "onclick"))


def test_a_whole_paper_a_stopped_model_and_a_hopeless_answer_are_told(found):
    whole = replace(found, prompt=ServicePrompt(ReviewPrompt("", "", 950, ""), 950), finished=False, title="")
    page = review_page(whole, reviewed_on="today")
    assert "the whole paper, 950 tokens" in page
    assert "the review's end is missing" in page
    assert "<h1>papers/p.xml</h1>" in page
    nothing = replace(found, review=merged_review({}), unparsed="It is good.")
    page = review_page(nothing, reviewed_on="today")
    assert "holds no review" in page
    assert "<pre>It is good.</pre>" in page
    assert ASPECTS[0] not in page


def test_the_text_holds_the_same(found):
    assert review_text(found).split("\n") == [
        "On melt",
        "",
        "Significance and novelty",
        r"  - New task: It sets \(x > 0\).",
        "    And so on.",
        "  - No gist.",
        "",
        "Potential reasons for acceptance",
        "  (nothing)",
        "",
        "Potential reasons for rejection",
        "  - Small: Two samples.",
        "",
        "Suggestions for improvement",
        "  (nothing)",
        "",
        "Unparsed",
        "Here it is.",
    ]


def test_long_details_are_wrapped_and_formulas_stay_whole(found):
    formula = r"\(" + "x+" * 80 + r"x\)"
    detail = "word " * 40 + formula
    text = review_text(replace(found, review=merged_review({ASPECTS[0]: {"Long": detail}}), unparsed=""))
    lines = text.split("\n")
    assert any(formula in line for line in lines)
    assert all(len(line) <= 100 for line in lines if formula not in line)
    assert text.count("word") == 40


def test_an_answer_without_a_review_is_given_as_it_came_but_for_control_characters(found):
    assert review_text(replace(found, review=merged_review({}), response=EVIL)) == EVIL.replace(
        "\x1b", "\ufffd"
    )


@pytest.mark.parametrize(
    ("part", "shown", "sentence"),
    [
        ("", "", ""),
        ("content", "[CONTENT]\nIce.", "content cut to 10 of 99 tokens of the paper"),
        ("content", "", "content cut to 10 of 99 tokens of the paper, nothing of the content is left"),
        (
            "captions and content",
            "[CONTENT]\nIce.",
            "captions and content cut to 10 of 99 tokens of the paper",
        ),
    ],
)
def test_what_was_cut_is_said_in_a_sentence(found, part, shown, sentence):
    cut = replace(found, prompt=ServicePrompt(ReviewPrompt("", shown, 10, part), 99))
    assert cut.prompt.cut_sentence == sentence
    assert cut.as_dict()["cut"] == {
        "part": part or None,
        "shown_tokens": 10,
        "paper_tokens": 99,
        "content_left_out": bool(part) and not shown,
    }
