"""What each task takes from a paper."""

import pytest

from baltoro.instructions.signals.floats import caption_pairs
from baltoro.instructions.signals.references import citation_prediction, reference_resolution, related_paper
from baltoro.instructions.signals.sections import kind_of_heading, section_classification
from baltoro.instructions.signals.tables import table_content
from baltoro.instructions.signals.text import Flow, PaperTexts
from baltoro.instructions.signals.titles import abstract_from_full_text, keywords, one_sentence_summary
from baltoro.papers.schema import Block, Inline, Paper, Section

CAPTION = "Positions of the stakes on both glaciers in the year 2010."


def with_figures(*sentences, labels=("Figure 1", "Figure 2")):
    figures = [
        Block("figure", [Inline("text", f"{CAPTION} {label}")], label=label, ref_id=label) for label in labels
    ]
    blocks = [Block("paragraph", sentence) for sentence in sentences]
    return PaperTexts(Paper(sections=[Section(1, "", blocks=[*blocks, *figures])]))


def outcomes(texts, kind="figure"):
    return [
        candidate.reason or candidate.slots["output"].removeprefix(f"{CAPTION} ")
        for part, candidate in caption_pairs(texts, kind)
        if part == "caption_from_mention"
    ]


@pytest.mark.parametrize(
    ("sentence", "outcome"),
    [
        ("The stakes are drawn in Fig. 1 for both glaciers.", "Figure 1"),
        ("The stakes are drawn in figure 2b for both glaciers.", "Figure 2"),
        ("The stakes are drawn here (FIG 1A).", "Figure 1"),
        ("The stakes are drawn in Fig. 11 for both glaciers.", "beyond_count"),
        ("The stakes are drawn in Fig. S1 for both glaciers.", "beyond_count"),
        ("The stakes are drawn in Fig. 1 of an older report.", "other_paper"),
        ("The stakes (Fig. 1) of both glaciers were read twice.", "Figure 1"),
        ("The stakes are drawn in Fig. 1 and the rock in Fig. 2.", "several_floats"),
        ("The stakes are drawn in Figs. 1 and 2.", "several_floats"),
        ("The stakes are drawn in Fig. 1, 20 days after the first.", "Figure 1"),
        ("The stakes are drawn in Fig. 1A-D for both glaciers.", "Figure 1"),
        ("Unlike config 2 and CONFIG 2, all is drawn in FIGURE 1.", "Figure 1"),
    ],
)
def test_mentions_are_matched_by_keyword_and_number(sentence, outcome):
    assert outcomes(with_figures([Inline("text", f"Ice melts. {sentence} It ends.")])) == [outcome]


def test_a_link_of_the_source_goes_before_the_number():
    linked = [Inline("text", "See "), Inline("figure_ref", "Fig. 1", "Figure 2"), Inline("text", " for it.")]
    assert outcomes(with_figures(linked)) == ["Figure 2"]


def test_an_unlinked_reference_is_matched_by_its_number():
    loose = [Inline("text", "See Fig. "), Inline("figure_ref", "2", None), Inline("text", " for it.")]
    assert outcomes(with_figures(loose)) == ["Figure 2"]


def test_words_without_a_number_mention_nothing():
    assert outcomes(with_figures([Inline("text", "The figure of 12 percent is high; a table is 3 m.")])) == []


def test_a_sentence_on_a_figure_and_a_table_is_ambiguous():
    both = [
        Inline("text", "See Fig. 1 and "),
        Inline("table_ref", "Table 1", "t1"),
        Inline("text", " for all of it."),
    ]
    assert outcomes(with_figures(both)) == ["several_floats"]


def test_each_caption_asks_for_one_sentence_only():
    texts = with_figures([Inline("text", "First, Fig. 1 shows all. Then Fig. 1 shows more.")])
    asked = [
        c.slots["output"] for part, c in caption_pairs(texts, "figure") if part == "mention_from_caption"
    ]
    assert asked == ["First, Fig. 1 shows all."]


def citing(*parts):
    return [Flow([Inline("text", p) if isinstance(p, str) else Inline("citation", *p) for p in parts])]


TITLES = {"b1": "Melting below debris", "b2": "", "b3": "Ice in the sun"}


def test_a_mark_leads_to_the_title_of_its_entry():
    cited = citing("Ice melts ", ("[1,", "b1"), " ", ("3]", "b3"), ". More text.")
    found = [(c.filled()["mark"], c.slots["output"]) for c in reference_resolution(TITLES, cited)]
    assert found == [("[1]", "Melting below debris"), ("[3]", "Ice in the sun")]
    assert {c.slots["input"] for c in reference_resolution(TITLES, cited)} == {"Ice melts [1, 3]."}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (("Ice melts ", ("[2]", "b2"), "."), "no_title"),
        (("Ice melts ", ("[9]", None), "."), "unlinked"),
        (("Ice melts (", ("2010", "b1"), ") and (", ("2010", "b3"), ")."), "ambiguous_mark"),
    ],
)
def test_marks_that_lead_nowhere_are_refused(parts, reason):
    assert [c.reason for c in reference_resolution(TITLES, citing(*parts))] == [reason]


def test_how_a_mark_is_named_is_left_for_the_mark_that_is_drawn():
    (candidate,) = reference_resolution(TITLES, citing("It follows Ek et al. (", ("2010", "b1"), ")."))
    assert "mark" not in candidate.slots
    assert candidate.filled() == {**candidate.slots, "mark": "Ek et al. (2010)"}


def test_a_year_alone_is_named_with_its_authors():
    cited = citing("It follows Ek et al. (", ("2010", "b1"), ") in all.")
    assert [c.filled()["mark"] for c in reference_resolution(TITLES, cited)] == ["Ek et al. (2010)"]


STATEMENT = "Thin debris speeds up the melting of the ice below it in nearly all of the northern ranges"


def test_only_the_first_of_several_citations_is_predicted():
    cited = citing(STATEMENT, " [", ("1", "b1"), "; ", ("3", "b3"), "].")
    assert [c.slots for c in citation_prediction(TITLES, cited)] == [
        {"input": STATEMENT, "output": "Melting below debris"}
    ]


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("Ice melts", "too_short"),
        (f"{STATEMENT}. Later,", "too_short"),
        (f"{STATEMENT} as was shown by", "fragment"),
        (f"{STATEMENT} and seen by Ek et al.", "fragment"),
    ],
)
def test_a_citation_that_no_statement_stands_before_is_refused(before, reason):
    cited = citing(f"{before} (", ("Ek, 2010", "b1"), ").")
    assert [c.reason for c in citation_prediction(TITLES, cited)] == [reason]


@pytest.mark.parametrize("opening", [" (see", " (see also", " (e.g.", ", cf. [", "; (i.e. see", " [{"])
def test_what_opens_a_citation_is_no_part_of_the_statement(opening):
    (candidate,) = citation_prediction(TITLES, citing(f"{STATEMENT}{opening} ", ("2010", "b1"), ")."))
    assert candidate.slots["input"] == STATEMENT


def test_a_word_that_ends_like_an_opening_is_part_of_the_statement():
    (candidate,) = citation_prediction(TITLES, citing(f"{STATEMENT} we foresee ", ("[1]", "b1"), "."))
    assert candidate.reason == ""
    assert candidate.slots["input"] == f"{STATEMENT} we foresee"


def test_authors_in_the_bracket_are_part_of_the_citation():
    (candidate,) = citation_prediction(TITLES, citing(f"{STATEMENT} (Ek and Holm, ", ("2010", "b1"), ")."))
    assert candidate.slots["input"] == STATEMENT


def test_a_short_start_brings_the_sentence_before_along():
    cited = citing(f"{STATEMENT}. Thick debris slows it down ", ("[3]", "b3"), ".")
    (candidate,) = citation_prediction(TITLES, cited)
    assert candidate.slots["input"] == f"{STATEMENT}. Thick debris slows it down"


def test_the_most_cited_title_is_related_if_it_is_cited_three_times(paper):
    texts = PaperTexts(paper)
    for times, reason in ((2, "few_mentions"), (3, "")):
        cited = [flow for _ in range(times) for flow in citing("Ice ", ("[1]", "b1"), ("[2]", "b2"), ".")]
        (candidate,) = related_paper(texts, TITLES, cited)
        assert candidate.reason == reason
        assert candidate.slots["output"] == "Melting below debris"


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Introduction", "introduction"),
        ("1. INTRODUCTION", "introduction"),
        ("II. Related work", "related work"),
        ("Materials and Methods", "methods"),
        ("3.2 Experimental setup", "experiments"),
        ("Conclusions and future work", "conclusion"),
        ("Results and discussion", None),
        ("Methods of the ancients", None),
        ("", None),
    ],
)
def test_headings_mean_kinds(heading, kind):
    assert kind_of_heading(heading) == kind


def test_parts_of_methods_are_methods_and_parts_of_a_discussion_are_nothing():
    def section(level, heading):
        return Section(level, heading, blocks=[Block("paragraph", [Inline("text", heading)])])

    paper = Paper(
        sections=[
            section(1, "Methods"),
            section(2, "Study area"),
            section(2, "Results"),
            section(1, "Discussion"),
            section(2, "Limits"),
            section(1, "Appendix"),
            section(2, "Proofs"),
        ]
    )
    found = [(c.slots["input"], c.slots["output"]) for c in section_classification(PaperTexts(paper))]
    assert found == [
        ("Methods", "methods"),
        ("Study area", "methods"),
        ("Results", "results"),
        ("Discussion", "discussion"),
    ]


def table(*rows):
    block = Block(
        "table", [Inline("text", "Loss of mass.")], cells=[list(row) for row in rows], label="Table 1"
    )
    return PaperTexts(Paper(sections=[Section(1, "", blocks=[block])]))


def test_questions_about_cells_name_row_and_column():
    texts = table(("Glacier", "Summer", "Winter"), ("West", "1.2", "0.3"), ("East", "0.9", "0.1"))
    found = list(table_content(texts))
    assert len(found) == 2
    values = {("West", "Summer"): "1.2", ("West", "Winter"): "0.3"}
    values |= {("East", "Summer"): "0.9", ("East", "Winter"): "0.1"}
    for candidate in found:
        slots = candidate.slots
        assert values[slots["object"], slots["key"]] == slots["value"]
        assert slots["input"].startswith(
            "Table 1. Loss of mass.\n\n| Glacier | Summer | Winter |\n| - | - | - |"
        )


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("Glacier", "Summer", "Summer"), ("W", "1", "2"), ("E", "3", "4")], "unclear_header"),
        ([("Glacier", "", "Winter"), ("W", "1", "2"), ("E", "3", "4")], "unclear_header"),
        ([("Glacier", "Summer"), ("W", "1", "2"), ("E", "3")], "unclear_header"),
        ([("Glacier", r"\Delta m"), ("W", "1"), ("E", "3")], "unclear_header"),
        ([("Glacier", "Summer"), ("name", "metres"), ("W", "1"), ("E", "3")], "unclear_header"),
        ([("Glacier", "Summer"), ("West", "1"), ("West", "3")], "unclear_rows"),
        ([("Glacier", "Summer"), ("West", "1"), ("", "3"), ("East", "4"), ("", "5")], "unclear_rows"),
        ([("Glacier", "Summer"), ("West", "1")], "unclear_rows"),
    ],
)
def test_tables_without_clear_names_are_refused(rows, reason):
    assert [c.reason for c in table_content(table(*rows))] == [reason]


def test_keywords_lose_what_means_nothing_and_one_alone_is_too_few(paper):
    (candidate,) = keywords(PaperTexts(paper))
    assert candidate.slots["output"] == "glaciers, debris"
    assert candidate.slots["input"].startswith("Debris thickness controls")
    paper.keywords = ["glaciers", " "]
    assert [c.reason for c in keywords(PaperTexts(paper))] == ["too_short"]


def test_the_summary_is_the_sentence_with_the_strongest_cue(paper):
    (candidate,) = one_sentence_summary(PaperTexts(paper))
    assert candidate.slots["output"] == "Here we show that debris thickness explains most of the loss."
    paper.abstract = [Block("paragraph", [Inline("text", "Ice melts. Rock stays.")])]
    assert [c.reason for c in one_sentence_summary(PaperTexts(paper))] == ["no_cue"]


@pytest.mark.parametrize("characters", [600, 1000, 2000])
def test_the_full_text_is_cut_after_the_last_sentence_that_fits(paper, characters):
    (candidate,) = abstract_from_full_text(PaperTexts(paper), characters=characters)
    opening = candidate.slots["input"]
    assert characters - 200 < len(opening) <= characters
    assert opening.endswith((".", "snow."))
    assert opening.startswith("Introduction\nGlaciers of the northern range")


def test_summaries_among_the_sections_are_left_out(paper):
    block = Block("paragraph", [Inline("text", "In short: ice melts.")])
    paper.sections.insert(0, Section(1, "Author Summary", blocks=[block]))
    (candidate,) = abstract_from_full_text(PaperTexts(paper), characters=5000)
    assert "In short" not in candidate.slots["input"]
