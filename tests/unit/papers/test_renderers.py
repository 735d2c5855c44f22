"""Golden texts per style, the flaws of earlier converters one by one, and what holds for any paper."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.errors import ConfigError
from baltoro.papers.renderers import STYLES, render, special_tokens
from baltoro.papers.schema import (
    BLOCK_KINDS,
    INLINE_KINDS,
    Block,
    Inline,
    Paper,
    Reference,
    Review,
    Section,
)


def text(words: str) -> Inline:
    return Inline("text", words)


def paragraph(*inlines: Inline | str) -> Block:
    return Block("paragraph", [text(i) if isinstance(i, str) else i for i in inlines])


def paper_with(*blocks: Block, references: list[Reference] | None = None) -> Paper:
    return Paper(sections=[Section(1, "", None, list(blocks))], references=references or [])


REFERENCES = [
    Reference("b1", "Sliding over soft beds", ["Runa van der Eik", "Pell Ostrom"], 1998),
    Reference("b2", "Heat below ice", [], 2004),
    Reference("b3", "", ["Ina Vale"], 2010),
]


def every_kind() -> Paper:
    """A paper with every kind of block and span."""
    return Paper(
        title="How  fast\nbeds deform",
        authors=["Mira Sol", "Tove Lind"],
        abstract=[
            Block("paragraph", [text("Tills creep.")], label="Background"),
            Block("paragraph", [text("They do.")], label="Results"),
        ],
        sections=[
            Section(1, "", None, [paragraph("Before any heading.")]),
            Section(
                1,
                "Theory",
                "2",
                [
                    paragraph(
                        "Beds slide ",
                        Inline("citation", "[1, 2]", "b1"),
                        " at ",
                        Inline("formula", "u_b", "tex"),
                        " (",
                        Inline("figure_ref", "Fig. 1", "f1"),
                        "; ",
                        Inline("table_ref", "Table 1", "t1"),
                        "; ",
                        Inline("note_ref", "note a", "n1"),
                        "), so",
                    ),
                    Block("formula", [Inline("formula", "\\tau = \\eta u_b", "tex")], label="(3)"),
                    paragraph("where friction follows ", Inline("citation", "[3]", "b3"), "."),
                    Block("list", [text("cold ice")], label="•"),
                    Block("list", [text("warm ice")], label="2."),
                    Block("figure", [text("A map.")], label="Figure 1", ref_id="f1"),
                    Block(
                        "table",
                        [text("Speeds.")],
                        [["site", "speed"], ["A|B", "12"], ["C"]],
                        "Table 1",
                        "t1",
                    ),
                    Block("note", [text("Measured twice.")], label="a", ref_id="n1"),
                    Block("code", [text("for site in sites:\n    run(site)   \n")]),
                ],
            ),
            Section(1, "Flat", "2.1", [paragraph("Deeper.")]),
        ],
        references=REFERENCES,
        reviews=[Review("decision-letter", "Reviews stay out.")],
    )


GOLDEN = {
    "k2": """\
# How fast beds deform

## Abstract

### Background

Tills creep.

### Results

They do.

Before any heading.

## 2 Theory

Beds slide [START_REF]Sliding over soft beds[END_REF] at [START_FORMULA]u_b[END_FORMULA] \
(Fig. 1; Table 1; note a), so

[START_FORMULA]\\tau = \\eta u_b[END_FORMULA] (3)

where friction follows [3].

- cold ice
2. warm ice

[START_FIGURE]
Figure 1. A map.[END_FIGURE]

[START_TABLE]
Table 1. Speeds.

|site|speed|
|-|-|
|A\\|B|12|
|C||
[END_TABLE]

[START_NOTE]a Measured twice.[END_NOTE]

```
for site in sites:
    run(site)
```

### 2.1 Flat

Deeper.""",
    "galactica": """\
Title: How fast beds deform

Authors: Mira Sol, Tove Lind

# Abstract

## Background

Tills creep.

## Results

They do.

Before any heading.

# 2 Theory

Beds slide [START_REF] Sliding over soft beds, van der Eik[END_REF] at \\(u_b\\) \
(Fig. 1; Table 1; note a), so

\\[\\tau = \\eta u_b \\tag{3}\\]

where friction follows [3].

- cold ice
2. warm ice

Figure 1. A map.

Table 1. Speeds.

|site|speed|
|-|-|
|A\\|B|12|
|C||

a Measured twice.

```
for site in sites:
    run(site)
```

## 2.1 Flat

Deeper.""",
    "review": """\
[TITLE]
How fast beds deform

[ABSTRACT]
## Background

Tills creep.

## Results

They do.

[CAPTIONS]
Figure 1. A map.

Table 1. Speeds.

[CONTENT]
Before any heading.

# 2 Theory

Beds slide [1, 2] at \\(u_b\\) (Fig. 1; Table 1; note a), so

\\[\\tau = \\eta u_b \\tag{3}\\]

where friction follows [3].

- cold ice
2. warm ice

Table 1

|site|speed|
|-|-|
|A\\|B|12|
|C||

a Measured twice.

```
for site in sites:
    run(site)
```

## 2.1 Flat

Deeper.""",
    "plain": """\
How fast beds deform

Background

Tills creep.

Results

They do.

Before any heading.

2 Theory

Beds slide [1, 2] at u_b (Fig. 1; Table 1; note a), so

\\tau = \\eta u_b (3)

where friction follows [3].

• cold ice
2. warm ice

Figure 1. A map.

Table 1. Speeds.

site\tspeed
A|B\t12
C

a Measured twice.

for site in sites:
    run(site)

2.1 Flat

Deeper.""",
}


@pytest.mark.parametrize("style", STYLES)
def test_a_paper_with_every_kind_of_content_reads_as_written_down_here(style: str) -> None:
    assert render(every_kind(), style) == GOLDEN[style]


def test_the_example_paper_holds_every_kind_of_block_and_span() -> None:
    blocks = [*every_kind().abstract, *every_kind().blocks()]
    assert {block.kind for block in blocks} == set(BLOCK_KINDS)
    assert {inline.kind for block in blocks for inline in block.inlines} == set(INLINE_KINDS)


def test_unknown_style_names_the_allowed_ones_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'galactika' .* k2, galactica, review, plain; .*'galactica'"):
        render(Paper(), "galactika")
    with pytest.raises(ConfigError, match="did you mean 'k2'"):
        special_tokens("k3")


def test_special_tokens_have_the_exact_spelling_of_their_source() -> None:
    assert special_tokens("k2") == [
        "[START_REF]",
        "[END_REF]",
        "[START_FORMULA]",
        "[END_FORMULA]",
        "[START_FIGURE]",
        "[END_FIGURE]",
        "[START_TABLE]",
        "[END_TABLE]",
        "[START_NOTE]",
        "[END_NOTE]",
    ]
    assert special_tokens("galactica") == [
        "[START_REF]",
        "[END_REF]",
        "<work>",
        "</work>",
        "[START_SMILES]",
        "[END_SMILES]",
        "[START_I_SMILES]",
        "[END_I_SMILES]",
        "[START_AMINO]",
        "[END_AMINO]",
        "[START_DNA]",
        "[END_DNA]",
    ]
    assert special_tokens("review") == ["[TITLE]", "[ABSTRACT]", "[CAPTIONS]", "[CONTENT]"]
    assert special_tokens("plain") == []


# --- flaws of the converter that set the k2 form, each of which must not occur -------------------------


@pytest.mark.parametrize("style", STYLES)
def test_scip_a_each_float_appears_once_however_often_it_is_mentioned(style: str) -> None:
    mention = Inline("figure_ref", "Figure 1", "f1")
    figure = Block("figure", [text("Drumlins seen from above.")], label="Figure 1", ref_id="f1")
    never_mentioned = Block("table", [text("Axes of drumlins.")], [["long", "short"]], "Table 1", "t1")
    rendered = render(
        paper_with(paragraph(mention, " and again ", mention, "."), figure, never_mentioned), style
    )
    assert rendered.count("Drumlins seen from above.") == 1
    assert rendered.count("Axes of drumlins.") == 1
    assert "Figure 1 and again Figure 1." in rendered


@pytest.mark.parametrize("style", STYLES)
def test_scip_b_a_citation_without_title_keeps_its_printed_mark(style: str) -> None:
    block = paragraph("As shown ", Inline("citation", "(Vale, 2010)", "b3"), ", beds creep.")
    assert "As shown (Vale, 2010), beds creep." in render(paper_with(block, references=REFERENCES), style)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("target", ["b99", None, ""])
def test_scip_c_a_citation_to_an_unknown_reference_keeps_its_printed_mark(
    style: str, target: str | None
) -> None:
    block = paragraph("See ", Inline("citation", "[99]", target), ".")
    assert render(paper_with(block, references=REFERENCES), style).endswith("See [99].")


@pytest.mark.parametrize("style", STYLES)
def test_scip_d_labels_list_items_and_notes_are_not_lost(style: str) -> None:
    rendered = render(every_kind(), style)
    for words in ("Figure 1. A map.", "cold ice", "2. warm ice", "a Measured twice.", "3"):
        assert words in rendered


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_scip_e_an_empty_title_or_abstract_leaves_no_heading(style: str, blank: str) -> None:
    paper = Paper(title=blank, abstract=[paragraph(blank)], sections=[Section(1, blank, None, [])])
    assert render(paper, style) == ""
    assert render(Paper(), style) == ""


def test_scip_f_a_note_stands_once_between_one_pair_of_markers() -> None:
    rendered = render(paper_with(Block("note", [text("Till is wet.")])), "k2")
    assert rendered == "[START_NOTE]Till is wet.[END_NOTE]"


def test_scip_g_nested_sections_keep_their_depth() -> None:
    sections = [Section(level, f"Level {level}", None, [paragraph("x")]) for level in (1, 2, 3, 2, 7)]
    headings = [line for line in render(Paper(sections=sections), "k2").splitlines() if line[0:1] == "#"]
    assert headings == ["## Level 1", "### Level 2", "#### Level 3", "### Level 2", "###### Level 7"]


@pytest.mark.parametrize(
    ("number", "heading"),
    [("2.1", "### 2.1 Beds"), ("A.3", "### A.3 Beds"), ("4.1.2", "#### 4.1.2 Beds"), ("IV", "## IV Beds")],
)
def test_a_flat_section_list_gets_its_depth_from_the_printed_number(number: str, heading: str) -> None:
    assert render(Paper(sections=[Section(1, "Beds", number)]), "k2") == heading


def test_a_missing_table_cell_is_empty_and_never_the_word_none() -> None:
    cells: list[list[str]] = [["a", "b", "c"], ["1", None, "x\ny"], []]  # type: ignore[list-item]
    rendered = render(paper_with(Block("table", cells=cells)), "k2")
    assert rendered == "[START_TABLE]\n|a|b|c|\n|-|-|-|\n|1||x y|\n||||\n[END_TABLE]"
    assert render(paper_with(Block("table", cells=cells)), "plain") == "a\tb\tc\n1\t\tx y"


# --- spacing and brackets around citations -------------------------------------------------------------


@pytest.mark.parametrize(
    ("inlines", "expected"),
    [
        (["rises", Inline("citation", "3", "b1"), " fast"], "rises {} fast"),
        (["rises.", Inline("citation", "3", "b1"), "The"], "rises. {} The"),
        (["rises [", Inline("citation", "3", "b1"), "]."], "rises {}."),
        (
            ["rises (", Inline("citation", "Eik", "b1"), "; ", Inline("citation", "Ek", "b1"), ")."],
            "rises {}; {}.",
        ),
        (
            ["so ", Inline("citation", "(Eik, 1998;", "b1"), " ", Inline("citation", "Ek, 2004)", "b1"), "."],
            "so {} {}.",
        ),
        (["(see ", Inline("citation", "Eik, 1998)", "b1"), "."], "(see {})."),
        (["(", Inline("citation", "Eik", "b1"), ", and others)"], "({}, and others)"),
        (["[", Inline("citation", "3", "b1"), ", ", Inline("citation", "9", "b9"), "]"], "[{}, 9]"),
        ([Inline("citation", "3", "b1"), Inline("citation", "4", "b1")], "{} {}"),
        (["a ", Inline("citation", "[3,", "b1"), Inline("citation", "[5]", "b1"), ". (b)"], "a {} {}. (b)"),
        ([Inline("citation", "[3,", "b1"), " ", Inline("citation", "58]", "b9"), "."], "[{} 58]."),
        ([Inline("citation", "3", "b1"), Inline("formula", "x", "tex")], "{} [START_FORMULA]x[END_FORMULA]"),
    ],
)
def test_a_cited_title_stands_apart_from_words_and_takes_its_brackets_along(
    inlines: list[Inline | str], expected: str
) -> None:
    rendered = render(paper_with(paragraph(*inlines), references=REFERENCES), "k2")
    assert rendered == expected.replace("{}", "[START_REF]Sliding over soft beds[END_REF]")


@pytest.mark.parametrize("style", STYLES)
def test_a_printed_number_mark_is_not_glued_to_the_word_before_or_after_it(style: str) -> None:
    block = paragraph("basalt", Inline("citation", "12", None), "and tuff", Inline("note_ref", "a", "n"), ".")
    assert render(paper_with(block), style).endswith("basalt 12 and tuff a.")


@pytest.mark.parametrize("style", STYLES)
def test_a_formula_inside_a_word_stays_inside_it(style: str) -> None:
    rendered = render(paper_with(paragraph("H", Inline("formula", "_2", "tex"), "O-rich")), style)
    assert re.search(r"H\S+O-rich$", rendered)


@pytest.mark.parametrize(
    ("author", "surname"),
    [
        ("Mira Sol", "Sol"),
        ("Sol, Mira", "Sol"),
        ("Runa van der Eik", "van der Eik"),
        ("Tomas Reyes Jr.", "Reyes"),
        ("Tomas Reyes, Jr.", "Reyes"),
        ("Plate", "Plate"),
        ("", None),
    ],
)
def test_a_galactica_citation_ends_in_the_first_authors_surname(author: str, surname: str | None) -> None:
    reference = Reference("b", "On tills", [author, "Second Person"])
    rendered = render(
        paper_with(paragraph("See ", Inline("citation", "[1]", "b"), "."), references=[reference]),
        "galactica",
    )
    content = f"On tills, {surname}" if surname else "On tills"
    assert rendered == f"See [START_REF] {content}[END_REF]."


def test_the_equation_number_of_galactica_is_a_latex_tag_written_once() -> None:
    tagged = Block("formula", [Inline("formula", "x \\tag{7}", "tex")], label="(7)")
    assert render(paper_with(tagged), "galactica") == "\\[x \\tag{7}\\]"


def test_review_leaves_out_parts_without_text_and_the_reference_list() -> None:
    paper = Paper(title="T", sections=[Section(1, "", None, [paragraph("Body.")])], references=REFERENCES)
    assert render(paper, "review") == "[TITLE]\nT\n\n[CONTENT]\nBody."


@pytest.mark.parametrize("style", STYLES)
def test_the_label_of_a_code_block_stands_above_it(style: str) -> None:
    rendered = render(paper_with(Block("code", [text("x = 1")], label="Algorithm 2")), style)
    assert rendered.startswith("Algorithm 2\n\n") or "\nAlgorithm 2\n\n" in rendered


def test_a_code_block_is_fenced_longer_than_the_backticks_it_holds() -> None:
    rendered = render(paper_with(Block("code", [text("a\n```\n\nb")])), "k2")
    assert rendered == "````\na\n```\n\nb\n````"


@pytest.mark.parametrize("style", ["k2", "galactica", "review"])
def test_source_text_that_spells_a_token_is_broken_even_across_spans(style: str) -> None:
    token = special_tokens(style)[0]
    spans = [text(token[:4]), text(token[4:6]), Inline("note_ref", token[6:])]
    paper = Paper(
        sections=[Section(1, token, None, [Block("paragraph", spans), Block("code", [text(token)])])]
    )
    rendered = render(paper, style)
    assert rendered.count(f"[ {token[1:]}") == 3
    assert rendered.count(token) == (1 if style == "review" and token == "[CONTENT]" else 0)


# --- what holds for any paper ---------------------------------------------------------------------------

WORDS = st.text(
    alphabet=string.ascii_letters + string.digits + " \n\t.,;()[]|#`-éΩ中\u00a0\u2028", max_size=30
)
MARKS = st.sampled_from(["[3]", "(Ek, 2001)", "(Ek,", "4)", "5", "[START_REF]", ""])
INLINES = st.builds(
    Inline,
    st.sampled_from(INLINE_KINDS),
    st.one_of(WORDS, MARKS, st.sampled_from(["[START_", "REF]", "<work>", "[END_FORMULA]", "[CONTENT]"])),
    st.sampled_from([None, "b1", "b2", "b3", "gone", "tex"]),
)
BLOCKS = st.builds(
    Block,
    st.sampled_from(BLOCK_KINDS),
    st.lists(INLINES, max_size=6),
    st.lists(st.lists(WORDS, max_size=4), max_size=4),
    st.one_of(st.none(), WORDS, st.sampled_from(["Figure 1", "(2)", "•"])),
    st.none(),
)
SECTIONS = st.builds(
    Section,
    st.integers(1, 9),
    WORDS,
    st.one_of(st.none(), st.sampled_from(["1", "2.1", "A", ""])),
    st.lists(BLOCKS, max_size=4),
)
PAPERS = st.builds(
    Paper,
    title=WORDS,
    abstract=st.lists(BLOCKS, max_size=3),
    authors=st.lists(WORDS, max_size=3),
    sections=st.lists(SECTIONS, max_size=4),
    references=st.lists(
        st.builds(Reference, st.sampled_from(["b1", "b2", "b3"]), WORDS, st.lists(WORDS, max_size=2)),
        max_size=3,
    ),
)


def expected_words(paper: Paper) -> str:
    """Every character of title, abstract and body in printed order, without white space."""
    parts: list[str | None] = [paper.title]
    for section in [Section(1, "", None, paper.abstract), *paper.sections]:
        parts += [section.number, section.heading]
        for block in section.blocks:
            # The number of a displayed formula is printed after it, other labels before their text.
            label = [block.label or ""]
            before, after = ([], label) if block.kind == "formula" else (label, [])
            parts += [*before, block.printed(), *after]
            if block.kind == "table":
                parts += [cell for row in block.cells for cell in row]
    return "".join("".join(part.split()) for part in parts if part)


@settings(max_examples=100, deadline=None)
@given(PAPERS)
def test_plain_keeps_every_word_once_and_in_order(paper: Paper) -> None:
    # The one sign that plain adds is a stop after the label of a float.
    for block in [*paper.abstract, *paper.blocks()]:
        if block.kind in ("figure", "table") and block.label:
            block.label = f"{block.label.strip()}."
    assert "".join(render(paper, "plain").split()) == expected_words(paper)


@settings(max_examples=100, deadline=None)
@given(PAPERS, st.sampled_from(STYLES))
def test_any_paper_renders_in_any_style_with_clean_white_space(paper: Paper, style: str) -> None:
    rendered = render(paper, style)
    assert rendered == render(paper, style)
    assert rendered == rendered.strip("\n")
    assert all(line == line.rstrip() for line in rendered.splitlines())
    if not any(block.kind == "code" for block in [*paper.abstract, *paper.blocks()]):
        assert "\n\n\n" not in rendered


@settings(max_examples=100, deadline=None)
@given(PAPERS, st.sampled_from(["k2", "galactica"]))
def test_every_start_token_is_followed_by_its_end_token(paper: Paper, style: str) -> None:
    found = re.findall("|".join(map(re.escape, special_tokens(style))), render(paper, style))
    open_kind = None
    for token in found:
        kind = token.partition("_")[2]
        if token.startswith("[START_"):
            # A caption or a note may hold a citation or a formula: only those nest.
            if open_kind is not None:
                assert open_kind in ("FIGURE]", "TABLE]", "NOTE]")
                assert kind in ("REF]", "FORMULA]")
                open_kind = (open_kind, kind)
            else:
                open_kind = kind
        elif isinstance(open_kind, tuple):
            assert kind == open_kind[1]
            open_kind = open_kind[0]
        else:
            assert kind == open_kind
            open_kind = None
    assert open_kind is None


@settings(max_examples=100, deadline=None)
@given(PAPERS)
def test_review_tags_come_at_most_once_and_in_their_fixed_order(paper: Paper) -> None:
    rendered = render(paper, "review")
    positions = [rendered.find(tag) for tag in special_tokens("review") if tag in rendered]
    assert positions == sorted(positions)
    assert all(rendered.count(tag) <= 1 for tag in special_tokens("review"))
