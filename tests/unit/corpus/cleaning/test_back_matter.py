"""Sections around the science."""

import pytest

from baltoro.corpus.cleaning import BackMatterConfig, CleanConfig, clean_paper
from baltoro.corpus.cleaning.back_matter import CATEGORIES, categories_of
from baltoro.papers.schema import Block, Inline, Section

BODY = "Basalt cools slowly under the ice sheet and cracks while it does so. " * 10
KEEP_ALL = CleanConfig(back_matter=BackMatterConfig(**dict.fromkeys(CATEGORIES, "keep")))


@pytest.mark.parametrize(
    ("heading", "categories"),
    [
        ("References", {"references"}),
        ("7 REFERENCES", {"references"}),
        ("参考文献", {"references"}),
        ("参 考 文 献", {"references"}),
        ("Literaturverzeichnis", {"references"}),
        ("Références bibliographiques", {"references"}),
        ("Список литературы", {"references"}),
        ("Acknowledgments", {"acknowledgements"}),
        ("VI. ACKNOWLEDGEMENTS:", {"acknowledgements"}),
        ("致 谢", {"acknowledgements"}),
        ("Danksagung", {"acknowledgements"}),
        ("Remerciements", {"acknowledgements"}),
        ("Agradecimientos", {"acknowledgements"}),
        ("Agradecimentos", {"acknowledgements"}),
        ("Благодарности", {"acknowledgements"}),
        ("基金项目", {"funding"}),
        ("Финансирование", {"funding"}),
        ("Acknowledgments and Disclosure of Funding", {"acknowledgements", "funding"}),
        ("Danksagung und Förderung", {"acknowledgements", "funding"}),
        ("致谢与基金项目", {"acknowledgements", "funding"}),
        ("Authors’ contributions", {"author_contributions"}),
        ("CRediT authorship contribution statement", {"author_contributions"}),
        ("作者贡献声明", {"author_contributions"}),
        ("Conflicts of Interest", {"competing_interests"}),
        ("利益冲突", {"competing_interests"}),
        ("Déclaration d’intérêts", {"competing_interests"}),
        ("Конфликт интересов", {"competing_interests"}),
        ("Availability of data and materials", {"data_availability"}),
        ("数据可用性声明", {"data_availability"}),
        ("NeurIPS Paper Checklist", {"checklists"}),
        ("Funding of polar research", set()),
        ("Data", set()),
        ("Reference frames", set()),
        ("Conflict", set()),
        ("Introduction", set()),
        ("文献综述", set()),
        ("", set()),
    ],
)
def test_a_heading_names_a_section_only_if_it_says_nothing_else(heading, categories):
    assert categories_of(heading) == categories


def test_statements_go_and_data_availability_stays_by_default(make_paper):
    paper = make_paper(
        sections={
            "Results": [BODY],
            "Acknowledgments": ["We thank Bo Holm."],
            "Data availability": ["Data are at example.org."],
            "Author contributions": ["A.E. wrote the text."],
            "Appendix": [BODY],
        }
    )
    counts = clean_paper(paper, CleanConfig())
    assert [section.heading for section in paper.sections] == ["Results", "Data availability", "Appendix"]
    assert counts == {"back_matter_acknowledgements": 1, "back_matter_author_contributions": 1}


def test_what_the_recipe_keeps_stays(make_paper):
    paper = make_paper(
        sections={"Results": [BODY], "Acknowledgments": ["We thank Bo."], "Funding": ["Grant 1."]}
    )
    assert clean_paper(paper, KEEP_ALL) == {}


def test_a_section_with_two_meanings_goes_only_if_both_do(make_paper):
    config = CleanConfig(back_matter=BackMatterConfig(funding="keep"))
    paper = make_paper(sections={"Results": [BODY], "Acknowledgments and funding": ["We thank Bo."]})
    assert clean_paper(paper, config) == {}


def test_sections_below_stay_and_emptied_headings_go(make_paper):
    paper = make_paper(sections={"Results": [BODY]})
    paper.sections += [
        Section(1, "Acknowledgments", blocks=[Block("paragraph", [Inline("text", "We thank Bo.")])]),
        Section(2, "Proof of Lemma 1", blocks=[Block("paragraph", [Inline("text", BODY)])]),
        Section(1, "Additional information"),
        Section(2, "Competing interests", blocks=[Block("paragraph", [Inline("text", "None declared.")])]),
        Section(1, "Plates"),
        Section(2, "Plate 1", blocks=[Block("paragraph", [Inline("text", "Rocks.")])]),
    ]
    clean_paper(paper, CleanConfig())
    assert [s.heading for s in paper.sections] == ["Results", "Proof of Lemma 1", "Plates", "Plate 1"]


def test_floats_of_a_dropped_section_move_to_the_one_before(make_paper, printed):
    figure = Block("figure", [Inline("text", "Melt paths.")], label="Figure 7")
    paper = make_paper(sections={"Results": [BODY], "Acknowledgments": ["We thank Bo.", figure]})
    clean_paper(paper, CleanConfig())
    assert printed(paper) == [BODY, "Melt paths."]


@pytest.mark.parametrize("format_name", ["nougat", "grobid_tei"])
def test_a_section_that_swallowed_what_follows_it_stays(make_paper, format_name):
    formula = Block("formula", [Inline("formula", "a=b", "tex")])
    for swallowed in ([BODY * 10], ["Proof.", formula]):
        paper = make_paper(
            sections={"Results": [BODY], "Acknowledgments": ["We thank Bo.", *swallowed]}, format=format_name
        )
        assert clean_paper(paper, CleanConfig()) == {}


def test_funding_as_the_subject_of_a_paper_stays(make_paper):
    text = "Money for polar stations doubled between 1990 and 2000. " * 40
    paper = make_paper(
        sections={"Introduction": [BODY], "Funding": [text], "Results": [BODY * 10]}, format="jats"
    )
    assert clean_paper(paper, CleanConfig()) == {}


def test_a_list_of_references_goes_and_a_section_about_references_stays(make_paper):
    entries = [f"[{n}] Ek, A. (200{n}). Ice and basalt. J. Geol., 12, 3–9." for n in range(5)]
    about = ["All references are cited, as in 2001 by Ek et al. They are ordered by name."]
    assert clean_paper(make_paper(sections={"A": [BODY], "References": entries}), CleanConfig()) == {
        "back_matter_references": 1
    }
    assert clean_paper(
        make_paper(sections={"A": [BODY], "References": [" ".join(entries)]}), CleanConfig()
    ) == {"back_matter_references": 1}
    assert clean_paper(make_paper(sections={"A": [BODY], "References": about}), CleanConfig()) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "Acknowledgements: This work was supported by the Ice Fund.",
        "Acknowledgments. We thank Bo Holm for the samples.",
        "Conflict of interest statement . The authors declare no conflict of interest.",
        "Funding: The author received a grant of the Ice Fund.",
        "作者贡献：作者共同完成了实验。",
        "Danksagung: Die Autoren danken Bo Holm.",
        "Финансирование: Работа финансировалась фондом.",
    ],
)
def test_run_in_statements_go(make_paper, statement):
    paper = make_paper(BODY, statement)
    assert len(clean_paper(paper, CleanConfig())) == 1
    assert [block.printed() for block in paper.blocks()] == [BODY]


@pytest.mark.parametrize(
    "paragraph",
    [
        "Authorship. We instantiate a directed authorship edge between an author node and a paper node.",
        "Funding. It has grown since 1990.",
        "Data availability: the data are at example.org, say the authors.",
        "Disclosure of results follows. The authors of the first study declare them.",
        "References: see Ek (2001).",
    ],
)
def test_paragraphs_that_only_look_like_statements_stay(make_paper, paragraph):
    paper = make_paper(BODY, paragraph)
    assert clean_paper(paper, CleanConfig()) == {}


def test_a_labelled_note_is_a_statement(make_paper):
    note = Block(
        "note", [Inline("text", "The author declares that none exists")], label="Competing interests:"
    )
    assert clean_paper(make_paper(BODY, note), CleanConfig()) == {"back_matter_competing_interests": 1}
