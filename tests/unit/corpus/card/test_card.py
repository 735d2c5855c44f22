"""The data card's numbers are those of the figures, on one page that no title can break."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.card import DataCard, card_files
from baltoro.corpus.card.card import NameCounts, length_bins, length_summary
from baltoro.corpus.card.page import size_classes
from baltoro.corpus.card.svg import clip, width_of
from baltoro.corpus.decontamination.canaries import CanaryCounts, MissedCanary
from baltoro.corpus.documents import DOCUMENT_REASONS
from baltoro.corpus.figures import VENUES_BOUND, Amount, Figures, SourceFigures
from baltoro.corpus.tallies import Lengths, Tally
from baltoro.papers.schema import READ_REASONS

SVG = "{http://www.w3.org/2000/svg}"


def lengths(*values):
    return Lengths.of(np.array(values, np.int64))


def tally(bound=1024, missing=0, **counts):
    return Tally(bound, missing, {name.replace("_", " "): (count, 1) for name, count in counts.items()})


def source(number=0, kept=0, rejected=None, copies=None, splits=None, read=None, **fields):
    rejected, copies = rejected or {}, copies or {}
    splits = splits or ({"train": kept} if kept else {})
    accounted = sum(splits.values()) + sum(rejected.values()) + sum(copies.values())
    return SourceFigures(
        number,
        accounted if read is None else read,
        {split: Amount(count, 1000 * count, 1010 * count) for split, count in splits.items()},
        {("filter" if r in DOCUMENT_REASONS else "read", r): Amount(count) for r, count in rejected.items()},
        {kind: Amount(count, 1000 * count) for kind, count in copies.items()},
        **fields,
    )


def rows(*fields):
    return tuple((number, number, json.dumps(row)) for number, row in enumerate(fields))


def reject_rows(count, reason="empty_file"):
    return rows(
        *(
            {"paper_id": f"geo/{n}", "stage": "read", "reason": reason, "detail": f"{n} bytes"}
            for n in range(count)
        )
    )


def make_card(figures=None, **fields):
    return DataCard.from_figures(
        **{
            "name": "demo",
            "fingerprint": "0123456789abcdef",
            "figures": figures if figures is not None else Figures(sources={"geo": source(kept=2)}),
            "cleaned": {},
            "cleaned_papers": {},
            "evaluation_sets": [],
            "items_too_short": 0,
            "canaries": CanaryCounts(),
            "metadata_rows": {},
            **fields,
        }
    )


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


def drawn_texts(svg):
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def full_figures():
    return Figures(
        sources={
            "wiki": source(9, kept=1, rejected={"empty_file": 1}),
            "geo": source(
                0,
                splits={"train": 1, "validation": 1},
                rejected={"empty_file": 1, "too_short": 1},
                copies={"exact": 1},
            ),
        },
        formats=tally(jats=3, plain_text=1),
        languages=tally(missing=2, en=1),
        licenses=tally(unknown=1, CC0=2),
        venues=tally(VENUES_BOUND, missing=1, Tellus=2),
        years=tally(**{"2020": 1, "1999": 1}, missing=1),
        lengths=lengths(500, 700, 3000),
        samples={
            "rejects": reject_rows(3),
            "duplicates": rows({"paper_id": "geo/c", "kept_paper_id": "geo/a", "kind": "exact"}),
        },
    )


def test_the_card_counts_what_the_figures_say():
    card = make_card(full_figures())
    flow = [(f.source, f.papers_read, f.rejected, f.duplicates, f.kept) for f in card.flow]
    assert flow == [("geo", 5, 2, 1, 2), ("wiki", 2, 1, 0, 1)]
    assert card.reasons == {"empty_file": 2, "too_short": 1}
    assert card.duplicates_by_kind == {"exact": 1, "version": 0, "near": 0}
    assert card.splits == {"train": 2, "validation": 1}
    assert card.text_bytes == 3030
    assert card.formats.counts == {"jats": 3, "plain text": 1}
    assert (card.languages.counts, card.languages.not_stated) == ({"en": 1}, 2)
    assert list(card.years.counts.items()) == [("1999", 1), ("2020", 1)]
    _, text = page_of(card)
    assert "7 records read = 3 kept + 3 rejected + 1 duplicates." in text
    assert "does not balance" not in text
    assert "geo 5 2 1 2 40.0 % 0.00 wiki 2 1 0 1 50.0 % 0.00" in text
    assert "geo/c geo/a exact" in text
    assert "1 kept documents do not state their year." in text


def test_a_card_that_does_not_balance_says_so():
    _, text = page_of(make_card(Figures(sources={"geo": source(kept=1, read=3), "b": source(kept=2)})))
    assert "This does not balance." in text


outcomes = st.dictionaries(
    st.sampled_from(["geo", "wiki", "地质"]),
    st.tuples(
        st.integers(0, 9),
        st.dictionaries(st.sampled_from([*READ_REASONS]), st.integers(1, 9)),
        st.integers(0, 3),
    ),
)


@given(outcomes)
@settings(max_examples=30, deadline=None)
def test_every_corpus_has_a_card_that_balances(outcomes):
    sources = {
        name: source(number, kept, rejected, {"near": copies} if copies else {})
        for number, (name, (kept, rejected, copies)) in enumerate(outcomes.items())
    }
    card = make_card(Figures(sources=sources))
    assert card.balanced
    assert card.papers_read == card.kept + card.rejected + card.gave_way
    files = card_files(card)
    assert set(files) == {"index.html", "card.json", "flow.svg", "lengths.svg", "years.svg"}
    for name in ("flow.svg", "lengths.svg", "years.svg"):
        ET.fromstring(files[name])


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "a & b < c",
        "{{ 7 * 7 }}",
        "a\x00b\x1bc]]>",
    ],
)
def test_no_text_of_a_paper_becomes_markup(text):
    shown_as = re.sub("[\x00-\x1f]", "�", text)
    row = {
        "paper_id": text,
        "stage": text,
        "reason": text,
        "detail": text,
        "kept_paper_id": text,
        "kind": text,
    }
    kept = {**dict.fromkeys(("paper_id", "format", "license", "language", "venue", "split", "excerpt"), text)}
    card = make_card(
        Figures(
            sources={text: source(kept=1, copies={text: 1}, matched=1)},
            licenses=Tally(9, 0, {text: (1, 1)}),
            samples={
                "rejects": rows(row),
                "duplicates": rows(row),
                "kept": rows({**kept, "year": 2001, "characters": 900}),
                f"kind:{text}": rows({**row, "excerpt": text}),
            },
        ),
        name=text,
        metadata_rows={text: 1},
        clusters=[{"kept": text, "copies": 1, "kinds": {text: 1}}],
        evaluation_sets=[{"name": text, "records": 1, "items": 1}],
    )
    page, shown = page_of(card)
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "img"} & set(tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert shown.count(" ".join(shown_as.split())) >= 15
    for name in ("flow.svg", "lengths.svg", "years.svg"):
        assert shown_as in ET.fromstring(card_files(card)[name]).attrib["aria-label"]


def test_an_empty_corpus_has_a_card_too():
    card = make_card(Figures())
    _, text = page_of(card)
    assert "0 records read = 0 kept + 0 rejected + 0 duplicates." in text
    for said in (
        "no records were read",
        "no documents were kept",
        "no record was rejected",
        "no kept document states",
    ):
        assert said in text
    assert json.loads(card_files(card)["card.json"])["lengths_characters"] == {"count": 0, "sum": 0}


def test_the_page_stands_alone_and_runs_nothing():
    page, _ = page_of(make_card(full_figures()))
    places = [
        value for _, a in page.tags for name, value in a.items() if name in ("src", "href", "xlink:href")
    ]
    assert places
    assert all(place.startswith("#") for place in places)
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {place[1:] for place in places} <= targets
    assert [tag for tag, _ in page.tags].count("svg") == 3
    html = card_files(make_card(full_figures()))["index.html"].decode()
    assert not re.search(r"url\(|@import|<script|<link", html)


def test_equal_figures_give_equal_bytes():
    assert card_files(make_card(full_figures())) == card_files(make_card(full_figures()))
    again = Figures.from_json((Figures() + full_figures()).to_json())
    assert card_files(make_card(again)) == card_files(make_card(full_figures()))
    assert card_files(make_card())["flow.svg"] != card_files(make_card(full_figures()))["flow.svg"]


def test_every_reason_on_the_page_is_explained():
    every = dict.fromkeys([*READ_REASONS, *DOCUMENT_REASONS], 1)
    _, text = page_of(make_card(Figures(sources={"geo": source(rejected=every)})))
    for reason, meaning in (READ_REASONS | DOCUMENT_REASONS).items():
        assert f"{reason} {' '.join(meaning.split())} 1" in text


def test_card_json_is_for_programs():
    record = json.loads(
        card_files(make_card(Figures(sources={"geo": source(kept=2)}, lengths=lengths(4, 8))))["card.json"]
    )
    assert record["lengths_characters"] == {
        "count": 2, "sum": 12, "min": 4, "p05": 4.2, "p25": 5.0, "median": 6.0, "p75": 7.0, "p95": 7.8,
        "max": 8, "quantile_error_fraction": 0.01,
    }  # fmt: skip
    assert record["length_bins"] == [[4, 4, 1], [8, 8, 1]]
    assert record["flow"] == [{"source": "geo", "papers_read": 2, "rejected": 0, "duplicates": 0, "kept": 2}]
    assert record["sources"]["geo"]["splits"] == {"train": 2}
    assert record["sources"]["geo"]["text_bytes"] == 2020


def test_many_rejects_do_not_fill_the_card():
    figures = Figures(
        sources={"geo": source(kept=2, rejected={"empty_file": 350}, copies={"near": 250})},
        samples={
            "rejects": reject_rows(100),
            "duplicates": rows(
                *({"paper_id": f"geo/c{n}", "kept_paper_id": "geo/a", "kind": "near"} for n in range(100))
            ),
        },
    )
    _, text = page_of(
        make_card(
            figures, clusters=[{"kept": "geo/a", "copies": 9, "kinds": {"near": 9}}], cluster_sizes={9: 5}
        )
    )
    assert "100 drawn at random; 250 more stand in rejects.parquet." in text
    assert "100 drawn at random; 150 more stand in duplicates.parquet." in text
    assert "4 more stand in duplicates.parquet (column cluster)." in text
    _, text = page_of(make_card(full_figures()))
    assert "more stand in" not in text


def test_names_beyond_those_shown_are_summed():
    names = {f"n{n:03}": 1000 - n for n in range(120)}
    counted = NameCounts.of(tally(missing=7, **names))
    assert len(counted.counts) == 100
    assert (counted.others, counted.other_names) == (sum(list(names.values())[100:]), 20)
    head = counted.head(15)
    assert sum(head.counts.values()) + head.others == sum(names.values())
    assert (len(head.counts), head.other_names, head.not_stated) == (15, 105, 7)
    _, text = page_of(make_card(Figures(sources={"geo": source(kept=2)}, venues=tally(missing=7, **names))))
    assert f"105 others {head.others:,}" in text
    assert "not stated 7" in text
    assert "n014 986" in text
    assert "n015" not in text
    assert "All stand in documents/part-*.parquet (column venue)." in text


def test_a_venue_called_others_is_not_taken_for_the_others():
    page, text = page_of(
        make_card(Figures(sources={"geo": source(kept=2)}, venues=tally(others=3, not_stated=2, missing=1)))
    )
    assert "others 3 50.0 % not stated 2 33.3 % not stated 1 16.7 %" in text
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "th"].count("own") == 1


def test_names_that_differ_in_case_are_one():
    counted = NameCounts.of(tally(PLoS_ONE=3, PLOS_ONE=4, Tellus=5))
    assert counted.counts == {"PLOS ONE": 7, "Tellus": 5}
    assert counted.other_names == 0


def test_grouped_names_say_how_far_they_may_be_off():
    venues = Tally(4, 0, {f"v{n}": (10, n) for n in range(4)}, grouped=True)
    card = make_card(Figures(sources={"geo": source(kept=2)}, venues=venues))
    assert card.venues.other_names is None
    assert "each bar may hold about 10 papers of rare names too many" in page_of(card)[1]


def test_cleaning_decontamination_and_groups_of_copies_are_shown():
    card = make_card(
        Figures(
            sources={"geo": source(kept=2, rejected={"contaminated": 1}, copies={"exact": 2})},
            contaminated={"cut": 1},
            samples={
                "contaminated:cut": rows(
                    {"paper_id": "geo/c", "contaminated": "cut: geobench/1 in “which rock”"}
                )
            },
        ),
        cleaned={"ligatures": 7, "emails": 2},
        cleaned_papers={"ligatures": 3, "emails": 1},
        evaluation_sets=[{"name": "geobench", "records": 9, "items": 12, "empty_records": 0}],
        items_too_short=4,
        canaries=CanaryCounts(
            {"words_8_to_12": 50},
            {"words_8_to_12": 49},
            (MissedCanary("geobench", "7", "words_8_to_12", "which\nROCK is it"),),
        ),
        clusters=[{"kept": "geo/a", "copies": 2, "kinds": {"exact": 2}}],
        cluster_sizes={2: 1},
    )  # fmt: skip
    assert [(row["rule"], row["effects"], row["papers"]) for row in card.cleaning] == [
        ("ligatures", 7, 3),
        ("emails", 2, 1),
    ]
    assert card.decontamination["recall_of_8_or_more_words"] == 0.98
    _, text = page_of(card)
    assert "geobench 9 12" in text
    assert "Documents dropped: 1, cut: 1, only reported: 0. Of the items, 4 are too short" in text
    assert "geo/c cut: geobench/1 in “which rock”" in text
    assert "words 8 to 12 50 49" in text
    assert "Of those of 8 or more words 98.0 % were found." in text
    assert "not found: geobench 7 which ROCK is it" in text
    assert "geo/a 2 2 exact" in text
    assert "Groups of copies by size, in documents 3 1 100.0 %" in text


def test_a_card_says_when_nothing_was_looked_for():
    assert "no evaluation set is named (corpus.decontaminate.sets)" in page_of(make_card())[1]


def test_metadata_tables_are_counted():
    figures = Figures(sources={"geo": source(kept=4, copies={"near": 1}, matched=3, matched_rows=0b1011)})
    card = make_card(figures, metadata_rows={"geo": 10, "another": 5})
    assert card.metadata == {
        "geo": {"papers matched": 3, "papers without a row": 2, "rows without a paper": 7}
    }
    assert "geo 3 2 7" in page_of(card)[1]


def test_a_snapshot_says_what_it_extends():
    extends = {
        "name": "geo", "fingerprint": "fedcba98", "documents": 1234, "older_versions_kept": 3,
        "objects_unchanged": 90, "objects_new": 8, "objects_changed": 2, "objects_gone": 1,
        "objects_of_other_sources": 7,
    }  # fmt: skip
    _, text = page_of(make_card(extends=extends))
    assert "It adds to the corpus geo ( fedcba98 ) with 1,234 documents" in text
    assert "files unchanged, not read again 90 files new since 8 files changed since, read anew 2" in text
    assert "older versions kept that a build from nothing would replace 3" in text
    assert "files of sources that the recipe has no more, their documents stay 7" in text
    assert "of earlier parts +" in text
    assert "What this corpus extends" not in page_of(make_card())[1]


def test_merged_parses_and_cut_passages_are_told_where_the_recipe_asks_for_them():
    _, text = page_of(make_card(merged=6, cut=(4, 1348)))
    assert "6 documents are made of two parses of one paper" in text
    assert "1,348 bytes were cut from 4 documents" in text
    plain = page_of(make_card())[1]
    assert "two parses" not in plain
    assert "bytes were cut" not in plain


def test_samples_are_shown_with_their_beginning():
    kept = {
        "paper_id": "geo/k", "source": "geo", "format": "jats", "license": "CC0", "language": None,
        "year": None, "venue": "岩石学报", "characters": 9000, "split": "train",
        "excerpt": "# Melt\n\nThe crust",
    }  # fmt: skip
    figures = Figures(
        sources={"geo": source(kept=1, rejected={"garbled": 1})},
        samples={
            "kept": rows(kept),
            "reason:garbled": rows(
                {
                    "paper_id": "geo/g",
                    "stage": "filter",
                    "reason": "garbled",
                    "detail": "0.3 > 0.2",
                    "excerpt": "x" * 999,
                }
            ),
        },
    )
    html = card_files(make_card(figures))["index.html"].decode()
    assert '<pre dir="auto"># Melt\n\nThe crust …</pre>' in html
    _, text = page_of(make_card(figures))
    assert "geo/k jats · CC0 · language not stated · 岩石学报 · 9,000 characters · train" in text
    assert "garbled (1) geo/g 0.3 > 0.2 " + "x" * 400 + " …" in text


@pytest.mark.parametrize("values", [(7,), (1,), (0,), (5, 5, 5), (1, 10_000_000)])
def test_any_lengths_make_a_picture(values):
    card = make_card(Figures(sources={"geo": source(kept=len(values))}, lengths=lengths(*values)))
    root = ET.fromstring(card_files(card)["lengths.svg"])
    bars = [element for element in root.iter(f"{SVG}rect") if element.find(f"{SVG}title") is not None]
    assert sum(int(bar.find(f"{SVG}title").text.rsplit(" ", 1)[1]) for bar in bars) == len(values)
    for bar in bars:
        x, width = float(bar.attrib["x"]), float(bar.attrib["width"])
        assert 60 <= x < x + width <= 760
    assert any(text.startswith("median") for text in drawn_texts(card_files(card)["lengths.svg"]))
    assert length_summary(lengths(*values))["count"] == len(values)


def test_bars_of_lengths_are_joined_evenly():
    """The same number of documents in every bin must not make some bars taller than others."""
    card = make_card(Figures(lengths=Lengths(dict.fromkeys(range(100, 580), 5), 10**6, 100, 10**6)))
    svg = card_files(card)["lengths.svg"].decode()
    counts = re.findall(r"characters: (\d+)</title>", svg)
    assert len(counts) == 48
    assert set(counts) == {"50"}


def test_bins_in_the_card_are_whole_lengths():
    assert length_bins(lengths(1000, 1001, 40)) == ((40, 40, 1), (998, 1016, 2))


def test_years_far_from_the_rest_do_not_press_them_into_a_corner():
    years = tally(**{str(year): 100 for year in range(1990, 2025)}, **{"1066": 1, "9999": 2})
    texts = drawn_texts(card_files(make_card(Figures(years=years)))["years.svg"])
    assert "first bar: before 1990; last bar: after 2024" in texts
    assert {"1990", "2020"} <= set(texts)
    few = drawn_texts(card_files(make_card(Figures(years=tally(**{"2001": 1, "2004": 9}))))["years.svg"])
    assert {"2001", "2002", "2003", "2004"} <= set(few)


def test_size_classes_count_documents():
    assert size_classes({1: 7, 2: 3, 4: 2, 7: 1, 8: 1, 2000: 1}) == {
        "2": 7, "3": 3, "5–8": 3, "9–16": 1, "1,025–2,048": 1,
    }  # fmt: skip


def test_wide_characters_take_two_columns():
    assert width_of("ab地质") == 6
    assert clip("地质学报", 8) == "地质学报"
    assert clip("地质学报", 7) == "地质学…"
    assert clip("abcdef", 4) == "abc…"
