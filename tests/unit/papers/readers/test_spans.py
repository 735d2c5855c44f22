import string

from hypothesis import given
from hypothesis import strategies as st

from baltoro.papers.readers._spans import Span, inlines_from_spans
from baltoro.papers.schema import Inline

OFFSET = st.integers(min_value=-5, max_value=45)
KIND = st.sampled_from(["citation", "figure_ref", "text"])
SPAN = st.builds(Span, OFFSET, OFFSET, KIND, st.just("b1"), st.none())


@given(st.text(string.printable, max_size=40), st.lists(SPAN, max_size=8))
def test_every_character_is_printed_once_for_any_offsets(text, spans):
    assert "".join(inline.text for inline in inlines_from_spans(text, spans)) == text


@given(st.text(string.printable, max_size=40), st.lists(SPAN, max_size=8), st.data())
def test_a_part_of_a_text_is_cut_like_a_text_of_its_own(text, spans, data):
    begin = data.draw(st.integers(0, len(text)))
    limit = data.draw(st.integers(begin, len(text)))
    shifted = [span._replace(start=span.start - begin, end=span.end - begin) for span in spans]
    expected = inlines_from_spans(text[begin:limit], shifted)
    assert inlines_from_spans(text, spans, begin, limit) == expected


def test_of_overlapping_spans_the_later_keeps_the_rest():
    inlines = inlines_from_spans(
        "see [1, 2] here", [Span(4, 7, "citation", "a"), Span(5, 10, "citation", "b")]
    )
    assert inlines == [
        Inline("text", "see "),
        Inline("citation", "[1,", "a"),
        Inline("citation", " 2]", "b"),
        Inline("text", " here"),
    ]


def test_a_replacement_prints_in_place_of_the_stretch():
    inlines = inlines_from_spans("with FORM0 here", [Span(5, 10, "formula", "tex", "x^2")])
    assert inlines == [Inline("text", "with "), Inline("formula", "x^2", "tex"), Inline("text", " here")]


def test_an_overlapped_placeholder_stays_as_text_instead_of_being_replaced():
    spans = [Span(0, 7, "citation", "a"), Span(5, 10, "formula", "tex", "x^2")]
    assert inlines_from_spans("with FORM0", spans) == [
        Inline("citation", "with FO", "a"),
        Inline("text", "RM0"),
    ]
