"""Nougat output: each quirk of real files, in wording of our own, and the real files themselves."""

import gc
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.papers.readers.nougat import parse_nougat
from baltoro.papers.repetition import cut_repetitions
from baltoro.papers.schema import Block, Inline, Paper, ReadReject

WORD = re.compile(r"[^\W_]+")


def body(paper: Paper) -> list[Block]:
    return list(paper.blocks())


def all_words(paper: Paper) -> list[str]:
    parts = [paper.title, *paper.authors, *paper.keywords, paper.extra.get("front_matter", "")]
    for block in paper.abstract:
        parts += [block.label or "", block.printed(), *[cell for row in block.cells for cell in row]]
    for section in paper.sections:
        parts += [section.number or "", section.heading]
        for block in section.blocks:
            parts += [block.label or "", block.printed(), *[cell for row in block.cells for cell in row]]
    return WORD.findall(" ".join(parts))


def paragraphs(text: str) -> list[str]:
    return [block.printed() for block in body(parse_nougat(text)) if block.kind == "paragraph"]


PAPER = """# Melt Below the Ridge

Ana Petrova\\({}^{1}\\), Li Wei\\({}^{2}\\)

\\({}^{1}\\) Institute of Rocks

petrova@rocks.example

###### Abstract

Melt rises. We ask why.

## 1 Introduction

Melt was seen early [1, 2] and late (Brown et al., 2020). Figure 1 and Table 1 show it.

### 1.1 Scope

We use \\(x^{2}\\) here.

\\[x=y+1\\tag{3}\\]

Figure 1: A ridge seen from [2].

\\begin{table}
\\begin{tabular}{l c} \\hline \\multicolumn{2}{c}{Rock \\& melt} \\\\
basalt & 4.5 \\(\\pm\\) 1\\% \\\\ \\end{tabular}
\\end{table}
Table 1: **Rocks** and their melt.

## References

* [1] A. Smith and B. Jones. Slow rivers of stone. _J. Rocks_, 12:3-4, 1999.
* [2] Doe, J., Roe, R. M., and Poe, E. A. Fast rivers of stone. _Geology_, 2001. doi: 10.1234/abc.5.
* Brown et al. (2020) Carl Brown, Dora Green, and Emil Gray. Mantle heat at sea. In _Proc. Sea_, 2020.

## Appendix A More data

* This bullet is no reference.
"""


class TestStructure:
    def test_title_authors_and_abstract_are_told_apart(self):
        paper = parse_nougat(PAPER)
        assert paper.title == "Melt Below the Ridge"
        assert paper.authors == ["Ana Petrova", "Li Wei"]
        assert [block.printed() for block in paper.abstract] == ["Melt rises. We ask why."]

    def test_affiliations_and_mails_are_front_matter_not_body(self):
        paper = parse_nougat(PAPER)
        assert paper.extra["front_matter"] == "{}^{1} Institute of Rocks\npetrova@rocks.example"
        assert [section.heading for section in paper.sections] == ["Introduction", "Scope", "More data"]

    def test_affiliations_set_under_the_abstract_are_front_matter_too(self):
        paper = parse_nougat(
            "# T\n\nAna Petrova\\({}^{1}\\)\n\n###### Abstract\n\nShort.\n\n"
            "\\({}^{1}\\)Institute of Rocks\n\nMore.\n\n## 1 A\n\nB."
        )
        assert paper.extra["front_matter"] == "{}^{1}Institute of Rocks"
        assert [block.printed() for block in paper.abstract] == ["Short.", "More."]

    @pytest.mark.parametrize(
        ("lines", "authors"),
        [
            (["Ilse Marchetti-Voss", "Gunnar Frostad"], ["Ilse Marchetti-Voss", "Gunnar Frostad"]),
            (
                ["Ana Petrova", "Li Wei", "Ed Moon", "Institute of Rocks"],
                ["Ana Petrova", "Li Wei", "Ed Moon"],
            ),
            (
                ["Ana Petrova", "Rock Research", "Equal contribution", "Ed Moon", "Rock Research"],
                ["Ana Petrova", "Ed Moon"],
            ),
            (["Ana Petrova", "ana@rocks.example", "Li Wei", "wei@rocks.example"], ["Ana Petrova", "Li Wei"]),
            (["Ana Petrova\nInstitute of Rocks\nana@rocks.example"], ["Ana Petrova"]),
            (["Ana Petrova, Li Wei (\\(\\))"], ["Ana Petrova", "Li Wei"]),
            (["**Ana Petrova¹**, **Li Wei**², PhD"], ["Ana Petrova", "Li Wei"]),
            (["Ana Petrova, Li Wei, Ed Moon, Suharto"], ["Ana Petrova", "Li Wei", "Ed Moon", "Suharto"]),
            (
                [", ".join(f"Ana{'ab'[n % 2] * n} Petrova\\({{}}^{{{n}}}\\)" for n in range(40))],
                [f"Ana{'ab'[n % 2] * n} Petrova" for n in range(40)],
            ),
            (["Rock Research Group", "Meta, Applied Science"], []),
        ],
    )
    def test_author_lists(self, lines, authors):
        paper = parse_nougat("# T\n\n" + "\n\n".join(lines) + "\n\n###### Abstract\n\nShort.\n\n## 1 A\n\nB.")
        assert paper.authors == authors
        assert [section.heading for section in paper.sections] == ["A"]

    def test_text_and_figures_before_the_abstract_stay_in_a_leading_section(self):
        prose = "This paper is long in the making and it owes much to many people on land."
        front = f"Ana Petrova\n\n{prose}\n\nFigure 1: A ridge."
        paper = parse_nougat(f"# T\n\n{front}\n\n###### Abstract\n\nShort.\n\n## 1 A\n\nB.")
        assert paper.authors == ["Ana Petrova"]
        assert [(b.kind, b.printed()) for b in paper.sections[0].blocks] == [
            ("paragraph", prose),
            ("figure", "A ridge."),
        ]

    def test_without_an_abstract_only_names_and_addresses_leave_the_body(self):
        paper = parse_nougat("# T\n\nAna Petrova\n\nInstitute of Rocks\n\nA short word.\n\n## 1 A\n\nB.")
        assert (paper.authors, paper.extra) == (["Ana Petrova"], {"front_matter": "Institute of Rocks"})
        assert [b.printed() for b in body(paper)] == ["A short word.", "B."]

    def test_section_numbers_are_split_from_headings_and_give_the_level(self):
        sections = parse_nougat(PAPER).sections
        assert [(s.number, s.heading, s.level) for s in sections] == [
            ("1", "Introduction", 1),
            ("1.1", "Scope", 2),
            ("Appendix A", "More data", 1),
        ]

    @pytest.mark.parametrize(
        ("line", "number", "heading", "level"),
        [
            ("#### 3.1.1acoustic_scattering", "3.1.1", "acoustic_scattering", 3),
            ("## 1. Introduction", "1", "Introduction", 1),
            ("###### 2.3 Wrong depth", "2.3", "Wrong depth", 2),
            ("### 3D Mesh Texturing", None, "3D Mesh Texturing", 2),
            ("## A.2 More", "A.2", "More", 2),
            ("## IV. Results", "IV", "Results", 1),
            ("###### Contents", None, "Contents", 2),
            ("## 2", "2", "", 1),
        ],
    )
    def test_heading_forms(self, line, number, heading, level):
        paper = parse_nougat(f"# A title\n\n###### Abstract\n\nShort.\n\n## 1 Before\n\n{line}\n\nSome text.")
        section = paper.sections[-1]
        assert (section.number, section.heading, section.level) == (number, heading, level)

    def test_bare_known_heading_without_marks_opens_a_section(self):
        paper = parse_nougat(
            "# T one two\n\n###### Abstract\n\nShort.\n\nIntroduction\n\nText.\n\nMelt model\n\nMore."
        )
        assert [s.heading for s in paper.sections] == ["Introduction"]
        assert [b.printed() for b in paper.sections[0].blocks] == ["Text.", "Melt model", "More."]

    def test_title_over_two_lines_is_joined(self):
        paper = parse_nougat(
            "# Learning the Melt of\n\nDeep Ocean Ridges\n\nAna Petrova\n\n###### Abstract\n\nShort."
        )
        assert paper.title == "Learning the Melt of Deep Ocean Ridges"
        assert paper.authors == ["Ana Petrova"]

    def test_missing_title_mark_takes_the_first_loose_line(self):
        paper = parse_nougat("Better Graphs by Branches\n\nAnonymous submission\n\n###### Abstract\n\nShort.")
        assert paper.title == "Better Graphs by Branches"
        assert paper.authors == []
        assert paper.extra == {"front_matter": "Anonymous submission"}

    def test_vertical_author_list_gives_names_and_the_rest_is_front_matter(self):
        text = (
            "# Streams\n\nRui Castro\n\nUniversity of Tides\n\nrui@tides.example &Fred Hall\n\n"
            "Meta, Applied Science\n\n"
            "Ed Moon\n\nOpen House\n\nmoon@open.example\n\n###### Abstract\n\nShort."
        )
        paper = parse_nougat(text)
        assert paper.authors == ["Rui Castro", "Fred Hall", "Ed Moon"]
        assert paper.extra["front_matter"].split("\n") == [
            "University of Tides",
            "rui@tides.example",
            "Meta, Applied Science",
            "Open House",
            "moon@open.example",
        ]

    def test_keywords_line_in_the_abstract_becomes_keywords(self):
        paper = parse_nougat(
            "# T\n\n###### Abstract\n\nShort.\n\n**Keywords:** melt, ridge; mantle.\n\n## 1 A\n\nB."
        )
        assert paper.keywords == ["melt", "ridge", "mantle"]
        assert len(paper.abstract) == 1

    def test_what_the_acm_template_sets_under_the_abstract_is_no_abstract(self):
        paper = parse_nougat(
            "# T\n\n###### Abstract.\n\nShort.\n\n**CCS Concepts -** Rocks \\(\\to\\) Melt.\n\n"
            "Melt models, ridges, Rock chains 2020 acmcopyright\n\n## 1 A\n\nB."
        )
        assert [block.printed() for block in paper.abstract] == ["Short."]
        assert paper.keywords == ["Melt models", "ridges", "Rock chains"]
        assert paper.extra["front_matter"] == "CCS Concepts - Rocks \\to Melt."

    def test_code_fence_becomes_code_even_where_it_closes_inside_a_line(self):
        paper = parse_nougat(
            "# T\n\n## 1 A\n\n```\nx_1=\\(y\\)\n\nreturn x ``` Then text.\n\n``` one line ```\n\nEnd."
        )
        assert [(b.kind, b.printed()) for b in body(paper)] == [
            ("code", "x_1=\\(y\\)\n\nreturn x "),
            ("paragraph", "Then text."),
            ("code", "one line"),
            ("paragraph", "End."),
        ]

    def test_inner_list_on_the_line_of_an_item_is_items_of_its_own(self):
        text = "1. **Any?** _If so, say._ * No. * Yes, for 2 * 3 rocks.\n2. A * B rocks."
        assert [(b.label, b.printed()) for b in body(parse_nougat(f"# T\n\n## 1 A\n\n{text}"))] == [
            ("1.", "Any? If so, say."),
            ("*", "No."),
            ("*", "Yes, for 2 * 3 rocks."),
            ("2.", "A * B rocks."),
        ]

    def test_unclosed_fence_does_not_swallow_the_paper(self):
        paper = parse_nougat("# T\n\n## 1 A\n\n```\ncode\n\nText one.\n\n## 2 B\n\nText two.")
        assert [s.heading for s in paper.sections] == ["A", "B"]
        assert [b.kind for b in body(paper)] == ["code", "paragraph", "paragraph"]

    def test_unclosed_table_does_not_swallow_the_paper(self):
        table = "\\begin{table}\n\\begin{tabular}{l c} a & b \\\\ c & d \\\\"
        paper = parse_nougat(
            f"# T\n\n## 1 A\n\n{table}\n\nText.\n\n"
            f"## 2 B\n\n{table}\\end{{tabular}}\n\\end{{table}}\nTable 2: Two."
        )
        assert [s.heading for s in paper.sections] == ["A", "B"]
        tables = [b for b in body(paper) if b.kind == "table"]
        assert [t.cells for t in tables] == [[["a", "b"], ["c", "d"]]] * 2
        assert [t.label for t in tables] == [None, "Table 2"]

    def test_table_preamble_that_runs_into_prose_is_a_paragraph(self):
        paper = parse_nougat(
            "# T\n\n## 1 A\n\n\\begin{table}\n"
            "\\begin{tabular}{l|c c to some extent we see melt.\n\n## 2 B\n\nC."
        )
        assert body(paper)[0].kind == "paragraph"
        assert body(paper)[0].printed().endswith("to some extent we see melt.")

    def test_windows_line_ends_read_the_same(self):
        assert parse_nougat(PAPER.replace("\n", "\r\n")) == parse_nougat(PAPER)


class TestFormulas:
    def test_display_formula_keeps_its_tag_as_label(self):
        formula = next(b for b in body(parse_nougat(PAPER)) if b.kind == "formula")
        assert formula.label == "(3)"
        assert formula.inlines == [Inline("formula", "x=y+1", "tex")]

    def test_number_beside_a_display_formula_is_its_label(self):
        formula = body(parse_nougat("# T\n\n## 1 A\n\n\\[a\n=b\\] (NE)\n\nText."))[0]
        assert (formula.label, formula.printed()) == ("(NE)", "a =b")

    def test_number_that_runs_into_the_next_sentence_is_the_label(self):
        blocks = body(parse_nougat("# T\n\n## 1 A\n\n\\[a=b\\] (A.3)where melt rises."))
        assert [(b.kind, b.label, b.printed()) for b in blocks] == [
            ("formula", "(A.3)", "a=b"),
            ("paragraph", None, "where melt rises."),
        ]

    def test_number_between_two_displays_is_the_first_ones_label(self):
        blocks = body(parse_nougat("# T\n\n## 1 A\n\n\\[a \\tag{21}\\] \\[=b\\] (22) \\[=c\\]"))
        assert [(b.kind, b.label, b.printed()) for b in blocks] == [
            ("formula", "(21)", "a"),
            ("formula", "(22)", "=b"),
            ("formula", None, "=c"),
        ]

    def test_display_that_a_lost_page_leaves_open_keeps_its_subscripts(self):
        text = "\\[\\min_{\\mu_{2}\\text{ in }X}\\!\\int_{0}^{1}\\|x\\| and _so_ on."
        assert paragraphs(f"# T\n\n## 1 A\n\n{text}") == [text.replace("_so_", "so")]

    def test_inline_formulas_are_spans(self):
        paper = parse_nougat("# T\n\n## 1 A\n\nFor \\(x_{1}\\) and $y$ but $5 and $10.")
        assert body(paper)[0].inlines == [
            Inline("text", "For "),
            Inline("formula", "x_{1}", "tex"),
            Inline("text", " and "),
            Inline("formula", "y", "tex"),
            Inline("text", " but $5 and $10."),
        ]

    def test_unbalanced_formula_mark_stays_text(self):
        assert paragraphs("# T\n\n## 1 A\n\nFrom \\(a to \\(b\\) it rises.") == ["From \\(a to b it rises."]

    def test_display_formula_inside_a_list_item_keeps_its_number(self):
        item = body(parse_nougat("# T\n\n## 1 A\n\n* The error: \\[e=1\\tag{7}\\] is small."))[0]
        assert item.printed() == "The error: e=1 (7) is small."

    def test_emphasis_marks_go_without_gluing_words(self):
        text = "**Algorithm 1**Means and _latent space_\\(z\\), n_steps, 2*3*4, **open, *half**."
        assert paragraphs(f"# T\n\n## 1 A\n\n{text}") == [
            "Algorithm 1 Means and latent space z, n_steps, 2*3*4, open, half."
        ]

    def test_links_keep_their_text_and_addresses_their_underscores(self):
        text = "See [http://a.example/b_c_](http://a.example/b_c_) and [the page](http://x.example)."
        assert paragraphs(f"# T\n\n## 1 A\n\n{text}") == ["See http://a.example/b_c_ and the page."]


class TestFloats:
    def test_paragraph_that_floats_cut_in_two_is_whole_before_them(self):
        first, second = (
            "Before we say how many kinks of the ridge are required",
            "to fit the melt, we look [1].",
        )
        floats = "Figure 1: A ridge.\n\nFootnote 3: See the map."
        paper = parse_nougat(f"# T\n\n## 1 A\n\n{first}\n\n{floats}\n\n{second}\n\nThe end.")
        assert [(b.kind, b.printed()) for b in body(paper)] == [
            ("paragraph", f"{first} {second}"),
            ("figure", "A ridge."),
            ("note", "See the map."),
            ("paragraph", "The end."),
        ]

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("Before we say how many kinks of the ridge are required.", "to fit the melt."),
            ("Before we say how many kinks of the ridge are required", "To fit the melt."),
            ("A short line", "goes on."),
        ],
    )
    def test_whole_paragraphs_around_a_float_stay_apart(self, first, second):
        paper = parse_nougat(f"# T\n\n## 1 A\n\n{first}\n\nFigure 1: A ridge.\n\n{second}")
        assert [b.printed() for b in body(paper)] == [first, "A ridge.", second]

    def test_table_cells_and_caption_that_follows(self):
        table = next(b for b in body(parse_nougat(PAPER)) if b.kind == "table")
        assert table.cells == [["Rock & melt", ""], ["basalt", "4.5 \\pm 1%"]]
        assert (table.label, table.ref_id, table.printed()) == ("Table 1", "table-1", "Rocks and their melt.")

    def test_figure_caption_is_a_figure_block(self):
        figure = next(b for b in body(parse_nougat(PAPER)) if b.kind == "figure")
        assert (figure.label, figure.ref_id, figure.printed()) == (
            "Figure 1",
            "figure-1",
            "A ridge seen from [2].",
        )

    def test_mentions_link_only_to_floats_that_exist(self):
        spans = parse_nougat(PAPER + "\n\nFigure 9 is lost.").sections[0].blocks[0].inlines
        assert [(s.kind, s.text, s.target) for s in spans if s.kind.endswith("_ref")] == [
            ("figure_ref", "Figure 1", "figure-1"),
            ("table_ref", "Table 1", "table-1"),
        ]

    @pytest.mark.parametrize(
        "sentence", ["Figure 4 shows melt.", "Table 2 below lists it.", "Figure 1(a) and 1(b) differ."]
    )
    def test_sentence_that_starts_with_a_mention_is_no_caption(self, sentence):
        assert paragraphs(f"# T\n\n## 1 A\n\n{sentence}") == [sentence]

    def test_table_note_beside_the_tabular_is_kept_with_the_caption(self):
        text = (
            "# T\n\n## 1 A\n\n\\begin{table}\n\\begin{tabular}{l c} a & b \\\\ \\end{tabular}\n\n"
            "* marks the best.\n\n\\end{table}\nTable 3: Means."
        )
        assert body(parse_nougat(text))[0].printed() == "Means. * marks the best."

    def test_repeated_label_keeps_reference_ids_unique(self):
        blocks = body(parse_nougat("# T\n\n## 1 A\n\nFigure 1: One.\n\nFigure 1: Two."))
        assert len({block.ref_id for block in blocks}) == 2

    def test_nested_tabular_in_a_cell_is_one_cell(self):
        inner = "\\begin{tabular}{c} two \\\\ lines \\end{tabular}"
        outer = f"\\begin{{tabular}}{{c c}} {inner} & b \\\\ \\end{{tabular}}"
        text = f"# T\n\n\\begin{{table}}\n{outer}\n\\end{{table}}"
        assert body(parse_nougat(text))[0].cells == [["two lines", "b"]]

    def test_footnote_is_a_note_and_footnotemark_noise_goes(self):
        paper = parse_nougat(
            "# T\n\n## 1 A\n\nText.\n\nFootnote 2: See the map.\n\nFootnote 1: footnotemark:"
        )
        note = body(paper)[1]
        assert (note.kind, note.label, note.printed()) == ("note", "2", "See the map.")
        assert len(body(paper)) == 2
        assert paper.extra["footnote_marks_removed"] == "1"

    @pytest.mark.parametrize(
        ("printed", "before", "after"),
        [
            ("We saw one layer.2 Then more", "We saw one layer.", " Then more"),
            ("We saw one layer2, then more", "We saw one layer", ", then more"),
            ("We saw one layer\\({}^{2}\\) then", "We saw one layer", " then"),
            ("It rose (as seen before).2", "It rose (as seen before).", ""),
        ],
    )
    def test_mark_glued_to_a_word_refers_to_the_note_that_follows(self, printed, before, after):
        paper = parse_nougat(f"# T\n\n## 1 A\n\n{printed}\n\nOn the next line.\n\nFootnote 2: See the map.")
        spans = body(paper)[0].inlines
        assert [(s.kind, s.text, s.target) for s in spans if s.kind != "text"] == [
            ("note_ref", "2", "note-2")
        ]
        assert (spans[0].text, "".join(s.text for s in spans[2:])) == (before, after)

    @pytest.mark.parametrize(
        "printed",
        ["We used H2 and CO2 here.", "Two layers.2 and two layers.2 again", "It is 1.2 or (2).", "At 2 km."],
    )
    def test_number_that_may_mean_something_else_is_no_mark(self, printed):
        paper = parse_nougat(f"# T\n\n## 1 A\n\n{printed}\n\nFootnote 2: See the map.")
        assert [s.kind for s in body(paper)[0].inlines] == ["text"]

    def test_formula_in_a_cell_keeps_its_subscripts_and_emphasis_goes(self):
        rows = "**Rock** & \\(H_{N}\\to a_b*c\\) & _melt_ & a\\_b \\\\ "
        table = body(
            parse_nougat(
                f"# T\n\n\\begin{{table}}\n\\begin{{tabular}}{{c c}} {rows}\\end{{tabular}}\n\\end{{table}}"
            )
        )
        assert table[0].cells == [["Rock", "H_{N}\\to a_b*c", "melt", "a_b"]]


class TestReferences:
    def test_entries_give_authors_title_year_and_doi(self):
        first, second, third = parse_nougat(PAPER).references
        assert (first.title, first.authors, first.year) == (
            "Slow rivers of stone",
            ["A. Smith", "B. Jones"],
            1999,
        )
        assert (second.title, second.year, second.doi) == ("Fast rivers of stone", 2001, "10.1234/abc.5")
        assert second.authors == ["J. Doe", "R. M. Roe", "E. A. Poe"]
        assert (third.title, third.year, len(third.authors)) == ("Mantle heat at sea", 2020, 3)

    @pytest.mark.parametrize(
        ("entry", "title", "authors", "year"),
        [
            (
                "J. Ahn, R. Verma, and W. Yin (2024)Models of tides: a view. In Proc. Sea. Cited by: SS1.",
                "Models of tides: a view",
                3,
                2024,
            ),
            (
                "Bay et al. (2023) Moran Bay, Gil Katz, and Lior Rok. 2023. Ridge nets. In _Proc. A_. 6-7.",
                "Ridge nets",
                3,
                2023,
            ),
            (
                "[5] B. P. Abbott et al. Waves from stars. _Phys. Rev._, 119(16):30-33, 2017.",
                "Waves from stars",
                1,
                2017,
            ),
            (
                "[6] Sea Lab. Tide tables. [https://sea.example/2021](https://sea.example/2021), 2019.",
                "Tide tables",
                1,
                2019,
            ),
            (
                "[7] Flower pictures of the coast and of its many cliffs",
                "Flower pictures of the coast and of its many cliffs",
                0,
                None,
            ),
            (
                "Cormen, T. H. and Rivest, R. L. _Introduction to Tides, Third Edition_. Sea, 2009.",
                "Introduction to Tides, Third Edition",
                2,
                2009,
            ),
            ("[1] Al Day, H Bo Fog, and Cy Roe. Tides. _Sea_, 1997.", "Tides", 3, 1997),
            ('[2] Al Day. "why melt?": A story. 1997.', '"why melt?": A story', 1, 1997),
            ('[2] Al Day. "Why melt" _Sea_, 1997.', "Why melt", 1, 1997),
            ("[44] White, D. et al. The bar problem. _Sea papers_, 186, 2008.", "The bar problem", 1, 2008),
            ("[9] Ann Day. Tides for all, 2023 (also printed at sea).", "Tides for all", 1, 2023),
            ("[9] Ann Day. Tides for all, November 2014.", "Tides for all", 1, 2014),
            (
                "Lee [1997] Lee, J. M. _Riemann Shapes_. Number 176 in Texts. Springer, 1997.",
                "Riemann Shapes",
                1,
                1997,
            ),
        ],
    )
    def test_entry_forms(self, entry, title, authors, year):
        reference = parse_nougat(f"# T\n\n## 1 A\n\nText.\n\n## References\n\n* {entry}").references[0]
        assert (reference.title, len(reference.authors), reference.year) == (title, authors, year)

    def test_numeric_citations_link_and_keep_their_printed_text(self):
        block = parse_nougat(PAPER).sections[0].blocks[0]
        assert block.printed().startswith("Melt was seen early [1, 2] and late (Brown et al., 2020).")
        assert [(s.text, s.target) for s in block.inlines if s.kind == "citation"] == [
            ("[1", "b1"),
            ("2]", "b2"),
            ("(Brown et al., 2020)", "b3"),
        ]

    def test_citation_of_no_entry_stays_text(self):
        paper = parse_nougat(PAPER.replace("[1, 2] and late", "[1, 9] and [0, 1] and late"))
        assert [s.text for s in paper.sections[0].blocks[0].inlines if s.kind == "citation"] == [
            "(Brown et al., 2020)"
        ]

    @pytest.mark.parametrize(
        ("labels", "cited", "linked"),
        [
            (["[1] ", "", "", "[4] "], "[2, 3]", ["b2", "b3"]),
            (["", "", "[3] ", "[4] "], "[1, 2]", ["b1", "b2"]),
            (["[1] ", "[2] ", "", ""], "[3], [2], [4]", ["b3", "b2", "b4"]),
            (["", "", "", ""], "[3], [2], [4]", ["b3", "b2", "b4"]),
            (["[1] ", "", "[4] ", "[5] "], "[2, 3]", []),
            (["", "", "[4] ", "[5] "], "[1, 2]", []),
            (["[1] ", "[2] ", "", ""], "[3], [2], [5]", ["b2"]),
            (["", "", "", ""], "[3], [2], [5]", []),
            (["", "", "", ""], "[4]", []),
        ],
    )
    def test_lost_numbers_are_those_of_the_place_where_it_is_certain(self, labels, cited, linked):
        names = ["Ada Brown", "Bo Green", "Cy Gray", "Di White"]
        entries = [
            f"* {label}{name}. Heat of {name}. 2020." for label, name in zip(labels, names, strict=True)
        ]
        text = f"# T\n\n## 1 A\n\nShown in {cited}.\n\n## References\n\n" + "\n".join(entries)
        spans = parse_nougat(text).sections[0].blocks[0].inlines
        assert [span.target for span in spans if span.kind == "citation"] == linked

    def test_broken_entry_keeps_its_place_but_is_no_reference(self):
        text = (
            "# T\n\n## 1 A\n\nShown in [3] and [2].\n\n## References\n\n"
            "* [1] Ada Brown. Heat. 2020.\n* 178, 2023.\n* Cy Gray. Cold. 2020.\n* [4] Di White. Ice. 2020."
        )
        paper = parse_nougat(text)
        assert [reference.title for reference in paper.references] == ["Heat", "Cold", "Ice"]
        spans = paper.sections[0].blocks[0].inlines
        assert [(s.text, s.target) for s in spans if s.kind == "citation"] == [("[3]", "b2")]

    def test_ambiguous_author_year_stays_text(self):
        twice = PAPER.replace(
            "## Appendix",
            "* Brown et al. (2020) Carl Brown, Fay Red, and Guy Blue. Other heat. 2020.\n\n## Appendix",
        )
        paper = parse_nougat(twice)
        assert all(s.text != "(Brown et al., 2020)" for s in paper.sections[0].blocks[0].inlines)

    def test_several_years_of_one_author_link_each(self):
        text = (
            "# T\n\n## 1 A\n\nShown before (Real et al., 2017, 2018; Poe, 2001).\n\n## References\n\n"
            "* Real et al. (2017) Eva Real, Al Day, and Bo Fog. First steps. 2017.\n"
            "* Real et al. (2018) Eva Real, Al Day, and Bo Fog. Next steps. 2018.\n"
            "* Poe (2001) Ed Poe. Rain. 2001."
        )
        spans = parse_nougat(text).sections[0].blocks[0].inlines
        assert [(s.text, s.target) for s in spans if s.kind == "citation"] == [
            ("Real et al., 2017", "b1"),
            ("2018", "b2"),
            ("Poe, 2001", "b3"),
        ]

    def test_sections_after_the_list_are_sections_again(self):
        last = parse_nougat(PAPER).sections[-1]
        assert [block.printed() for block in last.blocks] == ["This bullet is no reference."]
        assert len(parse_nougat(PAPER).references) == 3

    def test_text_after_the_list_without_a_heading_is_no_reference(self):
        text = PAPER.replace(
            "## Appendix A More data", "The supplement follows here and says more about everything."
        )
        paper = parse_nougat(text)
        assert len(paper.references) == 3
        assert [b.printed() for b in paper.sections[-1].blocks] == [
            "The supplement follows here and says more about everything.",
            "This bullet is no reference.",
        ]

    def test_second_list_with_the_same_numbers_links_nothing_ambiguous(self):
        again = PAPER + "\n\n## References\n\n* [1] Kay Else. Another one. 2003."
        paper = parse_nougat(again)
        assert len(paper.references) == 4
        assert len({reference.key for reference in paper.references}) == 4
        assert not any(
            s.kind == "citation" and "1" in s.text for s in paper.sections[0].blocks[0].inlines[:3]
        )


class TestFailureMarks:
    @pytest.mark.parametrize(
        "mark", ["[MISSING_PAGE_FAIL:8]", "[MISSING_PAGE_EMPTY:23]", "[MISSING_PAGE_POST]"]
    )
    @pytest.mark.parametrize("gap", ["{}", " {} ", "\n{}\n"])
    def test_mark_inside_a_sentence_goes_and_its_halves_stay_apart(self, mark, gap):
        paper = parse_nougat("# T\n\n## 1 A\n\nThe melt" + gap.format(mark) + "rises.")
        assert " ".join(b.printed() for b in body(paper)) == "The melt rises."
        assert paper.extra["missing_pages"] == "1"

    def test_marks_are_counted(self):
        paper = parse_nougat("# T\n\nA.\n\n[MISSING_PAGE_FAIL:1]\n\n## 1 B\n\nC.[MISSING_PAGE_EMPTY:2]")
        assert paper.extra["missing_pages"] == "2"

    def test_clean_paper_counts_nothing(self):
        assert set(parse_nougat(PAPER).extra) == {"front_matter"}

    @pytest.mark.parametrize("text", ["", " \n\n "])
    def test_empty_output_is_rejected(self, text):
        with pytest.raises(ReadReject, match="empty_file"):
            parse_nougat(text)

    def test_output_of_only_failed_pages_is_rejected(self):
        with pytest.raises(ReadReject) as caught:
            parse_nougat("[MISSING_PAGE_EMPTY:1]\n\n[MISSING_PAGE_POST]")
        assert caught.value.reason == "no_text"

    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from(["melt", "rises", "slowly", "below", "ridges"]), min_size=2, max_size=30),
        st.data(),
    )
    def test_marks_anywhere_leave_every_word_once_in_order(self, words, data):
        marks = data.draw(
            st.lists(
                st.sampled_from(["", " [MISSING_PAGE_FAIL:3]", "[MISSING_PAGE_POST] "]),
                min_size=len(words),
                max_size=len(words),
            )
        )
        text = "".join(word + (mark if mark else " ") for word, mark in zip(words, marks, strict=True))
        paper = parse_nougat("# T\n\n## 1 A\n\nStart " + text + " end.")
        assert WORD.findall(body(paper)[0].printed()) == ["Start", *words, "end"]
        assert int(paper.extra.get("missing_pages", 0)) == sum(map(bool, marks))


class TestLoops:
    def test_repeated_phrase_keeps_its_first_occurrence(self):
        paper = parse_nougat(
            "# T\n\n## 1 A\n\nThe ridge is high. "
            + "It was seen by the crew at sea. " * 200
            + "Then they left."
        )
        assert (
            body(paper)[0].printed() == "The ridge is high. It was seen by the crew at sea. Then they left."
        )
        assert paper.extra["repetition_characters_cut"] == str(199 * 32)

    def test_repeated_footnote_paragraphs_are_cut(self):
        paper = parse_nougat(
            "# T\n\n## 1 A\n\n" + "Footnote 1: Work done at the Sea Lab.\n\n" * 40 + "## 2 B\n\nText."
        )
        assert [b.kind for b in body(paper)] == ["note", "paragraph"]

    def test_loop_broken_off_by_the_end_of_the_page_goes_whole(self):
        paper = parse_nougat(
            "# T\n\n## 1 A\n\nThe list: " + "Ana Petrova, Li Wei, " * 90 + "Ana Pet\n\nNext page."
        )
        assert [b.printed() for b in body(paper)] == ["The list: Ana Petrova, Li Wei,", "Next page."]

    def test_loop_that_begins_inside_a_sentence_leaves_whole_sentences(self):
        loop = "The rate of the new town is 2 mm per year. "
        paper = parse_nougat(
            "# T\n\n## 1 A\n\nThe rate of the old town is 2 mm per year. "
            + loop * 24
            + "The rate of\n\n## 2 B\n\nC."
        )
        assert body(paper)[0].printed() == (
            "The rate of the old town is 2 mm per year. The rate of the new town is 2 mm per year."
        )

    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from(["Melt rises.", "Old rock melts.", "Why not?"]), max_size=3),
        st.lists(st.sampled_from(["old", "new", "rock", "melts", "rises", "sea"]), min_size=3, max_size=12),
    )
    def test_what_is_left_of_a_loop_of_sentences_ends_with_a_sentence(self, before, words):
        loop = "The " + " ".join(words) + ". "
        kept, _ = cut_repetitions(" ".join(["START.", *before, loop * 40]).rstrip())
        assert kept.rstrip().endswith(loop.strip())
        assert kept.count(loop.strip()) <= 2

    @pytest.mark.parametrize(
        "unit",
        [
            "Footnote {}: Work done while the author was at the Sea Lab.\n\n",
            "* [{}] A. Smith and B. Jones. Slow rivers of stone. _J. Rocks_, 12.3:4-5, 1999.\n",
            "We see layer {} above layer {}, which is 1.5 m thick. ",
        ],
    )
    def test_loop_that_counts_keeps_its_first_copy(self, unit):
        text = "START\n\n" + "".join(unit.replace("{}", str(count)) for count in range(7, 120)) + "END"
        kept, cut = cut_repetitions(text)
        assert kept == "START\n\n" + unit.replace("{}", "7") + "END"
        assert len(kept) + cut == len(text)

    def test_count_that_starts_again_keeps_one_copy_of_each_run(self):
        unit = "Footnote {}: Work done while the author was at the Sea Lab.\n\n"
        text = "".join(unit.format(count) for count in [*range(1, 40), *range(1, 40)])
        assert cut_repetitions(text)[0] == unit.format(1) * 2

    @pytest.mark.parametrize(
        "unit",
        [
            lambda n: f"Temperature {300 + 10 * n} K gave a pressure of {n} GPa in the cell.\n",
            lambda n: f"Layer {n} has a mean thickness of 1.{n} m in the whole basin.\n",
            lambda n: f"{n}. Sample number {n} has {n * 7 % 13} grains of zircon.\n",
            lambda n: (
                f"{n}. The rock {'abcdefghijklmnopqrstuvwxyz'[n % 26]} lies below the ridge of the sea.\n"
            ),
        ],
    )
    def test_numbered_lines_that_say_something_are_untouched(self, unit):
        text = "".join(unit(n) for n in range(60))
        assert cut_repetitions(text) == (text, 0)

    def test_three_numbered_copies_are_no_loop(self):
        text = "".join(
            f"Footnote {n}: {'Work done while the author was at the Sea Lab. ' * 3}\n" for n in (1, 2, 3)
        )
        assert cut_repetitions(text) == (text, 0)

    def test_table_with_repeated_rows_is_untouched(self):
        row = "same & same & 0.5 \\\\ "
        text = "# T\n\n\\begin{table}\n\\begin{tabular}{c c c} " + row * 100 + "\\end{tabular}\n\\end{table}"
        paper = parse_nougat(text)
        assert len(body(paper)[0].cells) == 100
        assert "repetition_characters_cut" not in paper.extra

    @pytest.mark.parametrize(
        "text", ["word " * 40, "a" * 900, ". " * 1000, "Yes, we did it. No, not so. " * 3]
    )
    def test_short_or_symbol_repetition_is_not_a_loop(self, text):
        assert cut_repetitions(text) == (text, 0)

    @settings(deadline=None)
    @given(st.text("abcde f", min_size=12, max_size=80), st.integers(30, 60), st.text("xyz ", max_size=50))
    def test_cut_text_and_count_add_up_and_edges_stay(self, phrase, copies, tail):
        text = "START " + phrase * copies + " END " + tail
        kept, cut = cut_repetitions(text)
        assert len(kept) + cut == len(text)
        assert kept.startswith("START")
        assert "END" in kept

    @pytest.mark.parametrize("separator", [" ", "\n"])
    def test_adversarial_repetition_costs_linear_time(self, separator):
        references = (
            "\n\n## References\n\n* [1] Carl Brown. Heat. 2020.\n* Brown (2020) Carl Brown. Heat. 2020."
        )
        units = [
            "melt",
            "\\(x",
            "[a](",
            "**b _c",
            "``x",
            "$x",
            "\\[ a",
            "\\[a\\]",
            "* a",
            "[1, 1",
            "(Brown, 2020",
            "<b",
        ]
        units += [
            "&amp",
            "```",
            "``` a ```",
            "\\begin{table}",
            "{",
            "[[",
            "]]",
            "<!--",
            "<!-- a -->",
            "Figure 1",
            "~~~",
        ]
        units += ["\\begin{equation}", "\\begin{tabular}{c} a \\end{tabular}", "|a|b|", "1."]

        def seconds(unit: str, size: int) -> float:
            text = "".join(f"{unit}{index}{separator}" for index in range(size // (len(unit) + 6)))
            start = time.process_time()
            parse_nougat("# T\n\n## 1 A\n\n" + text + references)
            return time.process_time() - start

        gc.disable()  # a full collection in one of the two runs would be measured as the reader's time
        try:
            for unit in units:
                small, large = seconds(unit, 10_000), seconds(unit, 80_000)
                assert large < 24 * max(small, 0.01), (
                    f"{unit!r}: {small:.3f} s for 10 kB, {large:.3f} s for 80 kB"
                )
        finally:
            gc.enable()

    def test_five_megabytes_on_one_line_are_read(self):
        sentence = "The melt of layer {} rises to \\(x_{{{}}}\\) [1]. "
        # Steps of three: a count would be a loop.
        text = "".join(sentence.format(3 * index, index) for index in range(110_000))
        assert len(text) > 5_000_000
        paper = parse_nougat("# T\n\n## 1 A\n\n" + text)
        assert sum(span.kind == "formula" for span in body(paper)[0].inlines) == 110_000


TOKENS = st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=12)
BLOCKS = st.lists(
    st.one_of(
        TOKENS.map(lambda w: " ".join(w) + "."),
        TOKENS.map(lambda w: "**" + " ".join(w) + "** plain _tail_."),
        TOKENS.map(lambda w: "## 1 Head " + " ".join(w)),
        TOKENS.map(lambda w: "\n".join("* item " + word for word in w)),
        TOKENS.map(lambda w: "\\[" + "+".join(w) + "\\]"),
        TOKENS.map(lambda w: "See \\(" + " ".join(w) + "\\) there."),
        TOKENS.map(lambda w: "```\n" + "\n".join(w) + "\n```"),
        TOKENS.map(
            lambda w: (
                "\\begin{table}\n\\begin{tabular}{c} " + " & ".join(w) + " \\\\ \\end{tabular}\n\\end{table}"
            )
        ),
        TOKENS.map(lambda w: "Figure 7: " + " ".join(w) + "."),
    ),
    min_size=1,
    max_size=12,
)


@given(BLOCKS)
@settings(max_examples=200, deadline=None)
def test_generated_documents_keep_every_word_once_in_order(blocks):
    text = "# The title\n\n###### Abstract\n\nShort words.\n\n## 2 Body\n\n" + "\n\n".join(blocks)
    scaffolding = re.compile(r"\\(?:begin|end)\{(?:table|tabular)\}(?:\{c\})?|###### Abstract")
    expected = WORD.findall(scaffolding.sub(" ", text).replace("_tail_", "tail"))
    assert all_words(parse_nougat(text)) == expected


def source_words(text: str) -> Counter[str]:
    """The words a real file must give: all but reference entries and what the reader removes on purpose."""
    text = re.sub(r"\\[()\[\]]", "", cut_repetitions(text)[0])
    kept, in_references = [], False
    for line in text.split("\n"):
        if line.startswith("#") or re.match(r"References$", line):
            in_references = bool(re.match(r"#*\s*(?:\d+\.?\s*)?References", line))
            if in_references:
                continue
        if not (in_references and re.match(r"(?:[*-]|\*\* \[\d+\]) ?", line)):
            kept.append(line)
    text = "\n".join(kept)
    for removed in (
        r"\[MISSING_PAGE[^\]]*\]",
        r"\]\([^\s()]*(?:\([^\s()]*\))?[^\s()]*\)",
        r"(?m)^Footnote \d*: footnotemark:.*$",
        r"(?m)^Footnote ",
        r"(?m)^(?:###### )?Abstract",
        r"\\(?:begin|end)\{(?:table|tabular)\}(?:\{(?:[^{}]|\{[^{}]*\})*\})?",
        r"\\(?:hline|cline\{[^}]*\}|multicolumn\{\d+\}\{[^{}]*\}|multirow\{\d+\}\{\*\}|tag)",
        r"\{\}\^\{[^{}]*\}",
    ):
        text = re.sub(removed, " ", text)
    return Counter(WORD.findall(text))


def test_real_files_keep_their_words(sample_data: Path):
    files = sorted((sample_data / "nougat").glob("openreview*/*.mmd"))
    assert len(files) >= 31
    lost = total = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        paper = parse_nougat(text)
        expected = source_words(text)
        missing = expected - Counter(all_words(paper))
        total += expected.total()
        lost += missing.total()
        assert missing.total() <= 0.005 * expected.total(), (file.name, missing.most_common(10))
        assert paper.title, file.name
        assert paper.abstract, file.name
        assert "MISSING_PAGE" not in str(paper)
        assert int(paper.extra.get("missing_pages", 0)) == text.count("[MISSING_PAGE")
    assert lost <= 0.001 * total


def test_real_reference_lists_are_read(sample_data: Path):
    files = sorted((sample_data / "nougat" / "openreview").glob("*.mmd"))
    papers = [parse_nougat(file.read_text(encoding="utf-8")) for file in files]
    references = [reference for paper in papers for reference in paper.references]
    assert all(paper.references for paper in papers)
    assert all(reference.title for reference in references)
    assert sum(bool(r.authors) and r.year is not None for r in references) >= 0.95 * len(references)
    for paper in papers:
        keys = paper.reference_by_key()
        assert len(keys) == len(paper.references)
        targets = [i.target for block in paper.blocks() for i in block.inlines if i.kind == "citation"]
        assert set(targets) <= set(keys)
    assert sum(any(i.kind == "citation" for b in p.blocks() for i in b.inlines) for p in papers) >= 20
