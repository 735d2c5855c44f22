"""The short cuts that readers take in long texts give what the plain way gives."""

from hypothesis import given
from hypothesis import strategies as st

from baltoro.papers.readers._builder import citations, entries
from baltoro.papers.readers._markup import inline
from baltoro.papers.readers._text import collapse, find_long

SPACED = st.text(st.sampled_from("ab.é\u200b \n\t\r\xa0\u2009\u2028\x1c\x85"), max_size=40)
MARKED = st.text(st.sampled_from("ab .;:/![](){}<>&#`^-1\n\xa0"), max_size=40)


@given(SPACED)
def test_collapse_splits_and_joins(text):
    assert collapse(text) == " ".join(text.split())


@given(st.text("ab", max_size=80), st.text("ab", max_size=50), st.integers(0, 90))
def test_find_long_finds_what_find_finds(text, part, start):
    assert find_long(text, part, start) == text.find(part, start)


def test_find_long_finds_a_part_whose_beginning_stands_elsewhere_first():
    part = "melt rises through the crust of the earth"
    text = f"{part[:35]} sea, and {part}"
    assert find_long(text, part, 0) == text.index(part) > 0
    assert find_long(text, part + "s", 0) == -1


@given(MARKED, st.sampled_from(["nougat", "markdown"]))
def test_text_that_cannot_hold_markup_is_what_the_inline_parser_makes_of_it(text, dialect):
    if not inline._may_hold_markup(text, dialect):
        parsed = inline._InlineParser(text, dialect, frozenset()).parse()
        assert inline.parse_inlines(text, dialect) == parsed
        assert inline.without_markup(text, dialect) == "".join(span.text for span in parsed)


@given(st.text(st.sampled_from("AZazéÀßΣ²½"), min_size=1, max_size=8))
def test_a_word_of_letters_with_a_capital_is_a_name_by_the_expression_too(word):
    if word.isalpha() and "A" <= word[0] <= "Z":
        assert entries._NAME_WORD.match(word)


@given(st.text(st.sampled_from("12890 2ab-.,"), max_size=30))
def test_the_printed_year_is_the_last_one_that_the_expression_finds(body):
    found = list(entries._YEAR.finditer(body))
    assert entries._printed_year(body) == (found[-1][1] + found[-1]["suffix"] if found else "")


def joined(*parts):
    return st.lists(st.sampled_from(parts), max_size=8).map("".join)


@given(joined("Fig", "fIG", "F\u0131g", "Tables", "tab", "figure", "stable", " ", ".", "2", "S1", "A", "3.1"))
def test_mentions_are_those_of_the_whole_expression(text):
    found = list(citations._MENTION.finditer(text))
    blocks = {("figure" if m["kind"][0] in "fF" else "table", m["number"].lower()): "there" for m in found}
    marks = citations.CitationIndex(blocks=blocks)._mention_marks(text)
    assert [(mark.start, mark.end) for mark in marks] == [match.span() for match in found]


@given(
    joined("Melt", " ", ", ", "May", "Septemb", "ber", "augu\u017ft", "2011", "(1999)", "20", ".", " (also")
)
def test_the_date_behind_a_title_goes_as_the_expression_says(title):
    title = title.strip()
    assert entries._without_date(title) == entries._TITLE_TAIL.sub("", title)


@given(joined("Li", " ", ", ", "et al", "Et. Al.", "and others", "and other\u017f", "\n", "."))
def test_the_others_behind_names_go_as_the_expression_says(names):
    assert entries._without_others(names) == entries._OTHERS.sub("", names)
