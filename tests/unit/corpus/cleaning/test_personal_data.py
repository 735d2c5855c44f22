"""Masking of addresses and numbers."""

import pytest

from baltoro.corpus.cleaning import CleanConfig, PersonalDataConfig, clean_paper
from baltoro.corpus.cleaning.personal_data import mask_emails, mask_phones
from baltoro.papers.schema import Block, Inline, Review

E = "[EMAIL]"
P = "[PHONE]"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to anna.ek@geo.example.org.", f"Write to {E}."),
        ("(mailto:ek_2@x.edu.cn)", f"({E})"),
        ("ANNA@UIO.NO; b@kuleuven.be", f"{E}; {E}"),
        ("{ek,holm}@uio.no", E),
        ("{ek, bo.holm, li}@cs.uio.no and [a|b]@x.org", f"{E} and {E}"),
        (r"\{ek,holm\}@uio.no", E),
        ("ek [at] uio.no", E),
        ("ek(at)geo(dot)uio(dot)no", E),
        ("ek {at} uio [dot] no", E),
        ("ek at uio dot no", E),
        ("ek @ uio.no", E),
        ("邮箱：li@pku.edu.cn。", f"邮箱：{E}。"),
        ("ek@uio.no/holm@uio.no", f"{E}/{E}"),
    ],
)
def test_addresses_are_masked(text, masked):
    assert mask_emails(text, E) == masked


@pytest.mark.parametrize(
    "text",
    [
        "Recall@k, mean@4 and CC12M@256.",
        "p-GN@CuInS2/C and Fe3O4@SiO2 core shells; Au@C.The next",
        "Xeon CPU @ 3.00 GHz",
        "@nn.compact and @time_varying",
        "git clone git@github.com:x/y.git",
        "MIAI@Grenoble Alpes",
        "sampled at 5 km (at depth) [at 20 °C]",
        "measured at the dot product of a and b",
        "Smith (at x. no data)",
        "https://orcid.org/0000-0002-1825-0097",
    ],
)
def test_what_is_no_address_stays(text):
    assert mask_emails(text, E) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Tel.: 0551 39-12345", f"Tel.: {P}"),
        ("Tel: (555) 123-4567, Fax: (555) 123-4568", f"Tel: {P}, Fax: {P}"),
        ("phone +1-555-123-4567", f"phone {P}"),
        ("Phone number: 555 123 4567.", f"Phone number: {P}."),
        ("Fax +49 (0) 551 39 12346", f"Fax {P}"),
        ("Tel./Fax: 0551 3912345", f"Tel./Fax: {P}"),
        ("办公电话：010-62751234", f"办公电话：{P}"),
        ("тел.: 8 (495) 123-45-67", f"тел.: {P}"),
        ("Tél. : 01 23 45 67 89", f"Tél. : {P}"),
        ("Call +44 20 7946 0958 today", f"Call {P} today"),
        ("(+86) 10 6275 1234", P),
        ("+33 1 23 45 67 89", P),
    ],
)
def test_numbers_are_masked(text, masked):
    assert mask_phones(text, P) == masked


@pytest.mark.parametrize(
    "text",
    [
        "between 1999-2003 and 2019–2020, pp. 1234-1256",
        "by phone 2019-2020 and telephone 1999-2003",
        "doi:10.1234/5678-9012.3456 and 10.1371/journal.pone.0123456",
        "sample 2019-123-4567 and IODP 301-U1301-0456",
        "at 47.512345, +8.541234 and 35°12'34.5\"N, 139 45 30.1 E",
        "Grant No. 41988101, 42341202 and 2020AAA0104903",
        "a change of +10 000 000 years, +12 345 678 m, +1.5 to +2.3 %",
        "δ13C of +12.3456789 and charge +1 234",
        "Tel Aviv 1234567",
        "X + 12 345 678 901 = Y",
        "chr7:+140453136",
        "NCT01234567, ISSN 1234-5678, ISBN 978-3-16-148410-0",
        "telephoned 1234567 households",
        "n = +49 12 34 56 78",
        "Fax 12 and phone 3",
        "the mobile 1000000 m2 phase",
    ],
)
def test_what_is_no_telephone_number_stays(text):
    assert mask_phones(text, P) == text


def test_spans_cells_and_reviews_are_masked_and_lines_of_masks_vanish(make_paper, printed):
    paper = make_paper(
        "Write to ek@uio.no, Tel.: 0551 39-12345.",
        "ek@uio.no, holm@uio.no",
        Block("table", [], [["ek@uio.no"]], "Table 1"),
        Block("paragraph", [Inline("text", "See "), Inline("formula", r"\{a,b\}@uio.no", "tex")]),
    )
    paper.reviews = [Review("decision-letter", "Ask editor@uio.no.")]
    assert clean_paper(paper, CleanConfig()) == {"emails": 6, "phones": 1}
    assert printed(paper) == [f"Write to {E}, Tel.: {P}.", "", f"See {E}"]
    assert list(paper.blocks())[1].cells == [[E]]
    assert paper.reviews[0].text == f"Ask {E}."


def test_masks_are_a_choice(make_paper, printed):
    text = "Write to ek@uio.no, Tel.: 0551 39-12345."
    off = CleanConfig(personal_data=PersonalDataConfig(emails=False, phones=False))
    assert clean_paper(make_paper(text), off) == {}
    paper = make_paper(text)
    clean_paper(paper, CleanConfig(personal_data=PersonalDataConfig(email_token="<mail>", phones=False)))
    assert printed(paper) == ["Write to <mail>, Tel.: 0551 39-12345."]
