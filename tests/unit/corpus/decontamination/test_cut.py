"""What is cut is whole, what stays is well formed."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.decontamination.config import DecontaminateConfig
from baltoro.corpus.decontamination.cut import cut_spans, decontaminate, explain, spans_to_cut
from baltoro.corpus.decontamination.items import EvaluationItem
from baltoro.corpus.decontamination.matcher import Match

ITEM = EvaluationItem(
    "exam", "exam.json#7", "Which ice moves fastest?", "question", ("the upper ice", "the bed")
)
PAPER = (
    "# Ice\n\nIntro by Dr. Ek et al. in 2020. It is short.\n\n## Quiz\n\nWhich ice moves fastest?\n\n"
    "## Method\n\nWe walked. Then [START_FORMULA]v = \\frac{dx}{dt}[END_FORMULA] was found. We left."
    "\n\nThe end."
)


def cut(text, wanted, to="sentence"):
    start = text.index(wanted)
    return cut_spans(text, spans_to_cut(text, [(start, start + len(wanted))], to=to))


def match(text, wanted, item=ITEM, fraction=1.0):
    start = text.index(wanted)
    return Match(item, start, start + len(wanted), fraction, 1)


def test_a_sentence_goes_and_its_neighbours_stay():
    text = "One stays here. This one goes now. Three stays, too.\n\nAnother."
    assert cut(text, "one goes") == "One stays here. Three stays, too.\n\nAnother."


def test_a_paragraph_goes_and_one_blank_line_stays():
    text = "One.\n\nTwo has. Two sentences.\n\nThree."
    assert cut(text, "has", "paragraph") == "One.\n\nThree."


def test_an_abbreviation_ends_no_sentence():
    assert cut(PAPER, "2020") == PAPER.replace("Intro by Dr. Ek et al. in 2020. ", "")


def test_a_heading_that_loses_its_text_goes_too():
    left = cut(PAPER, "ice moves")
    assert "## Quiz" not in left
    assert left.startswith("# Ice\n\nIntro")
    assert "\n\n## Method\n\n" in left


def test_the_title_and_a_heading_with_subsections_stay():
    assert cut("# T\n\nGone.\n\n## S\n\nText.", "Gone") == "# T\n\n## S\n\nText."
    assert cut("# T\n\n## S\n\nGone.\n\n### U\n\nText.", "Gone") == "# T\n\n## S\n\n### U\n\nText."
    assert cut("# T\n\nText.\n\n## S\n\nGone.", "Gone") == "# T\n\nText."


@pytest.mark.parametrize(
    ("text", "wanted", "left"),
    [
        (PAPER, "dx", PAPER.replace("Then [START_FORMULA]v = \\frac{dx}{dt}[END_FORMULA] was found. ", "")),
        ("A.\n\n\\[x = 1.\n Y = 2\\]\n\nB.", "Y = 2", "A.\n\nB."),
        ("A is $a. B$ here. C goes on. D.", "a.", "C goes on. D."),
        ("A.\n\n```\ncode. More\n\nmore code\n```\n\nB.", "more", "A.\n\nB."),
        ("A.\n\n[START_TABLE]\nCaption. Two\n\n|a|b|\n|-|-|\n|Q. R|d|\n[END_TABLE]\n\nB.", "Q", "A.\n\nB."),
        ("A.\n\n|a|b|\n|-|-|\n|Q. R|d|\n\nB.", "Q", "A.\n\nB."),
        (
            "We follow [START_REF]Ice. Its flow[END_REF] here. Next one.",
            "flow",
            "Next one.",
        ),
        ("A.\n\n- One item.\n- Two goes.\n- Three.\n\nB.", "Two", "A.\n\n- One item.\n- Three.\n\nB."),
        ("雪线上升。冰川后退得很快。湖泊扩大。", "后退", "雪线上升。湖泊扩大。"),
    ],
)
def test_formulas_tables_code_citations_and_items_are_cut_whole(text, wanted, left):
    assert re.sub(r"\s", "", cut(text, wanted)) == re.sub(r"\s", "", left)


def test_dropping_names_set_item_and_excerpt():
    text = f"{PAPER} Which ice moves faster?"
    other = EvaluationItem("other", "o.txt#1", "ice", "line")
    found = [match(text, "Which ice moves fastest?"), match(text, "Which ice moves faster?", other, 0.9)]
    result = decontaminate(text, found, DecontaminateConfig())
    assert (result.text, result.done) == (None, "dropped")
    assert result.detail == "exam exam.json#7: 'Which ice moves fastest?', and 1 more"
    assert result.items_by_set == {"exam": 1, "other": 1}


def test_an_item_found_twice_counts_once():
    text = "Which ice moves fastest? Yes. " * 2
    found = [match(text, "Which ice"), Match(ITEM, 30, 40, 1.0)]
    assert decontaminate(text, found, DecontaminateConfig(action="report")).items_by_set == {"exam": 1}


def test_reporting_leaves_the_text_as_it_is():
    result = decontaminate(PAPER, [match(PAPER, "Which ice")], DecontaminateConfig(action="report"))
    assert (result.text, result.done) == (PAPER, "reported")
    assert "exam.json#7" in result.detail


def test_cutting_shows_what_went():
    result = decontaminate(PAPER, [match(PAPER, "ice moves")], DecontaminateConfig(action="cut"))
    assert result.done == "cut"
    assert result.removed == ("Which ice moves fastest?",)
    assert "fastest" not in result.text


def test_a_document_that_would_lose_too_much_is_dropped_with_its_share():
    text = "Short. Which ice moves fastest of all the ice there is?"
    config = DecontaminateConfig(action="cut", cut_to="sentence", max_cut_fraction=0.5)
    result = decontaminate(text, [match(text, "Which ice")], config)
    assert (result.text, result.done) == (None, "dropped")
    assert result.detail.endswith("cutting would take 87% of the document")


def test_a_clean_document_passes_untouched():
    result = decontaminate(PAPER, [], DecontaminateConfig())
    assert (result.text, result.done, result.detail, result.items_by_set) == (PAPER, "clean", "", {})


def test_a_match_is_explained_with_its_surroundings():
    (line,) = explain(PAPER, [match(PAPER, "Which ice moves fastest?")])
    assert line.startswith(
        "exam exam.json#7, question: 100% of its words, 1 of 2 options, characters 62 to 86: "
    )
    assert "## Quiz >>>Which ice moves fastest?<<< ## Method We walked." in line


PIECES = st.sampled_from(
    [
        "Ice moves.",
        " ",
        "\n\n",
        "\n",
        "[START_FORMULA]a. B[END_FORMULA]",
        "\\(x. Y\\)",
        "[START_REF]T. U[END_REF]",
        "## Head\n\n",
        "\n\n[START_TABLE]\nCap. X\n\n|a|\n|-|\n|b|\n[END_TABLE]\n\n",
        "冰川。",
        "e.g. ",
        "- item\n",
    ]
)


@settings(max_examples=200)
@given(st.lists(PIECES, min_size=1, max_size=25).map("".join), st.data())
def test_any_cut_removes_the_span_and_leaves_pairs_and_paragraphs_whole(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    to = data.draw(st.sampled_from(["sentence", "paragraph"]))
    spans = spans_to_cut(text, [(start, end)], to=to)
    assert any(first <= start and last >= end for first, last in spans)
    left = cut_spans(text, spans)
    for opening, closing in (
        ("[START_FORMULA]", "[END_FORMULA]"),
        ("[START_REF]", "[END_REF]"),
        ("\\(", "\\)"),
    ):
        assert left.count(opening) == left.count(closing)
    assert left.count("[START_TABLE]") == left.count("[END_TABLE]")
    squeezed = iter(re.sub(r"\s", "", text))
    assert all(character in squeezed for character in re.sub(r"\s", "", left))
