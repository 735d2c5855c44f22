"""All rules together: order, account, idempotence, real papers."""

import copy
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.cleaning import RULES, CleanConfig, clean_paper, explain_cleaning
from baltoro.corpus.cleaning.empty import has_text
from baltoro.papers.reader import read
from baltoro.papers.schema import INLINE_KINDS, Block, Inline, Paper, Section

EVERYTHING = CleanConfig(formulas="repair_or_drop", back_matter={"data_availability": "drop"})
BY_READER = {"missing_pages", "repetitions"}


def test_blocks_without_text_are_removed_but_headings_that_name_subsections_stay(make_paper):
    paper = make_paper(sections={"Methods": [], "Drilling": [" \u200b", "x"], "": [Block("paragraph", [])]})
    assert clean_paper(paper, CleanConfig()) == {"control_characters": 1, "empty_blocks": 3}
    assert [(s.heading, len(s.blocks)) for s in paper.sections] == [("Methods", 0), ("Drilling", 1)]


def test_a_table_that_has_only_cells_is_kept(make_paper):
    paper = make_paper("x", Block("table", cells=[["a"], ["1"]]))
    assert clean_paper(paper, CleanConfig()) == {}


def test_an_explanation_shows_each_rule_and_leaves_the_paper_alone(make_paper):
    paper = make_paper("The inﬂow of geolog-\nical data. Write to ek@uio.no.")
    before = copy.deepcopy(paper)
    steps = explain_cleaning(paper, CleanConfig())
    assert paper == before
    assert [step.rule for step in steps] == list(RULES)
    found = {step.rule: step for step in steps if step.count}
    assert list(found) == ["ligatures", "hyphenation", "emails"]
    (before_text, after_text) = found["emails"].examples[0]
    assert "ek@uio.no" in before_text
    assert "[EMAIL]" in after_text
    assert {step.rule: step.count for step in steps if step.count} == clean_paper(paper, CleanConfig())


def test_examples_are_short_and_bounded(make_paper):
    paper = make_paper(*[f"{'a' * 5000} ek{n}@uio.no" for n in range(20)])
    step = next(s for s in explain_cleaning(paper, CleanConfig(), examples_per_rule=3) if s.rule == "emails")
    assert step.count == 20
    assert len(step.examples) == 3
    assert all(len(text) < 400 for pair in step.examples for text in pair)


def test_one_rule_uncovers_work_for_another(make_paper, printed):
    paper = make_paper(
        "It cracks.", "This is an open ac-", "cess article distributed under the Creative Commons licence."
    )
    clean_paper(paper, CleanConfig())
    assert printed(paper) == ["It cracks."]


def test_an_empty_paper_stays_empty():
    paper = Paper()
    assert clean_paper(paper, CleanConfig()) == {}
    assert paper == Paper()


# --- properties ------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "geolog-",
        "geolog- ical ",
        "geological ",
        "ical ",
        "well- known ",
        "low- and ",
        "\u00ad",
        "\u200b",
        "ﬁ",
        "Ã",
        "©",
        "Â°",
        "\x85",
        "\n",
    ]
    + [
        "ek@uio.no ",
        "ek [at] uio",
        " dot no ",
        "@",
        "Tel.: 0551 39-12345 ",
        "+49 551 39 12345 ",
        "[MISSING_PAGE_FAIL:3]",
        "[MISSING",
    ]
    + [
        "{",
        "}",
        "\\left(",
        "\\begin{a}",
        "\\end{a}",
        "\\",
        "12",
        "Page 3 of 4",
        "arXiv:2602.19930v1",
        "All rights reserved. ",
        "é",
        "e\u0301",
    ]
    + [
        "This is an open access article distributed under the Creative Commons licence. ",
        "© 2020 The Authors. ",
        "Funding: ",
        "grant ",
    ]
    + [
        "Acknowledgments: We thank Bo. ",
        "Ek, A. (2001). Ice. ",
        "The melt rises and the rock melts. " * 20,
        " ",
        "Å²",
        "-",
        ". ",
        "致谢：",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=6).map("".join)
INLINES = st.builds(Inline, st.sampled_from(INLINE_KINDS), TEXTS, st.sampled_from([None, "tex", "b1"]))
BLOCKS = st.builds(
    Block,
    st.sampled_from(
        ["paragraph", "paragraph", "paragraph", "formula", "figure", "table", "list", "note", "code"]
    ),
    st.lists(INLINES, max_size=3),
    st.lists(st.lists(TEXTS, max_size=2), max_size=2),
    st.none() | st.sampled_from(["Table 1", "Funding:", "a\u200b"]),
)
HEADINGS = (
    st.sampled_from(
        [
            "Results",
            "",
            "Acknowledgments",
            "References",
            "Acknowledg\u200bments",
            "Declarations",
            "Funding",
            "Publisher's note",
        ]
    )
    | TEXTS
)
SECTIONS = st.builds(
    Section, st.integers(1, 3), HEADINGS, st.none() | st.just("2.1"), st.lists(BLOCKS, max_size=5)
)
PAPERS = st.builds(
    Paper,
    format=st.sampled_from(["jats", "grobid_tei", "nougat", "markdown", "plain_text"]),
    title=TEXTS,
    authors=st.lists(TEXTS, max_size=2),
    abstract=st.lists(BLOCKS, max_size=2),
    sections=st.lists(SECTIONS, max_size=5),
)


@settings(max_examples=80)
@given(PAPERS)
def test_cleaning_a_cleaned_paper_changes_nothing(paper):
    clean_paper(paper, EVERYTHING)
    once = copy.deepcopy(paper)
    assert clean_paper(paper, EVERYTHING) == {}
    assert paper == once


@settings(max_examples=30)
@given(PAPERS)
def test_counts_are_positive_and_named_and_the_same_each_time(paper):
    again = copy.deepcopy(paper)
    counts = clean_paper(paper, EVERYTHING)
    assert all(count > 0 for count in counts.values())
    assert set(counts) <= set(RULES)
    assert clean_paper(again, EVERYTHING) == counts
    assert again == paper


@settings(max_examples=30)
@given(PAPERS)
def test_switched_off_rules_change_nothing(paper):
    off = CleanConfig(
        **{name: False for name, field in CleanConfig.model_fields.items() if field.annotation is bool},
        formulas="keep",
        back_matter=dict.fromkeys(type(EVERYTHING.back_matter).model_fields, "keep"),
        personal_data={"emails": False, "phones": False},
    )
    before = copy.deepcopy(paper)
    assert clean_paper(paper, off) == {}
    assert paper == before


# --- real papers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_papers(sample_data):
    folders = [
        "jats/pmc",
        "jats/climate",
        "jats/elife",
        "jats/plos",
        "jats/reviewed",
        "grobid_tei",
        "s2orc_json",
        "nougat/openreview",
        "replay",
    ]
    return [
        p
        for folder in folders
        for p in read(str(sample_data / folder), source=folder)
        if isinstance(p, Paper)
    ]


@pytest.fixture(scope="module")
def cleaned_papers(real_papers):
    papers = copy.deepcopy(real_papers)
    return papers, [clean_paper(paper, CleanConfig()) for paper in papers]


def _characters(papers):
    return sum(len(inline.text) for paper in papers for block in paper.blocks() for inline in block.inlines)


def test_real_papers_keep_their_science(real_papers, cleaned_papers):
    papers, _ = cleaned_papers
    assert 0.93 < _characters(papers) / _characters(real_papers) < 1
    for before, after in zip(real_papers, papers, strict=True):
        assert _characters([after]) > 0.6 * _characters([before]), before.paper_id
        for kind in ("formula", "figure", "code"):
            counts = [
                sum(b.kind == kind and has_text(b) for b in paper.blocks()) for paper in (before, after)
            ]
            assert counts[0] == counts[1], (before.paper_id, kind)
        citations = [
            sum(i.kind == "citation" for b in paper.blocks() for i in b.inlines) for paper in (before, after)
        ]
        assert citations[1] >= 0.9 * citations[0], before.paper_id


def test_real_papers_are_clean_after_one_go(cleaned_papers):
    papers, _ = cleaned_papers
    for paper in copy.deepcopy(papers):
        assert set(clean_paper(paper, CleanConfig())) <= BY_READER, paper.paper_id


def test_in_real_papers_only_addresses_are_masked(real_papers):
    masked = set()
    for paper in real_papers:
        for step in explain_cleaning(paper, CleanConfig(), examples_per_rule=1000):
            if step.rule in ("emails", "phones"):
                masked.update(
                    word.strip(".,;") for before, _ in step.examples for word in before.split() if "@" in word
                )
                assert step.rule == "emails" or not step.count, (paper.paper_id, step.examples)
    assert masked == {
        "customercare@plos.org",
        "onepress@plos.org",
        "plosone@plos.org",
        "marjan.alirezaie@flybits.com",
        "luc.de-raedt@orn.se",
        "pietro.totis@outlook.it",
        "luc.dereadt@kuleuven.be",
        "savitha.samabraham@adelaide.edu.au",
    }


def test_the_novel_is_left_as_it_is(real_papers, cleaned_papers):
    before = next(paper for paper in real_papers if paper.format == "plain_text")
    papers, counts = cleaned_papers
    position = next(index for index, paper in enumerate(papers) if paper.format == "plain_text")
    assert counts[position] == {}
    assert papers[position] == before


def test_cleaning_is_quick(real_papers):
    papers = copy.deepcopy(real_papers)
    megabytes = _characters(papers) / 1e6
    started = time.process_time()
    for paper in papers:
        clean_paper(paper, CleanConfig())
    seconds_per_megabyte = (time.process_time() - started) / megabytes
    # Five times the budget of 60 ms per MB: a busy machine must not fail, a quadratic rule must.
    assert seconds_per_megabyte < 0.3
