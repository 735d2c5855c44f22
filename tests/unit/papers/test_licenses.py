"""Licences: the spellings of real sources become one identifier, and nothing uncertain is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baltoro.papers.licenses import normalise_license
from baltoro.papers.schema import UNKNOWN_LICENSE

SPELLINGS = {
    "CC-BY-4.0": [
        "https://creativecommons.org/licenses/by/4.0/",
        "http://creativecommons.org/licenses/by/4.0",
        "http://www.creativecommons.org/licenses/by/4.0/legalcode",
        "https://creativecommons.org/licenses/by/4.0/deed.en",
        "creativecommons.org/licenses/by/4.0/",
        "CC BY 4.0",
        "CC-BY-4.0",
        "cc-by-4.0",
        "CC_BY_4.0",
        "  CC   BY\n4.0 ",
        "CC BY 4.0 International",
        "Creative Commons Attribution 4.0 International License",
        "Creative Commons Attribution 4.0 International (CC BY 4.0)",
        "Creative Commons Attribution License (CC BY 4.0)",
    ],
    "CC-BY": [
        "CC BY",
        "cc-by",
        "Creative Commons Attribution License",
        "Creative Commons Attribution (CC BY)",
    ],
    "CC-BY-3.0": ["http://creativecommons.org/licenses/by/3.0/", "Creative Commons Attribution 3.0 Unported"],
    "CC-BY-3.0-IGO": ["https://creativecommons.org/licenses/by/3.0/igo/", "CC-BY-3.0-IGO", "cc-by-3.0-igo"],
    "CC-BY-NC-ND-4.0": [
        "https://creativecommons.org/licenses/by-nc-nd/4.0/",
        "CC BY-NC-ND 4.0",
        "CC BY NC ND 4.0",
        "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International",
    ],
    "CC-BY-NC-ND-1.0": ["http://creativecommons.org/licenses/by-nd-nc/1.0/"],
    "CC-BY-NC-SA": ["CC BY-NC-SA", "Creative Commons Attribution-NonCommercial-ShareAlike"],
    "CC0-1.0": [
        "CC0",
        "cc0-1.0",
        "CC0 1.0 Universal",
        "https://creativecommons.org/publicdomain/zero/1.0/",
        "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication",
        "Creative Commons Zero",
    ],
    "Apache-2.0": [
        "Apache 2.0",
        "apache-2.0",
        "Apache License, Version 2.0",
        "https://www.apache.org/licenses/LICENSE-2.0.txt",
    ],
    "MIT": ["MIT", "mit", "The MIT License", "https://opensource.org/licenses/MIT"],
    "BSD-3-Clause": ["BSD 3-Clause License", "3-clause BSD"],
    "ODC-By-1.0": ["ODC-BY 1.0", "https://opendatacommons.org/licenses/by/1-0/"],
    UNKNOWN_LICENSE: ["", " \n", "unknown", "Unknown"],
}


@pytest.mark.parametrize(
    ("spelling", "identifier"),
    [(spelling, identifier) for identifier, spellings in SPELLINGS.items() for spelling in spellings],
)
def test_every_spelling_of_a_licence_becomes_its_identifier(spelling, identifier):
    assert normalise_license(spelling) == identifier


@pytest.mark.parametrize(
    "text",
    [
        "All rights reserved",
        "public domain",
        "GPL-3.0",
        "Apache",
        "CC BY 5.0",
        "CC BY-ND-SA 4.0",
        "CC BY 4.0 and CC BY-NC 4.0",
        "CC BY 4.0 (CC BY-NC 4.0)",
        "CC BY 4.0 except figure 2",
        "https://creativecommons.org/licenses/by/3.0/xx/",
        "https://creativecommons.org/publicdomain/mark/1.0/",
        "http://arxiv.org/licenses/nonexclusive-distrib/1.0/",
        "https://example.org/creativecommons.org/licenses/by/4.0/",
        "This article is distributed under the terms of the Creative Commons Attribution License, which "
        "permits use in any medium. " * 3 + "CC BY 4.0",
    ],
)
def test_what_is_not_certain_stays_as_it_stands(text):
    assert normalise_license(text) == text


def test_white_space_of_other_statements_is_collapsed():
    assert normalise_license("  Free \n to   read ") == "Free to read"


WORDS = st.lists(
    st.sampled_from(
        [
            "CC",
            "BY",
            "CC0",
            "-",
            " ",
            "NC",
            "nd",
            "4.0",
            "1.0",
            "(",
            ")",
            ".",
            "MIT",
            "the",
            "License",
            "v",
            ",",
        ]
        + ["https://", "creativecommons.org/licenses/", "by", "/", "zero", "igo", "Apache", "2.0", "unknown"]
    ),
    max_size=8,
).map("".join)


@given(
    WORDS | st.text(max_size=40) | st.sampled_from([s for spellings in SPELLINGS.values() for s in spellings])
)
def test_the_result_is_its_own_normal_form(text):
    once = normalise_license(text)
    assert normalise_license(once) == once
