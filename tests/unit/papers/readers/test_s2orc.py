import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.papers.readers.s2orc import parse_s2orc
from baltoro.papers.schema import Inline, ReadReject, paper_to_dict

PROSE = "Melt rises fast [3] as Figure 2 shows."


def paragraph(text=PROSE, section="Results", **spans):
    return {"text": text, "section": section, "cite_spans": [], "ref_spans": [], "eq_spans": [], **spans}


def document(*body, **parse):
    return {"paper_id": "1", "title": "Melt", "abstract": [], "body_text": list(body), **parse}


CITE = {"start": 16, "end": 19, "text": "[3]", "ref_id": "BIBREF2"}
FIGURE = {"start": 23, "end": 31, "text": "Figure 2", "ref_id": "FIGREF1"}
BIB = {
    "BIBREF2": {
        "title": "How melt rises",
        "authors": [{"first": "Ada", "middle": ["B."], "last": "Moss"}],
        "year": 1999,
        "other_ids": {"DOI": ["10.1000/melt"]},
    }
}


def test_spans_are_applied_to_the_raw_text():
    parsed = parse_s2orc(
        document(paragraph("  " + PROSE, cite_spans=[CITE | {"start": 18, "end": 21}]), bib_entries=BIB)
    )
    block = parsed.sections[0].blocks[0]
    assert block.printed() == "  " + PROSE
    assert Inline("citation", "[3]", "BIBREF2") in block.inlines
    reference = parsed.references[0]
    assert (reference.key, reference.title, reference.year) == ("BIBREF2", "How melt rises", 1999)
    assert (reference.authors, reference.doi) == (["Ada B. Moss"], "10.1000/melt")


def test_a_misplaced_span_keeps_its_text_and_is_counted():
    parsed = parse_s2orc(document(paragraph(cite_spans=[CITE | {"start": 2, "end": 5}, CITE | {"end": 999}])))
    assert parsed.sections[0].blocks[0].inlines == [Inline("text", PROSE)]
    assert parsed.extra["misplaced_spans"] == "2"


OFFSETS = st.one_of(st.integers(-9, 60), st.none(), st.floats(), st.text(max_size=2))
SPAN = st.fixed_dictionaries(
    {"start": OFFSETS, "end": OFFSETS}, optional={"ref_id": st.sampled_from(["FIGREF1", None])}
)


@given(
    st.text(string.ascii_letters + " .[]()0\n", max_size=50).filter(str.strip),
    st.lists(SPAN, max_size=5),
    st.lists(SPAN, max_size=5),
    st.lists(SPAN, max_size=5),
)
def test_joined_text_equals_the_paragraph_for_arbitrary_offsets(text, cite, ref, equation):
    parsed = parse_s2orc(document(paragraph(text, cite_spans=cite, ref_spans=ref, eq_spans=equation)))
    (block,) = parsed.blocks()
    if block.kind == "formula":  # white space around a displayed formula is layout
        assert block.printed().strip() == text.strip()
    else:
        assert block.printed() == text


KEYS = ["title", "abstract", "body_text", "text", "section", "cite_spans", "start", "end", "ref_entries"]
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*KEYS, "pdf_parse", "bib_entries"]), JSON_VALUE))
def test_values_of_any_type_give_a_paper_or_a_reject(value):
    try:
        parsed = parse_s2orc(value)
    except ReadReject as reject:
        found = reject.reason
    else:
        found = paper_to_dict(parsed)["title"]
    assert isinstance(found, str)


def test_doc2json_layout_reads_the_parse_and_its_abstract_spans():
    parsed = parse_s2orc(
        {
            "paper_id": "x",
            "title": "Salt",
            "authors": [{"first": "Li", "middle": [], "last": "Wei"}],
            "year": "2011-11",
            "abstract": "Flat text.",
            "pdf_parse": {
                "abstract": [paragraph("Flat text.", "Abstract")],
                "body_text": [paragraph()],
                "back_matter": [paragraph("We thank the crew.", "Acknowledgements")],
            },
        }
    )
    assert (parsed.title, parsed.authors, parsed.year) == ("Salt", ["Li Wei"], 2011)
    assert [(block.printed(), block.label) for block in parsed.abstract] == [("Flat text.", None)]
    assert [section.heading for section in parsed.sections] == ["Results", "Acknowledgements"]


def test_identifiers_of_newer_doc2json_are_the_papers_own():
    named = {"doi": "https://doi.org/10.1234/melt", "pmc_id": "PMC7", "pubmed_id": ""}
    parsed = parse_s2orc(document(paragraph(), identifiers=named))
    assert (parsed.doi, parsed.extra) == ("10.1234/melt", {"pmc_id": "PMC7"})
    assert parse_s2orc(document(paragraph(), doi="10.1000/own", identifiers=named)).doi == "10.1000/own"
    assert parse_s2orc(document(paragraph(), identifiers=["10.1234/melt"])).doi is None


def test_layout_of_2019_with_a_null_parse_takes_the_other():
    parsed = parse_s2orc(
        {
            "paper_id": "x",
            "metadata": {
                "title": "Ice",
                "year": "2017",
                "doi": "10.1000/ice",
                "journal": "J. Ice",
                "abstract": "Short.",
                "pmc_id": "PMC1",
            },
            "latex_parse": None,
            "grobid_parse": {"abstract": [], "body_text": [paragraph()]},
        }
    )
    assert (parsed.title, parsed.year, parsed.doi, parsed.venue) == ("Ice", 2017, "10.1000/ice", "J. Ice")
    assert parsed.abstract[0].printed() == "Short."
    assert parsed.sections[0].blocks[0].printed() == PROSE
    assert parsed.extra == {"pmc_id": "PMC1"}


def test_of_two_parses_latex_is_read_unless_it_lacks_most_of_the_text():
    both = {"grobid_parse": {"body_text": [paragraph("From the PDF of it.")]}}
    assert (
        parse_s2orc(both | {"latex_parse": {"body_text": [paragraph("From the TeX.")]}})
        .sections[0]
        .blocks[0]
        .printed()
        == "From the TeX."
    )
    assert (
        parse_s2orc(both | {"latex_parse": {"body_text": []}}).sections[0].blocks[0].printed()
        == "From the PDF of it."
    )


def test_layout_of_2020_needs_no_metadata():
    parsed = parse_s2orc(
        {"paper_id": "x", "abstract": [paragraph("Short.", None)], "body_text": [paragraph()]}
    )
    assert parsed.title == ""
    assert parsed.abstract[0].printed() == "Short."


def test_a_structured_abstract_keeps_its_headings_as_labels():
    parsed = parse_s2orc({"abstract": [paragraph("We cored.", "Methods")], "body_text": []})
    assert parsed.abstract[0].label == "Methods"


@pytest.mark.parametrize(
    ("section", "number", "expected"),
    [
        ("Methods", None, [(1, None, "Methods")]),
        ("Methods", "2", [(1, "2", "Methods")]),
        ("2.1. Field work", None, [(2, "2.1", "Field work")]),
        (None, None, [(1, None, "")]),
        (["2", "Methods"], None, [(1, "2", "Methods")]),
        ([None, "Methods"], None, [(1, None, "Methods")]),
        ([["2", "Methods"], ["2.1", "Cores"]], None, [(1, "2", "Methods"), (2, "2.1", "Cores")]),
        ("Methods::Cores", "2.1", [(1, None, "Methods"), (2, "2.1", "Cores")]),
    ],
)
def test_sections_in_every_form(section, number, expected):
    parsed = parse_s2orc(document(paragraph(section=section) | {"sec_num": number}))
    assert [(s.level, s.number, s.heading) for s in parsed.sections] == expected


def test_a_parent_section_stands_once_above_its_children():
    parsed = parse_s2orc(
        document(paragraph(section="A::B"), paragraph(section="A::C"), paragraph(section="D"))
    )
    assert [(s.level, s.heading, len(s.blocks)) for s in parsed.sections] == [
        (1, "A", 0),
        (2, "B", 1),
        (2, "C", 1),
        (1, "D", 1),
    ]


REFS = {
    "FIGREF1": {"text": "FIGURE 2 | Depth of melt.", "type": "figure", "latex": None},
    "TABREF0": {
        "text": "Ages of cores.",
        "type": "table",
        "num": "1",
        "content": "<table><tr><th>Core</th><th>Age</th></tr>"
        "<tr><td>K1</td><td>12 <i>ka</i></td></tr></table>",
    },
}


def test_a_figure_stands_once_after_its_first_mention_and_unmentioned_ones_at_the_end():
    mention = paragraph(ref_spans=[FIGURE])
    parsed = parse_s2orc(
        document(
            mention,
            paragraph("Between."),
            mention,
            ref_entries=REFS,
            back_matter=[paragraph("Thanks.", "Acknowledgements")],
        )
    )
    kinds = [block.kind for block in parsed.sections[0].blocks]
    assert kinds == ["paragraph", "figure", "paragraph", "paragraph", "table"]
    figure, table = parsed.sections[0].blocks[1], parsed.sections[0].blocks[4]
    assert (figure.label, figure.printed(), figure.ref_id) == ("FIGURE 2", "Depth of melt.", "FIGREF1")
    assert (table.label, table.cells) == ("Table 1", [["Core", "Age"], ["K1", "12 ka"]])


def test_an_unlinked_mention_finds_its_figure_by_label():
    parsed = parse_s2orc(document(paragraph(ref_spans=[FIGURE | {"ref_id": None}]), ref_entries=REFS))
    assert Inline("figure_ref", "Figure 2", "FIGREF1") in parsed.sections[0].blocks[0].inlines


def test_placeholders_of_latex_are_printed_as_what_they_stand_for():
    text = "See BIBREF2 and Figure FIGREF1 for INLINEFORM0 there FOOTREF4 ."
    start = text.index("INLINEFORM0")
    spans = {
        "cite_spans": [{"start": 4, "end": 11, "text": 1, "ref_id": "BIBREF2"}],
        "eq_spans": [
            {"start": start, "end": start + 11, "text": "x 2", "latex": "x^2", "ref_id": "INLINEFORM0"}
        ],
    }
    refs = REFS | {"FOOTREF4": {"text": "In summer.", "type": "footnote", "num": "1"}}
    refs["FIGREF1"] = {"text": "Depth, after BIBREF2 .", "type": "figure", "num": "7"}
    parsed = parse_s2orc(document(paragraph(text, **spans), bib_entries=BIB, ref_entries=refs))
    block, figure, note = parsed.sections[0].blocks[:3]
    assert block.printed() == "See [1] and Figure 7 for x^2 there 1 ."
    assert [inline.kind for inline in block.inlines if inline.kind != "text"] == [
        "citation",
        "figure_ref",
        "formula",
        "note_ref",
    ]
    assert (figure.label, figure.printed()) == ("Figure 7", "Depth, after [1] .")
    assert (note.kind, note.label, note.printed()) == ("note", "1", "In summer.")


def test_a_displayed_formula_is_a_block_with_its_number():
    span = {"start": 0, "end": 8, "text": "EQUATION", "ref_id": "EQREF", "raw_str": "a = b ", "eq_num": "(3)"}
    block = parse_s2orc(document(paragraph("EQUATION", eq_spans=[span]))).sections[0].blocks[0]
    assert (block.kind, block.label, block.inlines) == ("formula", "(3)", [Inline("formula", "a = b")])


def test_a_formula_without_content_leaves_no_placeholder_and_is_counted():
    parsed = parse_s2orc(document(paragraph("Thus DISPLAYFORM0 holds.")))
    assert parsed.sections[0].blocks[0].printed() == "Thus  holds."
    assert parsed.extra["formulas_not_decoded"] == "1"


def test_nothing_but_empty_fields_is_no_text():
    with pytest.raises(ReadReject, match="neither title, abstract nor body text"):
        parse_s2orc({"paper_id": "1", "metadata": {"title": ""}, "grobid_parse": None, "latex_parse": None})


def test_real_samples_keep_every_paragraph_and_link_citations(sample_data):
    for path in sorted((sample_data / "s2orc_json").rglob("*.json")):
        raw = json.loads(path.read_text())
        parse = raw.get("pdf_parse") or raw["grobid_parse"]
        parsed = parse_s2orc(raw)
        printed = [block.printed() for block in parsed.blocks() if block.kind == "paragraph"]
        assert printed == [item["text"] for item in parse["body_text"]]
        targets = [i.target for b in parsed.blocks() for i in b.inlines if i.kind == "citation" and i.target]
        assert set(targets) <= parsed.reference_by_key().keys()
        assert len(targets) == sum(
            bool(s["ref_id"]) for item in parse["body_text"] for s in item["cite_spans"]
        )
        assert "misplaced_spans" not in parsed.extra
