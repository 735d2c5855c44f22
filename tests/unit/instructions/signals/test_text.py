from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.instructions.signals.text import Flow, PaperTexts, sentences
from baltoro.papers.schema import INLINE_KINDS, Block, Inline, Paper


@pytest.mark.parametrize(
    "text",
    [
        "Moraines formed as described by Ek et al. in 1998.",
        "The slope (cf. Fig. 3) is steep.",
        "Samples of P. falciparum were kept cold.",
        "It melts, e.g. In spring, and freezes.",
        "The rate was 3.5 mm per year.",
        "Methods\nP. falciparum was kept cold.",
        "Cold (P. Ek) and [e.g. Ice] stayed.",
    ],
)
def test_abbreviations_initials_and_numbers_end_no_sentence(text):
    assert sentences(text) == [text]


def test_marks_after_a_stop_belong_to_the_sentence_before():
    assert sentences("Ice thins. [3, 4] Melt follows. “Truly.” Then it stops") == [
        "Ice thins. [3, 4]",
        "Melt follows.",
        "“Truly.”",
        "Then it stops",
    ]


def test_a_bare_number_gets_brackets_unless_it_stands_in_some():
    flow = Flow(
        [
            Inline("text", "Ice thins"),
            Inline("citation", "⁷", "b7"),
            Inline("text", " and melts ["),
            Inline("citation", "8", "b8"),
            Inline("text", ", "),
            Inline("citation", "9", "b9"),
            Inline("text", "]."),
        ]
    )
    assert flow.text == "Ice thins [7] and melts [8, 9]."


def test_a_long_list_of_marks_stays_in_its_one_bracket():
    inlines = [Inline("text", "Many worked on it ")]
    for n in range(10, 30):
        inlines += [Inline("citation", f"[{n}" if n == 10 else str(n), f"b{n}"), Inline("text", "; ")]
    inlines[-1] = Inline("text", "].")
    assert Flow(inlines).text.count("[") == 1


def test_latex_stands_in_dollars_and_note_marks_vanish():
    flow = Flow(
        [
            Inline("text", "Let "),
            Inline("formula", "x^2", "tex"),
            Inline("text", " be"),
            Inline("note_ref", "1", "n1"),
            Inline("text", " small."),
        ]
    )
    assert flow.text == "Let $x^2$ be small."


def test_no_sentence_ends_inside_a_citation():
    flow = Flow(
        [
            Inline("text", "Ice thins ("),
            Inline("citation", "Ek, J. T. Holm. 2010", "b1"),
            Inline("text", "). It melts."),
        ]
    )
    texts = [flow.text[start:end] for start, end in flow.sentence_spans]
    assert texts == ["Ice thins (Ek, J. T. Holm. 2010).", "It melts."]


_INLINES = st.lists(
    st.builds(
        Inline,
        st.sampled_from(INLINE_KINDS),
        st.text(alphabet="aB1 .[](,\n\u00a0²", max_size=12),
        st.sampled_from([None, "tex", "b1"]),
    ),
    max_size=8,
)


@given(_INLINES)
@settings(max_examples=80)
def test_spans_point_at_their_text_and_sentences_cover_everything_printed(inlines):
    flow = Flow(inlines)
    assert "  " not in flow.text.replace("$ ", "$").replace(" $", "$")
    assert all(span.start < span.end for span in flow.spans)
    assert all(a.end <= b.start for a, b in pairwise(flow.spans))
    spans = flow.sentence_spans
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(place in covered for place, c in enumerate(flow.text) if not c.isspace())
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    if spans:
        assert all(0 <= flow.sentence_at(place) < len(spans) for place in range(len(flow.text)))


def test_an_abstract_keeps_its_parts_and_loses_what_is_none():
    paper = Paper(
        abstract=[
            Block("paragraph", [Inline("text", "Ice thins.")], label="Background"),
            Block("paragraph", [Inline("text", "Much. DOI: https://doi.org/10.1/x")], label="Results"),
            Block("paragraph", [Inline("text", "See the web.")], label="Supplementary Information"),
        ]
    )
    assert PaperTexts(paper).abstract == "Background: Ice thins. Results: Much."
