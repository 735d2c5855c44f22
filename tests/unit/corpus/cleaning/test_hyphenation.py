"""Words that a line or page break cut."""

import pytest

from baltoro.corpus.cleaning import CleanConfig, clean_paper
from baltoro.papers.schema import Block, Inline


def cleaned(make_paper, *blocks, **fields):
    paper = make_paper(*blocks, **fields)
    counts = clean_paper(paper, CleanConfig())
    return [block.printed() for block in paper.blocks()], counts


@pytest.mark.parametrize(
    ("text", "right"),
    [
        # the paper's own words decide
        ("The geolog- ical map; geological maps.", "The geological map; geological maps."),
        ("A well- known fault; the well-known one.", "A well-known fault; the well-known one."),
        ("A well-\nknown fault; the well-known one.", "A well-known fault; the well-known one."),
        ("co- operate, cooperate, co-operate, co-operate", "co-operate, cooperate, co-operate, co-operate"),
        # without evidence: a word, unless both parts are words of the paper
        ("The geolog-\nical map.", "The geological map."),
        ("A multi-year class-\nincremental study of each class, in incremental steps.",)
        + ("A multi-year class-incremental study of each class, in incremental steps.",),
        ("be-\ncause of the cause", "because of the cause"),
        ("a state-of-the-\nart method", "a state-of-the-art method"),
        ("GEOLOG-\nICAL SURVEY", "GEOLOGICAL SURVEY"),
        ("inter- gov- ernmental", "intergovernmental"),
        # soft hyphens
        ("geolog\u00adical and geo\u00ad\nlogy", "geological and geology"),
        ("beliefs\u00adonce held; beliefs and once", "beliefs-once held; beliefs and once"),
    ],
)
def test_cut_words_are_rejoined(make_paper, text, right):
    assert cleaned(make_paper, text)[0] == [right]


@pytest.mark.parametrize(
    "text",
    [
        "low- and middle-income economies, low-income and middle-income ones",
        "pre- or post-transformation",
        "a forward- rather than backwards-looking framework",
        "Kurz- und Langzeitfolgen; court- et long-terme; corto- y largo-plazo",
        "two- to fourfold",
        "from 3- 5 km",
        "the N- Terminus",
        "rate - the slope",
    ],
)
def test_suspended_hyphens_dashes_and_numbers_stay(make_paper, text):
    assert cleaned(make_paper, text) == ([text], {})


def test_without_lines_in_the_format_evidence_is_needed(make_paper):
    assert cleaned(make_paper, "cn- crista nuchualis", format="jats") == (["cn- crista nuchualis"], {})
    text = "asthma- reference, asthma-reference"
    assert cleaned(make_paper, text, format="jats")[0] == ["asthma-reference, asthma-reference"]


def test_soft_hyphens_set_throughout_are_all_taken_out(make_paper):
    text = "some\u00adtimes ba\u00adsalt mag\u00adma melts ea\u00adsily; some times"
    assert cleaned(make_paper, text)[0] == ["sometimes basalt magma melts easily; some times"]


def test_a_word_cut_by_a_page_is_rejoined_over_figures_and_notes(make_paper):
    figure = Block("figure", [Inline("text", "Melt paths.")], label="Figure 1")
    note = Block("note", [Inline("text", "See text.")])
    last = Block("paragraph", [Inline("text", "ical map of "), Inline("citation", "[1]", "b1")])
    texts, counts = cleaned(make_paper, "They drew a geolog-", figure, note, last, "Next.")
    assert texts == ["They drew a geological map of [1]", "Melt paths.", "See text.", "Next."]
    assert counts == {"hyphenation": 1}


@pytest.mark.parametrize("following", ["Ical map", "and post-glacial", "3 km"])
def test_paragraphs_that_do_not_go_on_stay_apart(make_paper, following):
    assert cleaned(make_paper, "They drew a geolog-", following)[0] == ["They drew a geolog-", following]


def test_formulas_and_citations_are_not_touched(make_paper):
    block = Block(
        "paragraph", [Inline("text", "x- "), Inline("formula", "a- b", "tex"), Inline("text", " end")]
    )
    assert cleaned(make_paper, block)[0] == ["x- a- b end"]
