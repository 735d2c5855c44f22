import pytest

from baltoro.papers.fields import (
    doi_of,
    label_key,
    level_of_number,
    people_of,
    person_of,
    split_heading,
    split_label,
    words_of,
    year_of,
)


@pytest.mark.parametrize(
    ("value", "year"),
    [
        (2017, 2017),
        ("2011-11", 2011),
        (2017.0, 2017),
        ("May 1999", 1999),
        ("", None),
        (None, None),
        (True, None),
        ("12017", None),
    ],
)
def test_years_are_found_in_numbers_and_dates(value, year):
    assert year_of(value) == year


@pytest.mark.parametrize(
    ("value", "doi"),
    [
        ("https://doi.org/10.1000/melt.", "10.1000/melt"),
        ("doi:10.1016/S1572-1000(05", "10.1016/S1572-1000(05"),
        (["10.1000/a", "10.1000/b"], "10.1000/a"),
        ("none", None),
        ([], None),
    ],
)
def test_dois_are_made_bare(value, doi):
    assert doi_of(value) == doi


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"first": "Ada", "middle": ["B.", "C."], "last": "Moss", "suffix": "Jr"}, "Ada B. C. Moss Jr"),
        ({"given": "Ada", "family": "Moss"}, "Ada Moss"),
        ({"name": " Ada  Moss "}, "Ada Moss"),
        ({"first": None, "middle": None, "last": "", "suffix": ""}, ""),
        ("Ada\nMoss", "Ada Moss"),
        (None, ""),
    ],
)
def test_names_are_put_together_from_their_parts(value, name):
    assert person_of(value) == name


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("Ada Moss; Li, Wei", ["Ada Moss", "Li, Wei"]),
        ("Ada Moss, Li Wei", ["Ada Moss", "Li Wei"]),
        ("Moss, A.", ["Moss, A."]),
        (["Ada Moss", {"last": "Wei"}, None], ["Ada Moss", "Wei"]),
        (None, []),
    ],
)
def test_one_text_of_names_is_split_where_that_is_certain(value, names):
    assert people_of(value) == names


def test_keywords_are_split():
    assert words_of("melt; ice, blue") == ["melt", "ice, blue"]
    assert words_of("melt, ice") == ["melt", "ice"]


@pytest.mark.parametrize(
    ("text", "number", "heading", "level"),
    [
        ("2.1 Data", "2.1", "Data", 2),
        ("2. Data", "2", "Data", 1),
        ("IV. RESULTS", "IV", "RESULTS", 1),
        ("A.1 Proofs", "A.1", "Proofs", 2),
        ("A study of ice", None, "A study of ice", 1),
        ("2019 in review", None, "2019 in review", 1),
        ("3", None, "3", 1),
        ("Data", None, "Data", 1),
    ],
)
def test_printed_numbers_are_taken_off_headings(text, number, heading, level):
    assert split_heading(text) == (number, heading)
    assert level_of_number(number) == level


@pytest.mark.parametrize(
    ("caption", "label", "rest"),
    [
        ("FIGURE 1 | Map.", "FIGURE 1", "Map."),
        ("Fig. 2: Map.", "Fig. 2", "Map."),
        ("Table II. Ages – all.", "Table II", "Ages – all."),
        ("Figure 3", "Figure 3", ""),
        ("Tables of ages.", None, "Tables of ages."),
        ("Map.", None, "Map."),
    ],
)
def test_labels_are_taken_off_captions(caption, label, rest):
    assert split_label(caption) == (label, rest)


def test_two_spellings_of_a_label_are_the_same():
    assert label_key("Fig. 2") == label_key("FIGURE 2") == ("fig", "2")
    assert label_key("Section 2") is None
