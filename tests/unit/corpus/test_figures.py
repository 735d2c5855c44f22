"""Figures of chunks add up to those of the corpus, whatever the order and the cut, and stay small."""

import functools
import itertools
import json
import operator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.errors import ArtifactError
from baltoro.corpus.figures import SAMPLES, Amount, Figures, cluster_figures, figures_of

TEXTS = ("paper_id", "source", "format", "license", "language", "venue", "split", "stage", "reason", "detail")
RECORDS = pa.schema(
    [
        ("number", pa.int64()),
        *((name, pa.string()) for name in (*TEXTS, "excerpt", "metadata_row", "contaminated")),
        ("year", pa.int32()),
        ("characters", pa.int64()),
        ("text_bytes", pa.int64()),
    ]
)
GONE = pa.schema(
    [("number", pa.int64()), *((n, pa.string()) for n in ("paper_id", "kept_paper_id", "kind", "cluster"))]
)


def kept(number, source="geo", characters=1000, **fields):
    return {
        "number": number,
        "paper_id": f"{source}/{number}",
        "source": source,
        "format": "jats",
        "license": "CC-BY-4.0",
        "split": "train",
        "characters": characters,
        "text_bytes": characters + 10,
        "excerpt": f"The crust, part {number}.",
        **fields,
    }


def refused(number, reason="too_short", source="geo", stage="filter", **fields):
    named = {"stage": stage, "reason": reason, "detail": f"found {number}", **fields}
    return {"number": number, "paper_id": f"{source}/{number}", "source": source, **named}


def copy(number, kind="exact", source="geo", of="geo/1"):
    """A record that gave way, and the decision about it."""
    record = kept(number, source) | {"split": None, "text_bytes": None}
    return record | {"gone": {"number": number, "kept_paper_id": of, "kind": kind, "cluster": of}}


def figures(*records, **options):
    gone = [record["gone"] for record in records if "gone" in record]
    rows = [{name: record.get(name) for name in RECORDS.names} for record in records]
    return figures_of(
        pa.Table.from_pylist(rows, schema=RECORDS), pa.Table.from_pylist(gone, schema=GONE), **options
    )


def record_of(number, outcome, source, place):
    if outcome == "kept":
        year, venue = [2001, None, 1987][place % 3], f"venue {place % 5}"
        done = "cut: set/3" if place % 4 == 0 else None
        return kept(number, source, 50 * place, year=year, venue=venue, contaminated=done)
    if outcome == "copy":
        return copy(number, ["exact", "near"][place % 2], source)
    return refused(number, ["too_short", "language"][place % 2], source)


records = st.lists(
    st.tuples(
        st.sampled_from(["kept", "copy", "reject"]), st.sampled_from(["geo", "wiki"]), st.integers(0, 9)
    ),
    max_size=14,
).map(lambda drawn: [record_of(number, *values) for number, values in enumerate(drawn)])


@given(records, st.randoms(use_true_random=False), st.lists(st.integers(0, 14), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_cut_in_any_order_gives_the_same_figures(records, random, cuts):
    bounds = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    parts = [figures(*records[start:end]) for start, end in itertools.pairwise(bounds)]
    whole = figures(*records)
    random.shuffle(parts)
    assert functools.reduce(operator.add, parts) == whole
    assert functools.reduce(lambda sum_so_far, part: part + sum_so_far, parts) == whole
    assert Figures.total(parts) == whole
    assert Figures.total(parts).to_json() == whole.to_json()
    assert Figures.from_json(whole.to_json()) == whole
    assert Figures() + whole == whole + Figures() == whole
    whole.balance()
    assert whole.papers_read == len(records)
    assert whole.kept == sum(record.get("split") is not None for record in records)


def test_the_figures_say_what_the_records_say():
    found = figures(
        kept(
            0, characters=500, year=2020, language="en", venue="Tellus", contaminated="reported: set/1 in …"
        ),
        kept(1, characters=3000, license="unknown", split="validation", venue="Tellus"),
        copy(2),
        refused(3, "empty_file", stage="read"),
        refused(4, "too_short"),
        kept(5, "wiki", characters=700, format="plain_text", year=1999),
        refused(6, "empty_file", "wiki", stage="read"),
    )
    assert (found.papers_read, found.kept, found.text_bytes) == (7, 3, 4230)
    assert found.rejected == {"empty_file": 2, "too_short": 1}
    assert found.duplicates == {"exact": 1}
    assert found.splits == {"train": 2, "validation": 1}
    geo = found.sources["geo"]
    assert geo.kept == {"train": Amount(1, 500, 510), "validation": Amount(1, 3000, 3010)}
    assert geo.rejected == {("read", "empty_file"): Amount(1), ("filter", "too_short"): Amount(1)}
    assert geo.duplicates == {"exact": Amount(1, 1000, 0)}
    assert found.formats.most_frequent(9) == {"jats": 3, "plain_text": 1}
    assert found.licenses.most_frequent(9) == {"CC-BY-4.0": 2, "unknown": 1}
    assert found.venues.most_frequent(9) == {"Tellus": 2}
    assert found.years.most_frequent(9) == {"1999": 1, "2020": 1}
    assert (found.years.missing, found.languages.missing, found.venues.missing) == (1, 2, 1)
    assert (found.lengths.count, found.lengths.total, found.lengths.largest) == (3, 4200, 3000)
    assert found.contaminated == {"reported": 1}


def test_sources_stand_in_the_order_of_the_listing():
    found = figures(kept(7, "zoo"), kept(9, "ant")) + figures(kept(8, "ant"))
    assert [name for name, _ in found.in_order()] == ["zoo", "ant"]


def test_a_record_that_is_lost_or_counted_twice_is_found():
    lost = kept(1) | {"split": None}
    with pytest.raises(
        ArtifactError,
        match=r"the corpus does not balance: 2 records read, 1 kept \+ 0 rejected \+ 0 duplicates in the "
        r"source 'geo'; please report this",
    ):
        figures(kept(0), lost).balance()
    with pytest.raises(ArtifactError, match=r"1 records read, 1 kept \+ 0 rejected \+ 1 duplicates"):
        figures(copy(1) | {"split": "train"}).balance()
    # What is missing in one source is not made up for by another.
    with pytest.raises(ArtifactError, match="in the source 'geo'"):
        figures(copy(1) | {"split": "train"}, kept(2, "wiki") | {"split": None}, kept(3)).balance()


def test_a_copy_must_be_among_the_records():
    for records in ([kept(0)], []):
        rows = [{name: record.get(name) for name in RECORDS.names} for record in records]
        gone = [{"number": 5, "kept_paper_id": "geo/1", "kind": "exact"}]
        with pytest.raises(ArtifactError, match="not among the records read"):
            figures_of(pa.Table.from_pylist(rows, schema=RECORDS), pa.Table.from_pylist(gone, schema=GONE))


def test_samples_are_drawn_from_all_parts_alike():
    parts = [
        figures(*(kept(number) for number in range(start, start + 100))) for start in range(0, 2000, 100)
    ]
    found = Figures.total(parts).sample("kept")
    assert len(found) == SAMPLES["kept"]
    numbers = [int(row["paper_id"].removeprefix("geo/")) for row in found]
    assert numbers == sorted(numbers)
    assert len({number // 100 for number in numbers}) > 4
    assert found[0]["excerpt"] == f"The crust, part {numbers[0]}."
    # Another paper's arrival does not draw all anew.
    more = Figures.total([*parts, figures(kept(5000))]).sample("kept")
    assert sum(row in found for row in more) >= SAMPLES["kept"] - 1


def test_each_reason_and_kind_has_samples_with_what_was_found():
    found = figures(
        *(refused(number, "too_short", excerpt="Short.") for number in range(9)),
        refused(20, "garbled", detail="x" * 3000),
        copy(30, "near", of="geo/31"),
        *(copy(number) for number in range(40, 49)),
        kept(50, contaminated="cut: set/3 in “a stem”"),
    )
    assert len(found.sample("reason:too_short")) == 3
    row = found.sample("reason:too_short")[0]
    assert (row["stage"], row["reason"], row["excerpt"]) == ("filter", "too_short", "Short.")
    assert len(found.sample("reason:garbled")[0]["detail"].encode()) == 500
    assert found.sample("kind:near") == [
        {
            "paper_id": "geo/30",
            "kept_paper_id": "geo/31",
            "kind": "near",
            "excerpt": "The crust, part 30.",
        }
    ]
    assert len(found.sample("kind:exact")) == 3
    assert len(found.sample("rejects")) == 10
    assert len(found.sample("duplicates")) == 10
    assert found.sample("contaminated:cut") == [
        {"paper_id": "geo/50", "contaminated": "cut: set/3 in “a stem”"}
    ]


def test_tables_of_the_card_are_bounded():
    found = figures(*(refused(number) for number in range(300)))
    assert len(found.sample("rejects")) == SAMPLES["rejects"]


def test_a_metadata_table_is_met_by_the_rows_that_any_part_matched():
    rows = {
        "geo": {key: place for place, key in enumerate(["a", "b", "c", "d"] + [f"x{n}" for n in range(70)])}
    }
    first = figures(kept(0, metadata_row="a"), kept(1, metadata_row="x69"), kept(2), metadata_rows=rows)
    second = figures(
        kept(3, metadata_row="a"),
        copy(4) | {"metadata_row": "c"},
        refused(5, metadata_row="d"),
        metadata_rows=rows,
    )
    both = first + second
    source = both.sources["geo"]
    assert (source.matched, source.readable) == (4, 5)
    assert source.matched_rows == 1 << 0 | 1 << 2 | 1 << 73
    assert Figures.from_json(both.to_json()) == both
    # A source without a table has no rows to match.
    assert figures(kept(0, metadata_row="a")).sources["geo"].matched == 0


def test_figures_stop_growing_with_the_corpus(monkeypatch):
    monkeypatch.setattr("baltoro.corpus.figures.VENUES_BOUND", 300)

    def part(start):
        numbers = range(start, start + 500)
        return figures(
            *(
                kept(
                    n,
                    f"s{n % 20}",
                    100 + n * 37 % 90_000,
                    venue=f"Journal number {n} of its own",
                    year=n % 300,
                )
                if n % 3
                else refused(n, f"reason_{n % 40}", f"s{n % 20}", excerpt="x" * 3000, detail="y" * 3000)
                for n in numbers
            )
        )

    sizes = []
    total = Figures()
    for start in range(0, 6000, 500):
        total += part(start)
        sizes.append(len(total.to_json().encode()))
    assert total.venues.grouped
    assert total.venues.total == total.kept == 4000
    assert sizes[-1] < 400_000
    assert sizes[-1] < 1.02 * sizes[len(sizes) // 2]
    total.balance()


def test_figures_of_another_format_are_refused():
    plain = json.loads(Figures().to_json()) | {"figures": 99}
    with pytest.raises(ArtifactError, match="figures of format 99, where this version of Baltoro"):
        Figures.from_json(json.dumps(plain))


def test_the_largest_groups_of_copies_and_all_sizes():
    rows = [
        ("a", "exact"),
        ("b", "near"),
        ("a", "near"),
        ("a", "near"),
        *((f"c{n}", "exact") for n in range(30)),
    ]
    gone = pa.Table.from_pylist(
        [
            {"number": n, "kept_paper_id": f"geo/{cluster}", "kind": kind, "cluster": cluster}
            for n, (cluster, kind) in enumerate(rows)
        ],
        schema=GONE,
    )
    largest, sizes = cluster_figures(gone)
    assert largest[:2] == [
        {"kept": "geo/a", "copies": 3, "kinds": {"near": 2, "exact": 1}},
        {"kept": "geo/b", "copies": 1, "kinds": {"near": 1}},
    ]
    assert len(largest) == 20
    assert sizes == {1: 31, 3: 1}
    assert cluster_figures(gone.slice(0, 0)) == ([], {})
