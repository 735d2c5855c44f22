"""Generic Markdown with and without front matter."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.papers.readers.markdown import parse_markdown
from baltoro.papers.schema import Block, Inline, Paper, ReadReject

WORD = re.compile(r"[^\W_]+")


def blocks(text: str) -> list[Block]:
    return list(parse_markdown(text).blocks())


def printed(text: str) -> list[tuple[str, str]]:
    return [(block.kind, block.printed()) for block in blocks(text)]


def words(paper: Paper) -> list[str]:
    parts = [paper.title]
    for section in paper.sections:
        parts += [section.number or "", section.heading]
        for block in section.blocks:
            parts += [block.label or "", block.printed(), *[cell for row in block.cells for cell in row]]
    return WORD.findall(" ".join(parts))


class TestFrontMatter:
    def test_known_keys_fill_fields_and_others_go_to_extra(self):
        paper = parse_markdown(
            "---\ntitle: Melt\nauthors:\n  - Ana Petrova\n  - {given: Li, family: Wei}\n  - name: Ed Moon\n"
            "date: 2021-05-03\ndoi: https://doi.org/10.1234/x.y\nlicense: CC-BY-4.0\n"
            "keywords: [melt, ridge]\n"
            "lang: en\njournal: J. Rocks\nforum: abc\nabstract: Melt rises.\nnested: {a: 1}\n---\n"
            "# Melt\n\nText.\n"
        )
        assert (paper.title, paper.authors) == ("Melt", ["Ana Petrova", "Li Wei", "Ed Moon"])
        assert (paper.year, paper.doi, paper.license) == (2021, "10.1234/x.y", "CC-BY-4.0")
        assert (paper.keywords, paper.language, paper.venue) == (["melt", "ridge"], "en", "J. Rocks")
        assert paper.abstract[0].printed() == "Melt rises."
        assert paper.extra == {"forum": "abc"}
        assert [s.heading for s in paper.sections] == [""]

    @pytest.mark.parametrize(
        ("line", "authors"),
        [("author: Ana Petrova and Li Wei", ["Ana Petrova", "Li Wei"]), ("authors: Ana, Li", ["Ana", "Li"])],
    )
    def test_authors_on_one_line(self, line, authors):
        assert parse_markdown(f"---\n{line}\n---\nText.").authors == authors

    @pytest.mark.parametrize("top", ["---\nnot: [closed\n---\n", "---\njust words\n---\n", "---\nno: end\n"])
    def test_what_is_no_front_matter_stays_text(self, top):
        paper = parse_markdown(top + "\nText.")
        assert set(WORD.findall(top)) <= set(words(paper))

    def test_without_license_the_license_is_unknown(self):
        assert parse_markdown("Text.").license == "unknown"


class TestAuthorLines:
    @pytest.mark.parametrize(
        "line",
        [
            "*Ana Petrova*, *Li Wei*",
            "Ana Petrova, Li Wei",
            "Ana Petrova and Li Wei",
            "By Ana Petrova & Li Wei",
            "**Authors:** Ana Petrova; Li Wei",
            "**Ana Petrova**¹, **Li Wei**²,³",
            "Ana Petrova<sup>1,2</sup>, Li Wei<sup>\\*</sup>",
            "Ana Petrova^1^, Li Wei^2,\\*^",
            "[Ana Petrova](https://orcid.example/1) · [Li Wei](https://orcid.example/2)",
            "Ana Petrova\\*, Li Wei†",
            "Ana Petrova  \nLi Wei",
            "Ana Petrova,\nLi Wei",
            "Ana\nPetrova, Li Wei",
            "Ana Petrova\n\nLi Wei",
        ],
    )
    def test_line_between_title_and_abstract_gives_the_authors(self, line):
        paper = parse_markdown(f"# Melt\n\n{line}\n\n## Abstract\n\nShort.\n\n## One\n\nA.")
        assert paper.authors == ["Ana Petrova", "Li Wei"]
        assert paper.extra == {}
        assert [s.heading for s in paper.sections] == ["One"]

    def test_addresses_before_the_abstract_are_front_matter(self):
        paper = parse_markdown(
            "# Melt\n\n*Ana Petrova*\n\n*Institute of Rocks*\n\n**Abstract.** Short.\n\n## One\n\nA."
        )
        assert (paper.authors, paper.extra) == (["Ana Petrova"], {"front_matter": "Institute of Rocks"})
        assert paper.abstract[0].printed() == "Short."
        assert [s.heading for s in paper.sections] == ["One"]

    @pytest.mark.parametrize(
        "line", ["*Ana Petrova*, *Li Wei*", "By Ana Petrova and Li Wei", "Ana Petrova¹, Li Wei²"]
    )
    def test_marked_line_gives_the_authors_of_a_text_without_abstract(self, line):
        paper = parse_markdown(f"# Melt\n\n{line}\n\nText.\n\n## One\n\nA.")
        assert paper.authors == ["Ana Petrova", "Li Wei"]
        assert [b.printed() for b in paper.blocks()] == ["Text.", "A."]

    @pytest.mark.parametrize(
        "line", ["Great Britain, New Zealand", "*Great Britain*", "A tool that melts rock.", "By the sea"]
    )
    def test_other_line_of_a_text_without_abstract_stays_text(self, line):
        paper = parse_markdown(f"# Melt\n\n{line}\n\n## Summary\n\nA.")
        assert paper.authors == []
        assert next(iter(paper.blocks())).printed() == line.strip("*")

    def test_names_that_the_front_matter_gives_are_not_repeated(self):
        paper = parse_markdown(
            "---\ntitle: Melt\nauthors: [Ana Petrova, Li Wei]\n---\n"
            "# Melt\n\nAna Petrova, Li Wei\n\n## Abstract\n\nShort."
        )
        assert (paper.authors, paper.sections) == (["Ana Petrova", "Li Wei"], [])


class TestBlocks:
    def test_first_heading_is_the_title_and_levels_count_from_the_next(self):
        paper = parse_markdown("# Melt\n\nLead.\n\n## 1 One\n\nA.\n\n### 1.1 Two\n\nB.\n\n## Three\n\nC.")
        assert paper.title == "Melt"
        assert [(s.level, s.number, s.heading) for s in paper.sections] == [
            (1, None, ""),
            (1, "1", "One"),
            (2, "1.1", "Two"),
            (1, None, "Three"),
        ]

    def test_underlined_headings(self):
        paper = parse_markdown("Melt\n====\n\nOne\n---\n\nText.\n\n---\n\nEnd.")
        assert (paper.title, [s.heading for s in paper.sections]) == ("Melt", ["One"])
        assert [b.printed() for b in paper.blocks()] == ["Text.", "End."]

    def test_abstract_heading_and_abstract_lead(self):
        assert (
            parse_markdown("# T\n\n## Abstract\n\nShort.\n\n## 1 A\n\nB.").abstract[0].printed() == "Short."
        )
        assert parse_markdown("# T\n\n**Abstract.** Short.\n\n## 1 A\n\nB.").abstract[0].printed() == "Short."

    def test_lists_are_one_block_per_item_with_their_marker(self):
        items = blocks("Intro:\n\n1. one\n   goes on\n2. two\n   - inner\n\n- [ ] open\n")
        assert [(b.kind, b.label, b.printed()) for b in items] == [
            ("paragraph", None, "Intro:"),
            ("list", "1.", "one goes on"),
            ("list", "2.", "two"),
            ("list", "-", "inner"),
            ("list", "-", "[ ] open"),
        ]

    def test_number_that_starts_a_wrapped_line_is_no_list(self):
        assert printed("It was seen in\n1986. It was seen in\n12) and then no more.") == [
            ("paragraph", "It was seen in 1986. It was seen in 12) and then no more.")
        ]

    def test_code_keeps_its_lines_and_its_hashes(self):
        assert printed("```python\n# not a heading\nx = 1\n```\n\n    indented\n      more\n\nText.") == [
            ("code", "# not a heading\nx = 1"),
            ("code", "indented\n  more"),
            ("paragraph", "Text."),
        ]

    def test_pipe_table_takes_the_caption_before_it(self):
        table = blocks("Table 2: Rocks.\n\n| a | b |\n|---|:-:|\n| 1 \\| 2 | **x** |\n\nText.")[0]
        assert (table.label, table.printed(), table.cells) == (
            "Table 2",
            "Rocks.",
            [["a", "b"], ["1 | 2", "x"]],
        )

    def test_html_table_becomes_cells(self):
        table = blocks(
            "<table><caption>Rocks</caption><tr><th colspan=2>a</th></tr>\n"
            "<tr><td>1<br>2</td><td>3</td></tr></table>"
        )[0]
        assert (table.cells, table.printed()) == ([["a", ""], ["1 2", "3"]], "Rocks")

    def test_display_formulas(self):
        text = "$$\nx=1 \\tag{2}\n$$\n\n\\[y=2\\]\n\n\\begin{equation}\nz=3\n\\end{equation}"
        assert [(b.kind, b.label, b.printed()) for b in blocks(text)] == [
            ("formula", "(2)", "x=1"),
            ("formula", None, "y=2"),
            ("formula", None, "z=3"),
        ]

    def test_escaped_brackets_are_no_formula(self):
        assert printed("\\[1\\] A. Smith said \\[2\\] so.") == [("paragraph", "[1] A. Smith said [2] so.")]

    def test_image_with_caption_is_a_figure_and_without_is_counted(self):
        paper = parse_markdown("![Figure 1: A ridge.](a.png)\n\n![](b.png)\n\nText.")
        figure = next(iter(paper.blocks()))
        assert (figure.kind, figure.label, figure.printed()) == ("figure", "Figure 1", "A ridge.")
        assert paper.extra == {"images": "1"}

    def test_quotes_keep_their_words(self):
        assert printed("> It rose\n> > at night.\n") == [("paragraph", "It rose at night.")]

    def test_footnotes_are_notes_with_their_mark(self):
        paper = parse_markdown("Melt[^a] rises.\n\n[^a]: See the\n    map.")
        text, note = paper.blocks()
        assert text.inlines[1] == Inline("note_ref", "a", "note-a")
        assert (note.kind, note.label, note.ref_id, note.printed()) == ("note", "a", "note-a", "See the map.")

    def test_comments_go_and_are_counted_but_not_in_code(self):
        paper = parse_markdown(
            "One<!-- gone -->two.\n\n```\n<!-- kept -->\n```\n\n<!-- over\nlines -->\n\nEnd <!-- open"
        )
        assert [b.printed() for b in paper.blocks()] == ["One two.", "<!-- kept -->", "End <!-- open"]
        assert paper.extra == {"comments_removed": "2"}

    def test_references_and_citations(self):
        paper = parse_markdown(
            "# T\n\n## 1 A\n\nSeen [1].\n\n## References\n\n"
            "1. Ann Lee. Slow rivers. 1999.\n2. Bo Fog. Rain. 2000."
        )
        assert [(r.title, r.year) for r in paper.references] == [("Slow rivers", 1999), ("Rain", 2000)]
        assert paper.sections[0].blocks[0].inlines[1] == Inline("citation", "[1]", "b1")


class TestInlines:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ('[the page](http://a.b/c_(d) "t") ends', "the page ends"),
            ("see <http://a.b/c_d> now", "see http://a.b/c_d now"),
            ("[text][id] and [id]\n\n[id]: http://a.b", "text and id"),
            ("a `code_*x*` b", "a code_*x* b"),
            ("**bold** and _it_ and snake_case_name and 2*3*4", "bold and it and snake_case_name and 2*3*4"),
            ("x<sup>2</sup> and CO<sub>2</sub><br>next", "x^2 and CO_2 next"),
            ("a < b > c &amp; &lt;d&gt; &copy;", "a < b > c & <d> ©"),
            ("melt\\_rises \\* now", "melt_rises * now"),
            ("it costs $5 or $10 now", "it costs $5 or $10 now"),
            ("hard  \nbreak\\\nhere", "hard break\\ here"),
            ("open **bold and [bracket and `tick", "open **bold and [bracket and `tick"),
        ],
    )
    def test_markup_comes_down_to_its_words(self, source, expected):
        assert blocks(source)[0].printed() == expected

    def test_dollar_and_backslash_formulas_are_spans(self):
        spans = blocks("For $x_1$ and \\(y\\), $$z$$.")[0].inlines
        assert [s.text for s in spans if s.kind == "formula"] == ["x_1", "y", "z"]
        assert {s.target for s in spans if s.kind == "formula"} == {"tex"}


class TestRejects:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [("", "empty_file"), (" \n", "empty_file"), ("<!-- x -->\n", "no_text"), ("---\n", "no_text")],
    )
    def test_nothing_to_read(self, text, reason):
        with pytest.raises(ReadReject) as caught:
            parse_markdown(text)
        assert caught.value.reason == reason


TOKENS = st.lists(st.from_regex(r"[a-z]{2,8}", fullmatch=True), min_size=1, max_size=10).filter(
    lambda w: w[0] != "abstract"
)
PARTS = st.lists(
    st.one_of(
        TOKENS.map(" ".join),
        TOKENS.map("\n".join),
        TOKENS.map(lambda w: "**" + " ".join(w) + "** ~ _" + " ".join(w) + "_"),
        TOKENS.map(lambda w: "## " + " ".join(w)),
        TOKENS.map(lambda w: "\n".join("- " + word for word in w)),
        TOKENS.map(lambda w: "> " + "\n> ".join(w)),
        TOKENS.map(lambda w: "~~~\n" + "\n".join(w) + "\n~~~"),
        TOKENS.map(lambda w: "| " + " | ".join(w) + " |\n|" + "---|" * len(w)),
        TOKENS.map(lambda w: "$$" + "+".join(w) + "$$"),
        TOKENS.map(lambda w: "[" + " ".join(w) + "](#)"),
    ),
    max_size=10,
)


@given(PARTS)
@settings(max_examples=150, deadline=None)
def test_generated_documents_keep_every_word_once_in_order(parts):
    text = "\n\n".join(["# The title", *parts, "The end."])
    assert words(parse_markdown(text)) == WORD.findall(text)


@given(st.text(st.sampled_from("ab *_`[]()<>!$\\#|-\n1.&;:~"), max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_markup_is_read_or_rejected_with_a_reason(text):
    try:
        paper = parse_markdown(text)
    except ReadReject as reject:
        reason = reject.reason
    else:
        reason = "no reject" if WORD.search(" ".join(words(paper))) or paper.sections else "nothing was read"
    assert reason in {"no reject", "empty_file", "no_text"}
