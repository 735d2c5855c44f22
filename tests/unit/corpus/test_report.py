"""The data card's numbers are those of the records, on one page that no title can break."""

import json
import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.decontamination.canaries import CanaryCounts
from baltoro.corpus.dedup.records import DUPLICATE_SCHEMA
from baltoro.corpus.report import DataCard, card_files, length_histogram, length_summary, render_html

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("paper_id", "uri", "source", "format", "license", "language")),
        *((name, pa.string()) for name in ("stage", "reason", "detail")),
        ("year", pa.int32()),
        ("characters", pa.int64()),
        ("contaminated", pa.string()),
    ]
)


def kept(paper, *, source="geo", characters=1000, **fields):
    return {
        "paper_id": f"{source}/{paper}",
        "source": source,
        "format": "jats",
        "license": "CC-BY-4.0",
        "characters": characters,
        **fields,
    }


def refused(paper, reason, *, source="geo", detail="found", stage="read"):
    return {
        "paper_id": f"{source}/{paper}",
        "source": source,
        "stage": stage,
        "reason": reason,
        "detail": detail,
    }


def duplicate(paper, of, source="geo"):
    return {
        "paper_id": f"{source}/{paper}",
        "uri": "u",
        "kept_paper_id": f"{source}/{of}",
        "kind": "exact",
        "cluster": f"{source}/{of}",
    }


def make_card(records, duplicates=(), **fields):
    return DataCard.from_build(
        **{
            "name": "demo",
            "fingerprint": "0123456789abcdef",
            "documents_by_split": {"train": 2},
            "metadata": {},
            "cleaned": {},
            "cleaned_papers": {},
            "evaluation_sets": [],
            "items_too_short": 0,
            "canaries": CanaryCounts(),
            **fields,
        },
        records=pa.Table.from_pylist(list(records), schema=SCHEMA),
        duplicates=pa.Table.from_pylist(list(duplicates), schema=DUPLICATE_SCHEMA),
    )


def flow(card):
    return [(f.source, f.papers_read, f.rejected, f.duplicates, f.kept) for f in card.flow]


class Page(HTMLParser):
    """What a browser would run and show."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def page_of(card):
    page = Page(card_files(card)["index.html"].decode())
    return page, " ".join(" ".join(page.text).split())


def test_the_card_counts_what_the_records_say():
    card = make_card(
        [
            kept("a", characters=500, year=2020, language="en"),
            kept("b", characters=3000, year=None, license="unknown"),
            kept("c", characters=500, year=2020),
            refused("d", "empty_file"),
            refused("e", "too_short", stage="filter"),
            kept("f", source="wiki", characters=700, format="plain_text", year=1999),
            refused("g", "empty_file", source="wiki"),
        ],
        [duplicate("c", "a")],
    )
    assert flow(card) == [("geo", 5, 2, 1, 2), ("wiki", 2, 1, 0, 1)]
    assert card.formats == {"jats": 3, "plain_text": 1}
    assert card.reasons == {"empty_file": 2, "too_short": 1}
    assert card.licenses == {"CC-BY-4.0": 2, "unknown": 1}
    assert card.years == {"1999": 1, "2020": 1, "not stated": 1}
    assert card.languages == {"not stated": 2, "en": 1}
    assert card.lengths_characters == (500, 700, 3000)
    assert [row["paper_id"] for row in card.rejects] == ["geo/d", "geo/e", "wiki/g"]
    _, text = page_of(card)
    assert "7 records read = 3 kept + 3 rejected + 1 duplicates." in text
    assert "does not balance" not in text
    assert "geo 5 2 1 2 wiki 2 1 0 1" in text
    assert "geo/c geo/a exact" in text


def test_a_second_record_of_a_duplicates_id_is_one_reject_and_no_second_duplicate():
    card = make_card([kept("a"), kept("b"), refused("b", "duplicate_id")], [duplicate("b", "a")])
    assert flow(card) == [("geo", 3, 1, 1, 1)]


outcomes = st.lists(st.tuples(st.sampled_from(["geo", "wiki"]), st.sampled_from(["kept", "copy", "reject"])))


@given(outcomes)
@settings(max_examples=30, deadline=None)
def test_every_source_balances(outcomes):
    records, duplicates = [], []
    for number, (source, outcome) in enumerate(outcomes):
        records.append(
            refused(number, "empty_file", source=source)
            if outcome == "reject"
            else kept(number, source=source)
        )
        if outcome == "copy":
            duplicates.append(duplicate(number, "x", source))
    card = make_card(records, duplicates)
    assert all(f.papers_read == f.kept + f.rejected + f.duplicates for f in card.flow)
    assert sum(f.kept for f in card.flow) == sum(outcome == "kept" for _, outcome in outcomes)
    assert sum(f.papers_read for f in card.flow) == len(outcomes)


def test_a_card_that_does_not_balance_says_so():
    card = make_card([kept("a")])
    broken = DataCard(
        **{
            **{f: getattr(card, f) for f in DataCard.__slots__},
            "flow": (card.flow[0].__class__("geo", 3, 0, 0, 1),),
        }
    )
    assert "This does not balance." in render_html(broken, b"")


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b < c", "{{ 7 * 7 }}"]
)
def test_no_text_of_a_paper_becomes_markup(text):
    card = make_card(
        [kept(text, license=text, language=text), refused(text + "2", "empty_file", detail=text)],
        metadata={text: {text: 1}},
    )
    page, shown = page_of(card)
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert tags.count("img") == 1
    assert all(name != "onerror" for _, attributes in page.tags for name in attributes)
    assert shown.count(" ".join(text.split())) >= 5


def test_an_empty_corpus_has_a_card_too():
    card = make_card([], documents_by_split={})
    files = card_files(card)
    assert files["lengths.png"].startswith(b"\x89PNG")
    _, text = page_of(card)
    assert "0 records read = 0 kept + 0 rejected + 0 duplicates." in text
    assert json.loads(files["card.json"])["lengths_characters"] == {"count": 0, "sum": 0}


def test_the_page_stands_alone():
    page, _ = page_of(make_card([kept("a"), refused("b", "empty_file")]))
    places = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(places) == 1
    assert places[0].startswith("data:image/png;base64,")


def test_every_reason_on_the_page_is_explained():
    page = card_files(make_card([refused("a", "malformed_xml"), refused("b", "too_short", stage="filter")]))
    html = page["index.html"].decode()
    assert "<b>malformed_xml</b>: XML that is not well-formed" in html
    assert "<b>too_short</b>: fewer characters than corpus.filters.min_characters" in html


def test_card_json_is_for_programs():
    record = json.loads(
        card_files(make_card([kept("a", characters=4), kept("b", characters=8)]))["card.json"]
    )
    assert record["lengths_characters"] == {
        "count": 2, "sum": 12, "min": 4.0, "p05": 4.2, "median": 6.0, "p95": 7.8, "max": 8.0,
    }  # fmt: skip
    assert record["flow"] == [{"source": "geo", "papers_read": 2, "rejected": 0, "duplicates": 0, "kept": 2}]


def test_many_rejects_do_not_fill_the_card():
    records = [refused(number, "empty_file") for number in range(350)] + [kept("a"), kept("b")]
    copies = [kept(f"c{number}") for number in range(250)]
    files = card_files(make_card(records + copies, [duplicate(f"c{n}", "a") for n in range(250)]))
    html = files["index.html"].decode()
    assert len(re.findall("<td>empty_file|>empty_file<td>", html)) >= 200
    assert "geo/199</code>" in html
    assert "geo/200</code>" not in html
    assert "150 more stand in rejects.parquet." in html
    assert "50 more stand in duplicates.parquet." in html
    record = json.loads(files["card.json"])
    assert [len(record["rejects"]), len(record["duplicates"])] == [200, 200]
    assert record["reasons"] == {"empty_file": 350}


def test_the_same_lengths_give_the_same_picture_and_others_another():
    first = length_histogram((100, 200, 5000), title="t")
    assert length_histogram((100, 200, 5000), title="t") == first
    assert length_histogram((100, 200, 9000), title="t") != first


@pytest.mark.parametrize("lengths", [(7,), (1,), (5, 5, 5), (1, 10_000_000)])
def test_any_lengths_make_a_picture(lengths):
    assert length_histogram(lengths, title="t").startswith(b"\x89PNG")
    assert length_summary(lengths)["count"] == len(lengths)


def test_cleaning_decontamination_and_groups_of_copies_are_shown():
    card = make_card(
        [
            kept("a"),
            kept("b"),
            kept("c", contaminated="cut: geo/1 in …"),
            kept("e"),
            refused("d", "contaminated", stage="decontaminate"),
        ],
        [duplicate("b", "a"), duplicate("e", "a")],
        cleaned={"ligatures": 7, "emails": 2},
        cleaned_papers={"ligatures": 3, "emails": 1},
        evaluation_sets=[{"name": "geobench", "records": 9, "items": 12, "empty_records": 0}],
        items_too_short=4,
        canaries=CanaryCounts({"words_8_to_12": 50}, {"words_8_to_12": 49}),
    )
    assert [(row["rule"], row["effects"], row["papers"]) for row in card.cleaning] == [
        ("ligatures", 7, 3),
        ("emails", 2, 1),
    ]
    assert card.decontamination["recall_of_8_or_more_words"] == 0.98
    assert card.clusters == ({"kept": "geo/a", "copies": 2, "kinds": {"exact": 2}},)
    _, text = page_of(card)
    assert "geobench 9 12" in text
    assert "1 documents dropped, 1 cut or reported; 4 items are too short" in text
    assert "words 8 to 12 50 49" in text
    assert "geo/a 2 2 exact" in text


def test_a_card_says_when_nothing_was_looked_for():
    _, text = page_of(make_card([kept("a")]))
    assert "no evaluation set is named (corpus.decontaminate.sets)" in text
