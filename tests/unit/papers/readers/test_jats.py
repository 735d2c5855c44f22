"""JATS and NLM articles: nothing lost, nothing twice, reviews apart; each known parser bug has its test."""

import inspect
import re
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from baltoro.papers.readers.jats import parse_jats
from baltoro.papers.schema import UNKNOWN_LICENSE, Block, Inline, Paper, ReadReject

NAMESPACES = 'xmlns:m="http://www.w3.org/1998/Math/MathML" xmlns:xlink="http://www.w3.org/1999/xlink"'
ALI = 'xmlns:ali="http://www.niso.org/schemas/ali/1.0/"'


def article(
    body="", *, meta="", back="", extra="", front="", attributes='article-type="research-article"'
) -> Paper:
    if "<title-group>" not in meta:
        meta = f"<title-group><article-title>Melt</article-title></title-group>{meta}"
    source = (
        f"<article {NAMESPACES} {ALI} {attributes}><front><article-meta>{meta}</article-meta>{front}</front>"
        f"<body>{body}</body><back>{back}</back>{extra}</article>"
    )
    return parse_jats(source.encode())


def blocks(body: str, **parts: str) -> list[Block]:
    return list(article(body, **parts).blocks())


def printed(body: str, **parts: str) -> list[str]:
    return [block.printed() for block in blocks(body, **parts)]


def outline(paper: Paper) -> list[tuple[int, str | None, str, list[str]]]:
    return [(s.level, s.number, s.heading, [b.printed() for b in s.blocks]) for s in paper.sections]


# Structure


def test_nested_sections_stand_once_with_level_and_number():
    paper = article(
        "<p>Lead.</p><sec><label>1.</label><title>Data</title><p>One.</p>"
        "<sec><label>1.1</label><title>Ice</title><p>Two.</p></sec><sec><title>2. Snow</title>"
        "<p>Three.</p></sec></sec>"
        "<sec><title>1.5 °C worlds</title><p>Four.</p></sec>"
    )
    assert outline(paper) == [
        (1, None, "", ["Lead."]),
        (1, "1", "Data", ["One."]),
        (2, "1.1", "Ice", ["Two."]),
        (2, "2", "Snow", ["Three."]),
        (1, None, "1.5 °C worlds", ["Four."]),
    ]


def test_text_after_a_subsection_does_not_fall_into_it():
    paper = article("<sec><title>A</title><sec><title>B</title><p>in b</p></sec><p>in a</p></sec>")
    assert outline(paper) == [(1, None, "A", []), (2, None, "B", ["in b"]), (1, None, "", ["in a"])]


def test_text_inside_inline_elements_is_kept():
    body = (
        "<p>A <italic>b <bold>c <named-content>d</named-content></bold></italic> <unknown>e</unknown>"
        ' <ext-link xlink:href="http://x.org">f</ext-link> '
        '<ext-link xlink:href="http://y.org"/> <sc>g</sc></p>'
    )
    assert printed(body) == ["A b c d e f http://y.org g"]


def test_text_directly_in_a_section_is_kept():
    assert printed("<sec><title>T</title>loose <p>para</p> tail</sec>") == ["loose", "para", "tail"]


def test_figure_stands_once_however_often_it_is_mentioned():
    body = (
        '<p>See <xref ref-type="fig" rid="f1">Fig. 1</xref> and <xref ref-type="fig" rid="f1">Fig. 1</xref>.'
        '<fig id="f1"><label>Figure 1.</label><caption><title>A core.</title><p>Scale 1 m.</p></caption>'
        '<graphic xlink:href="a.tif"/><attrib>Photo: X</attrib></fig> More.</p>'
    )
    found = blocks(body)
    assert [(b.kind, b.label, b.printed()) for b in found] == [
        ("paragraph", None, "See Fig. 1 and Fig. 1."),
        ("figure", "Figure 1", "A core. Scale 1 m. Photo: X"),
        ("paragraph", None, "More."),
    ]
    assert found[1].ref_id == "f1"
    assert [i.target for i in found[0].inlines if i.kind == "figure_ref"] == ["f1", "f1"]


def test_paragraph_with_block_children_is_split_in_order():
    body = (
        '<p>Before <disp-formula id="e1"><tex-math>E=1</tex-math><label>(1)</label></disp-formula> between'
        '<list list-type="order"><list-item><p>first</p><p>more</p></list-item><list-item>'
        "<p>second</p></list-item>"
        "</list>after <boxed-text><label>Box 1.</label><caption><title>Aside</title></caption>"
        "<p>in box</p></boxed-text>"
        "end <disp-quote><p>quoted</p></disp-quote></p>"
    )
    assert [(b.kind, b.label, b.printed()) for b in blocks(body)] == [
        ("paragraph", None, "Before"),
        ("formula", "(1)", "E=1"),
        ("paragraph", None, "between"),
        ("list", "1.", "first more"),
        ("list", "2.", "second"),
        ("paragraph", None, "after"),
        ("paragraph", None, "Box 1. Aside"),
        ("paragraph", None, "in box"),
        ("paragraph", None, "end"),
        ("paragraph", None, "quoted"),
    ]


def test_lists_keep_printed_markers_and_nested_items():
    body = (
        "<list><list-item><label>(a)</label><p>one <list list-type='bullet'><list-item><p>sub"
        "</p></list-item></list>"
        "rest</p></list-item></list><list list-type='roman-upper'><list-item><p>x</p></list-item></list>"
        "<list list-type='alpha-lower'><list-item><p>y</p></list-item></list>"
        "<def-list><title>Terms</title><def-item><term>AR</term><def><p>atmospheric river</p>"
        "</def></def-item></def-list>"
    )
    assert [(b.kind, b.label, b.printed()) for b in blocks(body)] == [
        ("list", "(a)", "one"),
        ("list", "•", "sub"),
        ("list", None, "rest"),
        ("list", "I.", "x"),
        ("list", "a.", "y"),
        ("paragraph", None, "Terms"),
        ("list", "AR", "atmospheric river"),
    ]


def test_footnote_inside_text_follows_its_paragraph():
    found = blocks('<p>Cold<fn id="n1"><label>1</label><p>Below zero.</p></fn> air.</p>')
    assert [(b.kind, b.label, b.printed()) for b in found] == [
        ("paragraph", None, "Cold¹ air."),
        ("note", "1", "Below zero."),
    ]
    assert found[0].inlines[1] == Inline("note_ref", "¹", "n1")


def test_code_keeps_its_lines_and_poetry_its_words():
    body = (
        "<p>Run <code>ls</code>:</p><code>a = 1\n  b</code><verse-group><verse-line>x"
        "</verse-line><verse-line>y</verse-line></verse-group>"
    )
    assert [(b.kind, b.printed()) for b in blocks(body)] == [
        ("paragraph", "Run ls:"),
        ("code", "a = 1\n  b"),
        ("paragraph", "x y"),
    ]


def test_back_matter_notes_and_floats_become_sections_and_references_do_not():
    paper = article(
        "<p>Body.</p>",
        back="<ack><p>Thanks.</p></ack><app-group><app><label>Appendix A</label><title>Runs"
        "</title><p>Long.</p></app>"
        "</app-group><fn-group><title>Interests</title><fn id='c'><p>None.</p></fn></fn-group>"
        "<ref-list><title>References</title><ref id='r'><mixed-citation>Doe 1999"
        "</mixed-citation></ref></ref-list>",
        front="<notes><title>Data availability</title><p>On request.</p></notes>",
        extra="<floats-group><fig><label>Fig 9</label><caption><p>Late.</p></caption></fig></floats-group>",
    )
    assert outline(paper) == [
        (1, None, "", ["Body."]),
        (1, None, "", ["Late."]),
        (1, None, "Acknowledgments", ["Thanks."]),
        (1, None, "Appendix A Runs", ["Long."]),
        (1, None, "Interests", ["None."]),
        (1, None, "Data availability", ["On request."]),
    ]


def test_supplementary_material_keeps_label_and_caption():
    body = (
        '<supplementary-material id="s1"><label>S1 Table.</label><caption><title>Sites.</title>'
        "<p>All.</p></caption>"
        '<media xlink:href="a.csv"><caption><p>(CSV)</p></caption></media></supplementary-material>'
    )
    assert blocks(body) == [Block("paragraph", [Inline("text", "Sites. All. (CSV)")], [], "S1 Table", "s1")]


# Tables

TABLE = (
    '<table-wrap id="t1"><label>Table 1</label><caption><title>Flux</title></caption>{}'
    "<table-wrap-foot><fn id='a'><label>*</label><p>mean</p></fn></table-wrap-foot></table-wrap>"
)


def test_table_cells_stand_on_a_grid_and_each_text_once():
    rows = (
        "<table><thead><tr><th rowspan='2'>Site</th><th colspan='2'>Flux</th></tr><tr><th>low"
        "</th><th>high</th></tr></thead>"
        "<tbody><tr><td rowspan='9'>A<break/>1</td><td>10<sup>5</sup></td><td><p>x</p><p>y</p></td></tr>"
        "<tr><td colspan='2'><inline-formula><m:math><m:mi>α</m:mi></m:math></inline-formula>"
        "</td></tr></tbody>"
        "<tbody><tr><td>B</td></tr></tbody></table>"
    )
    table, note = blocks(TABLE.format(rows))
    assert (table.kind, table.label, table.printed(), table.ref_id) == ("table", "Table 1", "Flux", "t1")
    assert table.cells == [
        ["Site", "Flux", ""],
        ["", "low", "high"],
        ["A 1", "10⁵", "x y"],
        ["", r"$\alpha$", ""],
        ["B", "", ""],
    ]
    assert (note.kind, note.label, note.printed(), note.ref_id) == ("note", "*", "mean", "a")


def test_picture_only_table_keeps_caption_and_alternatives_give_one_table():
    picture, _ = blocks(TABLE.format('<graphic xlink:href="t.tif"/>'))
    assert (picture.printed(), picture.cells) == ("Flux", [])
    both = TABLE.format("<alternatives><graphic/><table><tr><td>v</td></tr></table></alternatives>")
    assert [b.cells for b in blocks(both) if b.kind == "table"] == [[["v"]]]


def test_table_inside_an_xml_comment_is_not_read():
    commented = TABLE.format("<graphic/><!-- <table><tr><td>old</td></tr></table> -->")
    assert blocks(commented)[0].cells == []


def test_oasis_table_with_its_own_namespace_is_read():
    oasis = (
        '<o:table xmlns:o="http://www.niso.org/standards/z39-96/ns/oasis-exchange/table"><o:tgroup cols="3">'
        '<o:colspec colname="a"/><o:colspec colname="b"/><o:colspec colname="c"/><o:tbody>'
        '<o:row><o:entry namest="a" nameend="b">wide</o:entry><o:entry morerows="1">tall</o:entry></o:row>'
        "<o:row><o:entry>x</o:entry><o:entry>y</o:entry></o:row></o:tbody></o:tgroup></o:table>"
    )
    assert blocks(TABLE.format(oasis))[0].cells == [["wide", "", "tall"], ["x", "y", ""]]


def test_absurd_spans_do_not_explode():
    table = blocks(TABLE.format("<table><tr><td colspan='99999999'>a</td></tr></table>"))[0]
    assert len(table.cells[0]) == 500


# Citations and numbers beside words


def test_citations_keep_text_and_target_and_ranges_stay_as_printed():
    body = (
        '<p>Known [<xref ref-type="bibr" rid="b3">3</xref><xref ref-type="bibr" rid="b4"/>–'
        '<xref ref-type="bibr" rid="b5">5</xref>] and '
        '<xref ref-type="bibr" rid="b1 b2">Doe 1999; Roe 2001</xref>.</p>'
    )
    (block,) = blocks(body, back="<ref-list><ref id='b4'><label>4</label></ref></ref-list>")
    assert block.printed() == "Known [3–5] and Doe 1999; Roe 2001."
    assert [(i.text, i.target) for i in block.inlines if i.kind == "citation"] == [
        ("3", "b3"),
        ("5", "b5"),
        ("Doe 1999", "b1"),
        ("Roe 2001", "b2"),
    ]


def test_citation_without_printed_text_does_not_vanish():
    back = "<ref-list><ref id='b7'><label>7</label><mixed-citation>Doe</mixed-citation></ref></ref-list>"
    (block,) = blocks('<p>Known <xref ref-type="bibr" rid="b7"/>.</p>', back=back)
    assert block.inlines[1] == Inline("citation", "7", "b7")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            'rise<sup><xref ref-type="bibr" rid="b1">12</xref>,'
            '<xref ref-type="bibr" rid="b2">13</xref></sup> of',
            "rise¹²,¹³ of",
        ),
        ('rise<xref ref-type="bibr" rid="b1"><sup>12</sup></xref> of', "rise¹² of"),
        ('rise<xref ref-type="bibr" rid="b1">12</xref> of', "rise¹² of"),
        (
            'rise <xref ref-type="bibr" rid="b1">12</xref><xref ref-type="bibr" rid="b2">13</xref>',
            "rise 12 13",
        ),
        ('4.2<xref ref-type="table-fn" rid="n">a</xref>', "4.2ᵃ"),
        ('rise (<xref ref-type="bibr" rid="b1">Doe, 1999</xref>)', "rise (Doe, 1999)"),
        ("10<sup>−5</sup> W m<sup>-2</sup>", "10⁻⁵ W m⁻²"),
        (
            "<sup>14</sup>C, Ca<sup>2+</sup>, CO<sub>2</sub>, 20<sup>th</sup>, p16<sup>INK4a</sup>",
            "¹⁴C, Ca²⁺, CO2, 20th, p16INK4a",
        ),
        ("log<sub>10</sub>5", "log₁₀5"),
        ("H<sub>2</sub>O<break/>ice", "H2O ice"),
    ],
)
def test_numbers_are_not_glued_to_words(source, expected):
    assert printed(f"<p>{source}</p>") == [expected]


def test_parts_of_a_citation_in_the_text_do_not_run_together():
    body = (
        "<p>From <related-object><collab>Ice Atlas</collab><source>Cores</source><x>, </x>"
        "<year>2014</year></related-object>.</p>"
    )
    assert printed(body) == ["From Ice Atlas Cores, 2014."]


def test_space_at_the_edge_of_a_reference_moves_outside():
    (block,) = blocks('<p>See<xref ref-type="fig" rid="f"> <italic>Fig. 1</italic> </xref>shows.</p>')
    assert [i.text for i in block.inlines] == ["See ", "Fig. 1", " shows."]


def test_other_references_have_their_kinds():
    kinds = {
        "table": "table_ref",
        "fn": "note_ref",
        "fig": "figure_ref",
        "disp-formula": "text",
        "sec": "text",
    }
    for ref_type, kind in kinds.items():
        (block,) = blocks(f'<p><xref ref-type="{ref_type}" rid="z">it</xref></p>')
        assert (block.inlines[0].kind, block.inlines[0].text) == (kind, "it")


# Formulas


def test_alternatives_give_the_formula_once():
    formula = (
        "<alternatives><graphic/><m:math><m:msup><m:mi>x</m:mi><m:mn>2</m:mn></m:msup></m:math>"
        r"<tex-math>\documentclass{minimal}\begin{document}$$x^2$$\end{document}</tex-math></alternatives>"
    )
    (block,) = blocks(f"<p>Here <inline-formula>{formula}</inline-formula> is.</p>")
    assert block.inlines == [Inline("text", "Here "), Inline("formula", "x^2", "tex"), Inline("text", " is.")]
    without_wrapper = formula.replace("<alternatives>", "").replace("</alternatives>", "")
    (block,) = blocks(f"<p><inline-formula>{without_wrapper}</inline-formula></p>")
    assert block.inlines == [Inline("formula", "x^2", "tex")]


def test_mathml_stands_in_where_tex_is_only_a_preamble():
    tex = r"<tex-math>\documentclass{minimal}\begin{document}\end{document}</tex-math>"
    formula = (
        f"<disp-formula><alternatives>{tex}<m:math><m:mi>β</m:mi></m:math></alternatives></disp-formula>"
    )
    assert blocks(formula) == [Block("formula", [Inline("formula", r"\beta", "tex")])]


def test_glyph_formulas_have_no_tex_target():
    (block,) = blocks("<p><inline-formula><italic>x</italic><sup>2</sup></inline-formula></p>")
    assert block.inlines == [Inline("formula", "x²", None)]


def test_graphic_only_formula_leaves_no_empty_span_and_is_counted():
    paper = article(
        "<p>The <inline-formula><inline-graphic/></inline-formula> term "
        "<disp-formula id='e'><label>(2)</label><graphic/></disp-formula> and <disp-formula>"
        "<graphic/></disp-formula> end.</p>"
    )
    assert [(b.kind, b.label, b.inlines) for b in paper.blocks()] == [
        ("paragraph", None, [Inline("text", "The term")]),
        ("formula", "(2)", []),
        ("paragraph", None, [Inline("text", "and")]),
        ("paragraph", None, [Inline("text", "end.")]),
    ]
    assert paper.extra["formulas_without_text"] == "3"


def test_words_beside_mathml_in_a_display_formula_are_kept():
    (block,) = blocks("<disp-formula>so <m:math><m:mi>x</m:mi></m:math></disp-formula>")
    assert block.inlines == [Inline("formula", r"\text{so }x", "tex")]


def test_spacing_inside_a_formula_separates_it_from_the_next_word():
    (block,) = blocks(
        '<p><inline-formula><m:math><m:mi>L</m:mi><m:mspace width="0.3em"/></m:math>'
        "</inline-formula>ensures</p>"
    )
    assert block.printed() == "L ensures"


# Front matter


def test_metadata_is_complete():
    paper = article(
        "<p>x</p>",
        attributes='article-type="retraction" xml:lang="EN"',
        meta="<article-id pub-id-type='pmid'>1</article-id>"
        "<article-id pub-id-type='doi'>https://doi.org/10.1000/Ab.c</article-id>"
        "<title-group><article-title>CO<sub>2</sub> &amp; <italic>ice</italic>"
        "<xref ref-type='fn' rid='x'>1</xref>: "
        "<inline-formula><m:math><m:msub><m:mi>δ</m:mi><m:mi>s</m:mi></m:msub></m:math>"
        "</inline-formula></article-title>"
        "<subtitle>A review</subtitle></title-group>"
        "<contrib-group><contrib contrib-type='author'><name><surname>Doe</surname>"
        "<given-names>Ann B</given-names>"
        "<suffix>Jr</suffix></name><xref ref-type='aff' rid='a'>1</xref></contrib>"
        "<contrib contrib-type='author'><name-alternatives><name><surname>Li</surname>"
        "<given-names>Wei</given-names></name>"
        "<string-name>李伟</string-name></name-alternatives></contrib>"
        "<contrib contrib-type='author'><collab>Ice Core Group<contrib-group><contrib><name>"
        "<surname>Roe</surname>"
        "<given-names>R</given-names></name></contrib></contrib-group></collab></contrib>"
        "<contrib contrib-type='editor'><name><surname>Ed</surname><given-names>E</given-names>"
        "</name></contrib></contrib-group>"
        "<pub-date pub-type='pmc-release'><year>2001</year></pub-date>"
        "<pub-date pub-type='collection'><year>2021</year></pub-date>"
        "<pub-date pub-type='epub'><day>3</day><year>2020</year></pub-date>"
        "<related-article related-article-type='retracted-article' xlink:href='info:doi/10.1000/xyz'/>"
        "<kwd-group><title>Keywords</title><kwd>ice</kwd><kwd>CO<sub>2</sub></kwd><kwd>ice</kwd></kwd-group>",
    )
    assert paper.title == r"CO2 & ice: $\delta_{s}$: A review"
    assert paper.authors == ["Ann B Doe Jr", "Wei Li", "Ice Core Group"]
    assert (paper.year, paper.doi, paper.language) == (2020, "10.1000/Ab.c", "en")
    assert paper.keywords == ["ice", "CO2"]
    assert paper.article_type == "retraction"
    assert paper.extra == {"related_articles": "retracted-article 10.1000/xyz"}


@pytest.mark.parametrize(
    "journal",
    [
        "<journal-meta><journal-title-group><journal-title>J. Ice</journal-title>"
        "</journal-title-group></journal-meta>",
        "<journal-meta><journal-title>J. Ice</journal-title></journal-meta>",
    ],
)
def test_venue_is_found_in_jats_and_nlm_position(journal):
    source = f"<article><front>{journal}<article-meta/></front><body><p>x</p></body></article>"
    assert parse_jats(source.encode()).venue == "J. Ice"


@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        (
            '<license xlink:href="http://creativecommons.org/licenses/by/4.0/"><license-p>x'
            "</license-p></license>",
            "http://creativecommons.org/licenses/by/4.0/",
        ),
        (
            "<license><ali:license_ref>https://creativecommons.org/licenses/by/3.0/"
            "</ali:license_ref></license>",
            "https://creativecommons.org/licenses/by/3.0/",
        ),
        (
            "<license><license-p>See "
            '<ext-link xlink:href="https://creativecommons.org/licenses/by-nc/4.0/">this</ext-link>'
            "</license-p></license>",
            "https://creativecommons.org/licenses/by-nc/4.0/",
        ),
        (
            "<license><license-p>under the Creative Commons Attribution License, which permits use"
            "</license-p></license>",
            "CC BY",
        ),
        ("<license><p>Creative Commons Attribution 4.0 International License</p></license>", "CC BY 4.0"),
        (
            "<license><license-p>Creative Commons Attribution-NonCommercial-NoDerivatives 4.0"
            "</license-p></license>",
            "CC BY-NC-ND 4.0",
        ),
        (
            "<license><license-p>This is open access under the CC BY-SA license</license-p></license>",
            "CC BY-SA",
        ),
        ("<license><license-p>free of all copyright, public domain dedication</license-p></license>", "CC0"),
        (
            "<license><license-p>A US government work in the public domain.</license-p></license>",
            "public domain",
        ),
        ("<license><license-p> All rights   reserved. </license-p></license>", "All rights reserved."),
        (
            "<license><license-p>Creative Commons Attribution License for non-commercial use only"
            "</license-p></license>",
            "Creative Commons Attribution License for non-commercial use only",
        ),
        (
            "<copyright-statement>© 2004 Doe. Creative Commons Attribution License.</copyright-statement>",
            "CC BY",
        ),
        ("<copyright-statement>© 2004 Doe.</copyright-statement>", UNKNOWN_LICENSE),
        ("", UNKNOWN_LICENSE),
    ],
)
def test_license_is_recognised(permissions, expected):
    assert article("<p>x</p>", meta=f"<permissions>{permissions}</permissions>").license == expected


def test_structured_abstract_has_labels_and_further_abstracts_are_sections():
    paper = article(
        "<sec><title>Intro</title><p>Body.</p></sec>",
        meta="<abstract abstract-type='toc'><p>Teaser.</p></abstract><abstract><title>Abstract</title>"
        "<sec><title>Methods</title><p>We drilled.</p><p>Twice.</p></sec><sec><title>Results</title>"
        "<list list-type='bullet'><list-item><p>Ice.</p></list-item></list></sec></abstract>"
        "<abstract abstract-type='summary'><title>Author Summary</title><p>Plain.</p></abstract>"
        "<abstract abstract-type='graphical'><p><graphic/></p></abstract>"
        "<trans-abstract xml:lang='de'><p>Eis.</p></trans-abstract>",
    )
    assert [(b.kind, b.label, b.printed()) for b in paper.abstract] == [
        ("paragraph", "Methods", "We drilled."),
        ("paragraph", None, "Twice."),
        ("paragraph", "Results", ""),
        ("list", "•", "Ice."),
    ]
    assert [(s.heading, s.blocks[0].printed()) for s in paper.sections] == [
        ("Summary", "Teaser."),
        ("Author Summary", "Plain."),
        ("Intro", "Body."),
    ]
    assert paper.extra == {"translations_skipped": "1"}


# References


@pytest.mark.parametrize("kind", ["mixed-citation", "element-citation", "nlm-citation"])
def test_three_citation_kinds_are_read_alike(kind):
    back = (
        f"<ref-list><ref id='b1'><label>1</label><{kind}><person-group person-group-type='author'>"
        "<name><surname>Doe</surname><given-names>A</given-names></name><etal/></person-group> "
        "<person-group person-group-type='editor'><name><surname>Ed</surname><given-names>E"
        "</given-names></name></person-group>"
        "<article-title>Old <italic>ice</italic></article-title> <source>J. Ice</source> <year>1999a</year>"
        f"<pub-id pub-id-type='doi'>10.1000/1</pub-id></{kind}></ref></ref-list>"
    )
    (reference,) = article("<p>x</p>", back=back).references
    assert (reference.key, reference.title, reference.authors) == ("b1", "Old ice", ["A Doe"])
    assert (reference.year, reference.doi) == (1999, "10.1000/1")


@pytest.mark.parametrize(
    ("citation", "title"),
    [
        ("<element-citation><chapter-title>Ch</chapter-title><source>Book</source></element-citation>", "Ch"),
        ("<element-citation><source>Book</source></element-citation>", "Book"),
        (
            "<mixed-citation>Doe A. <italic>Glaciers</italic>, 1999.</mixed-citation>",
            "Doe A. Glaciers, 1999.",
        ),
        (
            "<element-citation><publisher-name>USGS</publisher-name><year>1999</year></element-citation>",
            "USGS 1999",
        ),
        ("<note><p>Unpublished.</p></note>", "Unpublished."),
        (
            "<citation-alternatives><mixed-citation>raw</mixed-citation><element-citation>"
            "<article-title>T</article-title>"
            "</element-citation></citation-alternatives>",
            "T",
        ),
    ],
)
def test_reference_title_is_never_empty_when_there_are_words(citation, title):
    references = article("<p>x</p>", back=f"<ref-list><ref id='b'>{citation}</ref></ref-list>").references
    assert [(r.key, r.title) for r in references] == [("b", title)]


def test_several_works_under_one_number_are_entries_of_their_own():
    back = (
        "<ref-list><ref id='b'><element-citation id='ba'><source>One</source></element-citation>"
        "<element-citation id='bb'><source>Two</source></element-citation></ref></ref-list>"
    )
    assert [(r.key, r.title) for r in article("<p>x</p>", back=back).references] == [
        ("b", "One"),
        ("bb", "Two"),
    ]


# Reviews


def sub_article(
    kind, title, text, *, contrib="", meta="", tag="sub-article", attribute="article-type"
) -> str:
    return (
        f'<{tag} {attribute}="{kind}"><front-stub><title-group><article-title>{title}'
        f"</article-title></title-group>"
        f"{contrib}{meta}</front-stub><body>{text}</body></{tag}>"
    )


REFEREE = (
    "<contrib-group><contrib contrib-type='author'><name><surname>Roe</surname><given-names>Rae"
    "</given-names></name>"
    "</contrib></contrib-group>"
)
RECOMMENDATION = (
    "<custom-meta-group><custom-meta><meta-name>recommendation</meta-name>"
    "<meta-value>minor-revision</meta-value>"
    "</custom-meta></custom-meta-group>"
)


def test_sub_articles_are_reviews_and_never_body():
    paper = article(
        "<p>Body <xref ref-type='fig' rid='f1'>Fig 1</xref>.</p>",
        back="<ref-list><ref id='b1'><mixed-citation>Own</mixed-citation></ref></ref-list>",
        extra=sub_article(
            "reviewer-report",
            "Review: Melt — R1/PR7",
            "<p>Good.</p><p>Fix it.</p>",
            contrib=REFEREE,
            meta=RECOMMENDATION,
        )
        + sub_article(
            "decision-letter",
            "Decision Letter 0",
            "<sec><title>Major</title><p>Points:</p><list list-type='order'><list-item><p>One"
            "</p></list-item></list></sec>",
        )
        + sub_article("reviewer-report", "Reviewer response for version 2", "<p>Fine.</p>")
        + sub_article(
            "referee-report",
            "Referee #3",
            "<fig id='f1'><label>Fig 1</label><caption><p>Mine</p></caption></fig>",
        )
        + sub_article("translation", "Schmelze", "<p>Eis.</p>")
        + sub_article("reply", "Reply", "<p>Done.</p>", tag="response", attribute="response-type"),
    )
    assert [b.printed() for b in paper.blocks()] == ["Body Fig 1."]
    assert [(r.kind, r.round, r.reviewer, r.rating) for r in paper.reviews] == [
        ("reviewer-report", 1, "Rae Roe", "minor-revision"),
        ("decision-letter", 0, None, None),
        ("reviewer-report", 1, None, None),
        ("referee-report", None, "Referee #3", None),
        ("reply", None, None, None),
    ]
    assert paper.reviews[0].text == "Good.\n\nFix it."
    assert paper.reviews[1].text == "Major\n\nPoints:\n\n1. One"
    assert paper.reviews[3].text == "Fig 1 Mine"
    assert paper.extra == {"translations_skipped": "1"}
    assert [r.title for r in paper.references] == ["Own"]


def test_quotes_of_the_referee_stay_marked_in_a_reply():
    reply = (
        "<p><italic>1) Why</italic> <xref ref-type='fig' rid='f'><italic>Fig. 2</italic></xref>"
        "<italic>?</italic></p>"
        "<p>Because of <italic>ice</italic>.</p><disp-quote><p>And when?</p></disp-quote>"
    )
    paper = article("<p>x</p>", extra=sub_article("reply", "Author response", reply))
    assert paper.reviews[0].text == "> 1) Why Fig. 2?\n\nBecause of ice.\n\n> And when?"
    letter = article(
        "<p>x</p>", extra=sub_article("decision-letter", "Letter", "<p><italic>Reviewer 1:</italic></p>")
    )
    assert letter.reviews[0].text == "Reviewer 1:"


# Envelopes and rejects


def test_doctype_with_remote_dtd_is_accepted_and_never_loaded():
    source = (
        '<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "http://127.0.0.1:9/none.dtd">'
        "<article><front/><body><p>Fine&#160;ice</p></body></article>"
    )
    assert [b.printed() for b in parse_jats(source.encode()).blocks()] == ["Fine\u00a0ice"]


def test_processing_instructions_do_not_cut_text():
    assert printed("<p>sea<?pub Caret?>ice <?x y?>melt</p>") == ["seaice melt"]


def test_namespaced_article_in_an_oai_envelope_is_read():
    source = (
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><metadata>'
        '<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/"><body><sec><title>T'
        "</title><p>x</p></sec></body>"
        "</article></metadata></OAI-PMH>"
    )
    assert outline(parse_jats(source.encode())) == [(1, None, "T", ["x"])]


def test_document_without_one_article_is_refused():
    with pytest.raises(ReadReject, match=r"unknown_format.*<book> holds no <article>"):
        parse_jats(b"<book><p>x</p></book>")
    with pytest.raises(ReadReject, match=r"unknown_format.*several <article>"):
        parse_jats(b"<set><article/><article/></set>")


def test_article_without_words_is_refused():
    with pytest.raises(ReadReject, match="no_text"):
        parse_jats(
            b"<article><front><article-meta/></front><body><sec><title>Data</title></sec></body></article>"
        )


def test_truncated_xml_is_refused_with_its_line():
    with pytest.raises(ReadReject, match=r"malformed_xml.*line 2"):
        parse_jats(b"<article>\n<body><p>cut")


def test_nesting_up_to_the_parser_bound_is_read():
    depth = 120
    source = (
        f"<article><body>{'<sec>' * depth}<p>{'<italic>' * depth}deep{'</italic>' * depth}"
        f"</p>{'</sec>' * depth}</body></article>"
    )
    assert [b.printed() for b in parse_jats(source.encode()).blocks()] == ["deep"]
    lists = "<list><list-item><p>" * 80 + "deep" + "</p></list-item></list>" * 80
    assert [
        b.printed() for b in parse_jats(f"<article><body>{lists}</body></article>".encode()).blocks()
    ] == ["deep"]


def test_floats_nested_without_end_are_refused_instead_of_crashing():
    captions = "<fig><caption>" * 120 + "<p>deep</p>" + "</caption></fig>" * 120
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        with pytest.raises(ReadReject, match=r"unsafe_xml.*nested deeper"):
            article(captions)
    finally:
        sys.setrecursionlimit(limit)


# Properties


@st.composite
def section_trees(draw):
    """Return body XML of nested sections with the words in document order."""
    counter = iter(range(10_000))
    words: list[str] = []

    def word() -> str:
        words.append(f"word{next(counter)}")
        return words[-1]

    def inline(depth: int) -> str:
        wrapper = draw(
            st.sampled_from(
                [
                    "{}",
                    "<italic>{}</italic>",
                    "<sup>{}</sup>",
                    '<xref ref-type="bibr" rid="b">{}</xref>',
                    "<odd>{}</odd>",
                ]
            )
        )
        inner = f" {word()} " if depth == 0 or draw(st.booleans()) else f"{inline(depth - 1)} {word()}"
        return wrapper.format(inner)

    def paragraph() -> str:
        pieces = []
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(["inline", "list", "quote", "fig", "box"]))
            if kind == "inline":
                pieces.append(inline(2))
            elif kind == "list":
                pieces.append(f"<list><list-item><p>{inline(1)}</p><p>{word()}</p></list-item></list>")
            elif kind == "quote":
                pieces.append(f"<disp-quote><p>{word()}</p></disp-quote>")
            elif kind == "fig":
                pieces.append(
                    f"<fig><label>{word()}</label><caption><title>{word()}</title><p>{word()}"
                    f"</p></caption></fig>"
                )
            else:
                pieces.append(f"<boxed-text><sec><title>{word()}</title><p>{word()}</p></sec></boxed-text>")
        return f"<p>{''.join(pieces)} {word()}</p>"

    def section(depth: int) -> str:
        xml = f"<sec><title>{word()}</title>"
        xml += "".join(paragraph() for _ in range(draw(st.integers(0, 2))))
        if depth:
            xml += "".join(section(depth - 1) for _ in range(draw(st.integers(0, 2))))
        return xml + "</sec>"

    xml = "".join(paragraph() for _ in range(draw(st.integers(0, 2))))
    xml += "".join(section(2) for _ in range(draw(st.integers(1, 3))))
    return xml, words


@settings(max_examples=60, deadline=None)
@given(section_trees())
def test_every_word_of_a_section_tree_appears_once_and_in_order(tree):
    xml, words = tree
    found: list[str] = []
    for section in article(xml).sections:
        found += section.heading.split()
        for block in section.blocks:
            found += f"{block.label or ''} {block.printed()}".split()
    assert found == words


# Real files

_MATH = "{http://www.w3.org/1998/Math/MathML}math"
_NOT_PRINTED = {_MATH, "tex-math", "object-id", "alt-text", "permissions", "ref-list"}
_INLINE = {
    "italic",
    "bold",
    "sup",
    "sub",
    "xref",
    "ext-link",
    "sc",
    "underline",
    "monospace",
    "named-content",
}
_INLINE |= {
    "inline-formula",
    "inline-graphic",
    "uri",
    "email",
    "x",
    "alternatives",
    "styled-content",
    "tex-math",
    _MATH,
}
_TEX_IN_STRING = re.compile(r"\$[^$]*[\\^_{][^$]*\$")


def source_words(root, paths) -> Counter[str]:
    pieces: list[str] = []

    def collect(element) -> None:
        if element.tag in _NOT_PRINTED:
            pieces.append(" ")
            return
        border = "" if element.tag in _INLINE else " "
        pieces.extend((border, element.text or ""))
        for child in element:
            collect(child)
            pieces.append(child.tail or "")
        pieces.append(border)

    for path in paths:
        for element in root.findall(path):
            collect(element)
    return count_words("".join(pieces))


def count_words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", unicodedata.normalize("NFKC", text)))


def record_words(paper: Paper) -> Counter[str]:
    pieces = [paper.title]
    for block in [*paper.abstract, *paper.blocks()]:
        is_generated = block.kind == "list" and re.fullmatch(r"•|\w{1,5}\.", block.label or "")
        spans = [" " if (i.kind, i.target) == ("formula", "tex") else i.text for i in block.inlines]
        pieces += ["" if is_generated else block.label or "", "".join(spans)]
        pieces += [_TEX_IN_STRING.sub(" ", cell) for row in block.cells for cell in row]
    for section in paper.sections:
        pieces += [section.number or "", _TEX_IN_STRING.sub(" ", section.heading)]
    return count_words(" ".join(pieces))


def test_every_word_of_every_real_article_is_in_its_record_once(sample_data):
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, remove_comments=True, remove_pis=True)
    paths = sorted(path for path in (sample_data / "jats").glob("*/*") if path.suffix in {".xml", ".nxml"})
    assert len(paths) >= 58
    reviews = 0
    for path in paths:
        root = etree.fromstring(path.read_bytes(), parser)
        paper = parse_jats(path.read_bytes())
        expected = source_words(
            root,
            (
                "front/article-meta/title-group/article-title",
                "front/article-meta/abstract",
                "front/notes",
                "body",
                "back",
            ),
        )
        found = record_words(paper)
        # The headings that stand for an element, and those of the abstract itself, are no words of its text.
        headings = count_words("Acknowledgments Summary Abstract ABSTRACT Graphical abstract")
        assert not set(expected - found) - set(headings), (path.name, expected - found)
        assert not set(found - expected) - set(headings), (path.name, found - expected)
        assert paper.title, path.name
        assert paper.year, path.name
        assert paper.doi, path.name
        assert paper.venue, path.name
        assert paper.license != UNKNOWN_LICENSE, path.name
        assert all(reference.title for reference in paper.references), path.name
        spans = [inline for block in [*paper.abstract, *paper.blocks()] for inline in block.inlines]
        assert all(span.text for span in spans), path.name
        keys = set(paper.reference_by_key())
        targets = {span.target for span in spans if span.kind == "citation"}
        assert targets <= keys, (path.name, targets - keys)
        sub_articles = root.findall("sub-article")
        assert [review.kind for review in paper.reviews] == [s.get("article-type") for s in sub_articles], (
            path.name
        )
        for review, source in zip(paper.reviews, sub_articles, strict=True):
            letter = count_words(review.text)
            assert not source_words(source, ("body",)) - letter, path.name
        reviews += len(sub_articles)
    assert reviews == 27
