"""No real paper is lost: every sample paper passes the default rules, in every render style."""

import pytest

from baltoro.corpus.filters import FilterConfig, decide
from baltoro.papers.reader import read_object
from baltoro.papers.renderers import STYLES, render
from baltoro.papers.schema import Paper

ENGLISH = FilterConfig(language={"allow": ["en"]})


@pytest.fixture(scope="module")
def papers(sample_data):
    found = []
    for folder in ("grobid_tei", "jats", "s2orc_json", "nougat/openreview", "nougat/openreview_cleaned"):
        for path in sorted((sample_data / folder).rglob("*")):
            if path.is_file():
                key = str(path.relative_to(sample_data))
                records = read_object(path.read_bytes(), key=key, uri=key, etag="", source="s")
                found += [record for record in records if isinstance(record, Paper)]
    return found


def test_the_sample_holds_papers_of_four_formats(papers):
    assert len(papers) > 90
    assert {paper.format for paper in papers} == {"grobid_tei", "jats", "nougat", "s2orc"}


@pytest.fixture(scope="module")
def judged(papers, judge):
    """Every sample paper as its default style, k2, has it."""
    return {paper.paper_id: judge(render(paper, "k2"), ENGLISH, paper) for paper in papers}


def test_no_real_paper_is_rejected_and_all_are_english(judged):
    assert {key: one.verdict for key, one in judged.items() if one.verdict} == {}
    assert {one.facts.language for one in judged.values()} == {"en"}


def test_the_worst_real_paper_is_far_from_the_bounds(judged):
    def worst(score, choose):
        return choose(one.scores[score] for one in judged.values())

    assert worst("garble_fraction", max) < 0.008
    assert worst("stop_word_fraction", min) > 0.2
    assert worst("sentence_fraction", min) > 0.6
    assert worst("alphabetic_word_fraction", min) > 0.9
    assert worst("dup_5gram_fraction", max) < 0.34
    assert worst("reference_fraction", max) < 0.05


def test_the_bounds_of_web_pages_would_lose_some_of_them(judged):
    gopher = FilterConfig(repetition={f"max_dup_{n}gram_fraction": 0.2 - n / 100 for n in range(5, 11)})
    lost = [key for key, one in judged.items() if decide(one.scores, one.facts, gopher)]
    assert 3 <= len(lost) <= 8


@pytest.mark.parametrize("style", sorted({*STYLES} - {"k2"}))
def test_formula_heavy_papers_have_the_same_share_in_every_style(papers, judged, judge, style):
    heavy = [paper for paper in papers if judged[paper.paper_id].scores["formula_fraction"] > 0.2]
    assert len(heavy) >= 4
    for paper in heavy:
        one = judge(render(paper, style), ENGLISH, paper)
        assert one.verdict is None
        assert one.scores["formula_fraction"] == pytest.approx(
            judged[paper.paper_id].scores["formula_fraction"], abs=0.06
        )


def test_general_text_passes(sample_data, judge):
    path = sample_data / "replay" / "jane_austen_northangerabbey.txt"
    [book] = read_object(path.read_bytes(), key=path.name, uri="", etag="", source="s")
    assert judge(render(book, "plain"), ENGLISH, book).verdict is None
