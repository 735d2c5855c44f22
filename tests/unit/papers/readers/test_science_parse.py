import pytest

from baltoro.papers.readers import science_parse
from baltoro.papers.readers.science_parse import parse_science_parse
from baltoro.papers.schema import Inline, ReadReject

TEXT = (
    "Melt rises (Moss et al., 2016; Wei and Li, 2017), and cracks\nopen above it [4].\n"
    "Cracks close again (Kern, 2012)."
)
REFERENCES = [
    {"title": "How melt rises", "author": ["Ada Moss", "Bo Kern."], "venue": "J. Melt", "year": 2016},
    {"title": "Why cracks open", "author": ["Xu Wei", "Bo Li."], "year": 2017},
    {"title": "Closing", "author": ["Bo Kern."], "venue": None, "year": 2012},
    {"title": "Fourth", "author": [], "year": 2001},
]


def mention(reference, context, cited):
    start = context.index(cited)
    return {
        "referenceID": reference,
        "context": context,
        "startOffset": start,
        "endOffset": start + len(cited),
    }


CONTEXT = "Melt rises (Moss et al., 2016; Wei and Li, 2017), and cracks open above it [4]."
MENTIONS = [
    mention(0, CONTEXT, "(Moss et al., 2016; Wei and Li, 2017)"),
    mention(1, CONTEXT, "(Moss et al., 2016; Wei and Li, 2017)"),
    mention(3, CONTEXT, "[4]"),
    mention(2, "Cracks close again (Kern, 2012).", "(Kern, 2012)"),
]


def document(**metadata):
    inner = {
        "title": "Melt",
        "authors": ["Ada Moss"],
        "year": 2018,
        "abstractText": "Short.\nVery.",
        "sections": [{"heading": "2.1 Cracks", "text": TEXT}],
        "references": REFERENCES,
        "referenceMentions": MENTIONS,
    }
    return {"name": "1.pdf", "id": "1", "metadata": inner | metadata}


def test_mentions_are_found_across_line_ends_and_split_between_their_references():
    paper = parse_science_parse(document())
    first, second = paper.sections[0].blocks
    assert first.printed() == TEXT.split("\nCracks", maxsplit=1)[0].replace("\n", " ")
    assert second.printed() == "Cracks close again (Kern, 2012)."
    citations = [inline for block in (first, second) for inline in block.inlines if inline.kind == "citation"]
    assert citations == [
        Inline("citation", "(Moss et al., 2016", "0"),
        Inline("citation", " Wei and Li, 2017)", "1"),
        Inline("citation", "[4]", "3"),
        Inline("citation", "(Kern, 2012)", "2"),
    ]
    assert paper.reference_by_key()["1"].title == "Why cracks open"


def test_metadata_and_numbered_headings():
    paper = parse_science_parse(document())
    assert (paper.title, paper.authors, paper.year) == ("Melt", ["Ada Moss"], 2018)
    assert paper.abstract[0].printed() == "Short. Very."
    section = paper.sections[0]
    assert (section.level, section.number, section.heading) == (2, "2.1", "Cracks")


def test_a_null_heading_title_and_lists_are_read_as_empty():
    paper = parse_science_parse(
        document(
            title=None,
            authors=None,
            sections=[{"heading": None, "text": "Word."}],
            references=None,
            referenceMentions=None,
        )
    )
    assert (paper.title, paper.authors, paper.sections[0].heading) == ("", [], "")


def test_the_layout_without_a_metadata_object_is_read():
    paper = parse_science_parse(document()["metadata"])
    assert paper.title == "Melt"
    assert len(paper.sections[0].blocks) == 2


def test_mentions_with_wrong_offsets_or_ids_change_no_text():
    wrong = [
        {"referenceID": 99, "context": CONTEXT, "startOffset": 0, "endOffset": 4},
        {"referenceID": 0, "context": CONTEXT, "startOffset": 5, "endOffset": 4000},
        {"referenceID": 0, "context": "not in the text", "startOffset": 0, "endOffset": 3},
        {"referenceID": None, "context": None, "startOffset": None, "endOffset": None},
    ]
    paper = parse_science_parse(document(referenceMentions=wrong))
    assert [inline.kind for block in paper.blocks() for inline in block.inlines] == ["text", "text"]


def test_the_search_for_contexts_is_bounded_and_the_rest_is_counted(monkeypatch):
    monkeypatch.setattr(science_parse, "MAX_SEARCHED_CHARACTERS", 5 * len(TEXT))
    absent = [mention(0, f"Nowhere {number} (Moss).", "(Moss)") for number in range(5)]
    paper = parse_science_parse(document(referenceMentions=[*absent, *MENTIONS]))
    assert paper.extra["mentions_not_searched"] == "6"
    assert [inline.kind for block in paper.blocks() for inline in block.inlines] == ["text", "text"]
    within = parse_science_parse(document(referenceMentions=[absent[0], *MENTIONS]))
    assert "mentions_not_searched" not in within.extra
    assert "citation" in {inline.kind for block in within.blocks() for inline in block.inlines}


def test_a_citation_of_absurdly_many_works_is_one_span():
    cited = "(" + "Moss, 2016;" * 5_000 + ")"
    text = f"Melt {cited}."
    mentions = [mention(number, text, cited) for number in range(4)]
    paper = parse_science_parse(
        document(sections=[{"heading": None, "text": text}], referenceMentions=mentions)
    )
    assert [inline.kind for inline in paper.sections[0].blocks[0].inlines] == ["text", "citation", "text"]


def test_margin_line_numbers_are_left_out_and_counted_but_short_number_lines_stay():
    numbered = "Melt rises\n001\n002\n003 004 005\nto the crust.\n12\nEnd."
    paper = parse_science_parse(
        document(sections=[{"heading": None, "text": numbered}], referenceMentions=[])
    )
    assert [block.printed() for block in paper.blocks()] == ["Melt rises to the crust.", "12", "End."]
    assert paper.extra["line_numbers_removed"] == "5"


def test_a_long_row_of_digits_is_read_in_linear_time():
    digits = "1" * 50_000 + "a"
    paper = parse_science_parse(document(sections=[{"heading": None, "text": digits}], referenceMentions=[]))
    assert [block.printed() for block in paper.blocks()] == [digits]


def test_nothing_but_nulls_is_no_text():
    with pytest.raises(ReadReject, match="neither title, abstract nor section text"):
        parse_science_parse(document(title=None, abstractText=None, sections=None))
