"""Docling: the document tree as JSON, and the Markdown export."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.papers.readers.docling import parse_docling_json, parse_docling_markdown
from baltoro.papers.schema import Inline, ReadReject


def text(label: str, words: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "text": words, "orig": words, "children": [], "content_layer": "body", **more}


def ref(pointer: str) -> dict[str, str]:
    return {"$ref": pointer}


def document(texts: list[dict[str, Any]], order: list[str] | None = None, **more: Any) -> dict[str, Any]:
    pointers = [f"#/texts/{index}" for index in range(len(texts))] if order is None else order
    return {
        "schema_name": "DoclingDocument",
        "version": "1.8.0",
        "body": {"self_ref": "#/body", "children": [ref(pointer) for pointer in pointers]},
        "texts": texts,
        **more,
    }


def printed(doc: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    return [(b.kind, b.label, b.printed()) for b in parse_docling_json(doc).blocks()]


class TestJson:
    def test_reading_order_is_the_tree_not_the_array(self):
        doc = document(
            [
                text("text", "Second."),
                text("title", "Melt"),
                text("section_header", "1 One", level=1),
                text("text", "First."),
            ],
            ["#/texts/1", "#/texts/2", "#/texts/3", "#/texts/0"],
        )
        paper = parse_docling_json(doc)
        assert paper.title == "Melt"
        assert [(s.level, s.number, s.heading) for s in paper.sections] == [(1, "1", "One")]
        assert [b.printed() for b in paper.blocks()] == ["First.", "Second."]

    def test_section_header_levels_nest(self):
        doc = document(
            [
                text("title", "T"),
                text("section_header", "One", level=1),
                text("text", "A."),
                text("section_header", "Two", level=2),
                text("text", "B."),
            ]
        )
        assert [(s.level, s.heading) for s in parse_docling_json(doc).sections] == [(1, "One"), (2, "Two")]

    def test_first_section_header_is_the_title_where_none_is_labelled(self):
        doc = document(
            [
                text("section_header", "Melt below", level=1),
                text("section_header", "Abstract", level=1),
                text("text", "Short."),
            ]
        )
        paper = parse_docling_json(doc)
        assert (paper.title, paper.abstract[0].printed()) == ("Melt below", "Short.")

    def test_page_headers_and_footers_are_dropped_and_counted(self):
        doc = document(
            [
                text("page_header", "J. Rocks 3", content_layer="furniture"),
                text("text", "Body."),
                text("page_footer", "page 2"),
            ]
        )
        assert printed(doc) == [("paragraph", None, "Body.")]
        assert parse_docling_json(doc).extra == {"furniture_dropped": "2"}

    def test_lists_nest_through_groups_and_each_node_comes_once(self):
        texts = [
            text("list_item", "one", marker="1.", enumerated=True, children=[ref("#/groups/1")]),
            text("list_item", "inner", marker="-"),
            text("list_item", "two", marker=""),
        ]
        groups = [
            {"label": "list", "children": [ref("#/texts/0"), ref("#/texts/2")]},
            {"label": "list", "children": [ref("#/texts/1")]},
        ]
        assert printed(document(texts, ["#/groups/0"], groups=groups)) == [
            ("list", "1.", "one"),
            ("list", "-", "inner"),
            ("list", "•", "two"),
        ]

    def test_decoded_formula_is_tex_and_undecoded_one_is_its_glyphs(self):
        doc = document(
            [text("formula", "x^2=y"), {**text("formula", ""), "orig": "x 2 = y"}, text("text", "End.")]
        )
        paper = parse_docling_json(doc)
        assert [b.inlines for b in paper.blocks()][:2] == [
            [Inline("formula", "x^2=y", "tex")],
            [Inline("formula", "x 2 = y", None)],
        ]
        assert paper.extra == {"formulas_not_decoded": "1"}

    @pytest.mark.parametrize(
        ("decoded", "original", "formula", "number"),
        [
            ("x ^ { 2 } = y \\quad ( 3 )", "x 2 = y (3)", "x ^ { 2 } = y", "(3)"),
            ("x ^ { 2 } = y , \\qquad ( A.1 )", "x2=y,(A.1)", "x ^ { 2 } = y ,", "(A.1)"),
            ("x ^ { 2 } = y ( 3 )", "x 2 = y (3)", "x ^ { 2 } = y", "(3)"),
            ("x = y \\tag { 4 }", "x = y (4)", "x = y", "(4)"),
            ("x = y \\tag{4}", "x = y", "x = y", "(4)"),
            ("x = y", "x = y (2.1a)", "x = y", "(2.1a)"),
            ("x = f ( 3 )", "x = f(3)", "x = f ( 3 )", None),
            ("x = f(3)", "x = f (3)", "x = f(3)", "(3)"),
            ("", "x = y (12)", "x = y", "(12)"),
            ("", "(12)", "(12)", None),
        ],
    )
    def test_number_beside_a_formula_is_its_label(self, decoded, original, formula, number):
        block = next(parse_docling_json(document([{**text("formula", decoded), "orig": original}])).blocks())
        assert (block.printed(), block.label) == (formula, number)

    def test_inline_group_is_one_paragraph_with_a_formula_span(self):
        texts = [
            text("text", "It grows with"),
            text("formula", "a+b"),
            text("text", ", as shown (see"),
            text("text", "below)."),
        ]
        groups = [{"label": "inline", "children": [ref(f"#/texts/{i}") for i in range(4)]}]
        (block,) = parse_docling_json(document(texts, ["#/groups/0"], groups=groups)).blocks()
        assert block.printed() == "It grows with a+b, as shown (see below)."
        assert [span.kind for span in block.inlines] == ["text", "formula", "text"]

    @pytest.mark.parametrize("listed", [True, False])
    def test_captions_go_to_their_table_or_picture_once(self, listed):
        texts = [
            text("caption", "Table 1: Rocks."),
            text("caption", "Figure 2. A ridge."),
            text("text", "See Table 1."),
        ]
        order = ["#/texts/0", "#/tables/0", "#/texts/1", "#/pictures/0", "#/texts/2"]
        doc = document(
            texts,
            order if listed else ["#/tables/0", "#/pictures/0", "#/texts/2"],
            tables=[
                {
                    "label": "table",
                    "captions": [ref("#/texts/0")],
                    "data": {"grid": [[{"text": "a"}, {"text": "b"}]]},
                }
            ],
            pictures=[{"label": "picture", "captions": [ref("#/texts/1")], "children": [ref("#/texts/1")]}],
        )
        paper = parse_docling_json(doc)
        table, figure, mention = paper.blocks()
        assert (table.label, table.printed(), table.cells) == ("Table 1", "Rocks.", [["a", "b"]])
        assert (figure.kind, figure.label, figure.printed()) == ("figure", "Figure 2", "A ridge.")
        assert mention.inlines[1] == Inline("table_ref", "Table 1", "table-1")
        assert paper.extra == {}

    def test_spanning_cells_stand_once(self):
        wide = {"text": "wide", "start_row_offset_idx": 0, "start_col_offset_idx": 0, "col_span": 2}
        one = {"text": "1", "start_row_offset_idx": 1, "start_col_offset_idx": 0}
        two = {"text": "2", "start_row_offset_idx": 1, "start_col_offset_idx": 1}
        for data in (
            {"grid": [[wide, wide], [one, two]]},
            {"table_cells": [wide, one, two], "num_rows": 2, "num_cols": 2},
        ):
            doc = document(
                [text("text", "A.")], ["#/texts/0", "#/tables/0"], tables=[{"label": "table", "data": data}]
            )
            assert list(parse_docling_json(doc).blocks())[1].cells == [["wide", ""], ["1", "2"]]

    def test_words_inside_pictures_are_dropped_and_counted(self):
        doc = document(
            [text("text", "axis label"), text("text", "Body.")],
            ["#/pictures/0", "#/texts/1"],
            pictures=[{"label": "picture", "children": [ref("#/texts/0")]}],
        )
        assert printed(doc) == [("paragraph", None, "Body.")]
        assert parse_docling_json(doc).extra == {"picture_texts_dropped": "1", "images": "1"}

    def test_footnotes_and_code(self):
        assert printed(
            document([text("text", "A."), text("footnote", "3 See the map."), text("code", "x = 1\n  y")])
        ) == [
            ("paragraph", None, "A."),
            ("note", "3", "See the map."),
            ("code", None, "x = 1\n  y"),
        ]

    def test_text_is_not_taken_for_markup(self):
        assert printed(document([text("text", "a *b* <c> $5 & $6 \\(")])) == [
            ("paragraph", None, "a *b* <c> $5 & $6 \\(")
        ]

    def test_dangling_and_cyclic_pointers_are_skipped_and_counted(self):
        groups = [
            {
                "label": "section",
                "children": [ref("#/texts/0"), ref("#/groups/0"), ref("#/texts/99"), {"x": 1}],
            }
        ]
        paper = parse_docling_json(
            document([text("text", "Body.")], ["#/groups/0", "#/texts/0"], groups=groups)
        )
        assert [b.printed() for b in paper.blocks()] == ["Body."]
        assert paper.extra == {"dangling_references": "2", "repeated_references": "2"}

    def test_nodes_that_nothing_points_to_come_last_and_are_counted(self):
        paper = parse_docling_json(document([text("text", "Lost."), text("text", "Body.")], ["#/texts/1"]))
        assert [b.printed() for b in paper.blocks()] == ["Body.", "Lost."]
        assert paper.extra == {"unreferenced_nodes": "1"}

    def test_deep_nesting_does_not_exhaust_the_stack(self):
        groups = [{"label": "section", "children": [ref(f"#/groups/{i + 1}")]} for i in range(50_000)]
        groups.append({"label": "section", "children": [ref("#/texts/0")]})
        assert printed(document([text("text", "Deep.")], ["#/groups/0"], groups=groups)) == [
            ("paragraph", None, "Deep.")
        ]

    @pytest.mark.parametrize(
        ("doc", "reason", "detail"),
        [
            ({"title": "x"}, "unknown_format", "DoclingDocument"),
            (document([]), "no_text", "no title"),
            ({**document([]), "texts": {"a": 1}}, "malformed_json", "texts is not a list but dict"),
            ({**document([]), "body": [1]}, "malformed_json", "body is not an object but list"),
        ],
    )
    def test_what_cannot_be_read_is_rejected_by_name(self, doc, reason, detail):
        with pytest.raises(ReadReject, match=detail) as caught:
            parse_docling_json(doc)
        assert caught.value.reason == reason

    @settings(deadline=None)
    @given(
        st.permutations(range(12)), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 14)), max_size=20)
    )
    def test_every_node_comes_exactly_once_whatever_the_pointers(self, order, edges):
        texts = [text("text", f"word{index}") for index in range(12)]
        groups: list[dict[str, Any]] = [{"label": "section", "children": []} for _ in range(6)]
        for group, target in edges:
            groups[group]["children"].append(
                ref(f"#/texts/{target}" if target % 2 else f"#/groups/{target // 2}")
            )
        doc = document(texts, [f"#/texts/{index}" for index in order[:6]] + ["#/groups/0"], groups=groups)
        found = [b.printed() for b in parse_docling_json(json.loads(json.dumps(doc))).blocks()]
        assert sorted(found) == sorted(t["text"] for t in texts)
        assert found[:6] == [f"word{index}" for index in order[:6]]


class TestMarkdown:
    def test_placeholders_go_and_are_counted(self):
        paper = parse_docling_markdown(
            "## Melt below\n\nAna Petrova\n\n## Abstract\n\nShort.\n\n## 1 One\n\nSo that\n\n"
            "<!-- formula-not-decoded -->\n\nholds.\n\nFigure 1: A ridge.\n\n<!-- image -->\n\n"
            "<!-- page break -->\n"
        )
        assert (paper.title, paper.authors, paper.abstract[0].printed()) == (
            "Melt below",
            ["Ana Petrova"],
            "Short.",
        )
        assert [b.printed() for b in paper.blocks()] == ["So that", "holds.", "A ridge."]
        assert paper.extra == {"formulas_not_decoded": "1", "images": "1", "comments_removed": "1"}

    def test_placeholder_inside_a_line_leaves_words_apart(self):
        paper = parse_docling_markdown("# T\n\nwhere<!-- formula-not-decoded -->holds.")
        assert next(iter(paper.blocks())).printed() == "where holds."

    def test_escapes_and_entities_are_undone(self):
        paper = parse_docling_markdown(
            "# T\n\nMelt\\_rises &lt;fast&gt; &amp; 3 &lt; 4.\n\n- (1) one &amp; two"
        )
        assert [b.printed() for b in paper.blocks()] == ["Melt_rises <fast> & 3 < 4.", "(1) one & two"]

    def test_table_takes_the_caption_printed_before_it(self):
        (table,) = parse_docling_markdown(
            "# T\n\nTable 1: Rocks.\n\n|   a | b      |\n|-----|--------|\n|   1 | 2&#124;3 |"
        ).blocks()
        assert (table.label, table.printed(), table.cells) == (
            "Table 1",
            "Rocks.",
            [["a", "b"], ["1", "2|3"]],
        )

    def test_column_of_line_numbers_is_removed(self):
        lines = [
            "# Melt below",
            "",
            "The ridge is",
            "long and",
            "its melt",
            "rises in",
            "winter and",
            "",
            "## 1 One",
        ]
        lines += ["Some words", "of text", "follow here", "and end."]
        number = iter(range(1, 100))
        text = "\n".join(f"{next(number):3d} {line}" if line else "" for line in lines)
        paper = parse_docling_markdown(text)
        assert (paper.title, paper.extra) == ("Melt below", {"line_numbers_removed": "11"})
        assert [b.printed() for b in paper.blocks()] == [
            "The ridge is long and its melt rises in winter and",
            "Some words of text follow here and end.",
        ]

    @pytest.mark.parametrize(
        "column",
        [
            " ".join(f"{i:03d}" for i in range(54)),
            "\n\n".join(map(str, range(1, 40))),
            "\n".join(f"- {i}" for i in range(5, 80, 5)),
        ],
    )
    def test_separate_runs_of_line_numbers_are_removed(self, column):
        paper = parse_docling_markdown(f"{column}\n\n# Melt\n\nText of it.\n\n{column}\n\nMore.")
        assert paper.title == "Melt"
        assert [b.printed() for b in paper.blocks()] == ["Text of it.", "More."]

    @pytest.mark.parametrize(
        "kept",
        [
            "\n".join(
                f"{year} was a year"
                for year in (1999, 2003, 2001, 2010, 1987, 1988, 2020, 1954, 1933, 1900, 1950)
            ),
            "3 5 8 2 9 11 4 7 1 0 6 12",
            "1 2 3 4 5",
        ],
    )
    def test_numbers_that_do_not_count_up_are_kept(self, kept):
        paper = parse_docling_markdown(f"# Melt\n\n{kept}\n\nText.")
        assert " ".join(b.printed() for b in paper.blocks()) == " ".join(f"{kept} Text.".split())
        assert "line_numbers_removed" not in paper.extra

    @pytest.mark.parametrize(("text", "reason"), [("", "empty_file"), ("<!-- image -->", "no_text")])
    def test_nothing_to_read_is_rejected(self, text, reason):
        with pytest.raises(ReadReject) as caught:
            parse_docling_markdown(text)
        assert caught.value.reason == reason
