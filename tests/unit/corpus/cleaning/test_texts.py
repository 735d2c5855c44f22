"""A survey sees at once what the rules would otherwise look for in every span."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.corpus.cleaning.texts import Survey
from baltoro.papers.schema import Block, Inline, Paper, Section

PIECES = st.sampled_from(
    [
        "ice ",
        "Ã©",
        "é",
        "中",
        "–",
        "\u200b",
        "\t",
        "\n",
        "\x7f",
        "12",
        "3456789",
        " ",
        ".",
        "(at)",
        "[ @ ]",
        "x",
    ]
)


def survey_of(text):
    return Survey.of(Paper(sections=[Section(1, "", None, [Block("paragraph", [Inline("text", text)])])]))


@given(st.lists(PIECES, max_size=30).map("".join))
def test_unusual_are_the_characters_that_are_not_printable_ascii(text):
    expected = {c for c in text if c not in "\t\n" and not (c.isascii() and c.isprintable())}
    assert survey_of(text).unusual == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Call 0551 39-12345 now", ["0551 39-12345 now"]),
        ("é – call 0551 39-12345", ["0551 39-12345"]),
        ("in 2019 and again in summer 2020", []),
        ("123\n4567", []),
        ("5电话12345678", ["5电话12345678", "12345678"]),
        ("1.234.567 and 7654321", ["1.234.567 and 7654321", "7654321"]),
    ],
)
def test_long_numbers_begin_where_seven_digits_follow_closely(text, found):
    survey = survey_of(text)
    assert [survey.text[place:].rstrip("\n") for place in survey.long_numbers] == found


def test_a_bracketed_at_is_found_wherever_it_stands():
    survey = survey_of("é mail li [at] x.org, ek ( @ ) y.org, (a) to (attic)")
    assert [re.match(r".{4}", survey.text[place:])[0] for place in survey.bracketed_at] == ["[at]", "( @ "]


def test_mojibake_is_suspected_only_where_its_sequences_stand():
    assert survey_of("MÃ¼nchen").mojibake
    assert not survey_of("München, Ångström, Ωμέγα").mojibake
