"""A part that continues a corpus: its papers meet those of earlier parts, which stay as they are."""

import json
from dataclasses import replace

import pytest

from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.dedup.keys import KeyFilter
from baltoro.testing.collections import Plan, make_text, write_collection

PLAN = Plan(papers=160, words=300, exact_fraction=0.1, edited_fraction=0.15, seed=5)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    return folder, write_collection(folder, PLAN, papers_per_file=20)


def part_of(built, chosen):
    """Return the listing of a build with only some of its files."""
    (listing,) = built.listings
    return [replace(listing, objects=listing.objects[chosen])]


def ids(built):
    return built.documents().column("paper_id").to_pylist()


def test_parts_together_hold_one_of_every_group_of_copies(collection, build, tmp_path):
    folder, written = collection
    whole = build(folder, tmp_path / "whole")
    first = build(folder, tmp_path / "first", listings=part_of(whole, slice(0, 3)))
    second = build(
        folder, tmp_path / "second", listings=part_of(whole, slice(3, 6)), earlier=first.as_earlier()
    )
    third = build(
        folder, tmp_path / "third", listings=part_of(whole, slice(6, 8)), earlier=second.as_earlier(first)
    )
    kept = ids(first) + ids(second) + ids(third)
    assert len(kept) == len(set(kept)) == PLAN.papers - len(written.copies)
    group = {f"s/{key}": f"s/{original}" for key, (_, original) in written.copies.items()}
    assert len({group.get(paper, paper) for paper in kept}) == len(kept)
    found = [row for part in (second, third) for row in part.table("duplicates.parquet").to_pylist()]
    assert any(row["kept_paper_id"] in ids(first) for row in found), "across parts"
    for row in found:
        one, other = row["paper_id"], row["kept_paper_id"]
        assert group.get(one, one) == group.get(other, other)
    numbers = [n for part in (first, second, third) for n in part.documents().column("number").to_pylist()]
    assert numbers == sorted(numbers), "later parts come after earlier ones"
    second.totals.figures.balance()


def test_only_the_new_objects_are_read(collection, build, tasks, tmp_path):
    folder, _ = collection
    whole = build(folder, tmp_path / "whole")
    first = build(folder, tmp_path / "first", listings=part_of(whole, slice(0, 7)), objects_per_task=1)
    tasks.done.clear()
    last = build(
        folder, tmp_path / "last", listings=part_of(whole, slice(7, 8)), earlier=first.as_earlier(),
        objects_per_task=1,
    )  # fmt: skip
    assert [task for task in tasks.done if task[0] == "reading papers"] == [("reading papers", 0)]
    assert last.totals.figures.papers_read == 20
    assert last.table("objects.parquet").column("place").to_pylist() == [7]


def paper(words, **fields):
    body = [{"text": text, "section": "Results"} for text in words]
    return json.dumps({"paper_id": "x", "title": "", "abstract": [], "body_text": body, **fields})


def text(name, words=260):
    """Return a paragraph that no paper of another name has."""
    made = make_text(Plan(papers=9, words=words, seed=ord(name)), 1)
    return " ".join(paragraph for _, paragraphs in made.sections for paragraph in paragraphs)


@pytest.fixture
def two_versions(build, tmp_path):
    """A preprint that stands in the first part, and the journal's version that arrives later."""
    folder = tmp_path / "papers"
    folder.mkdir()
    same = text("a")
    (folder / "preprint.json").write_text(paper([same]))
    first = build(folder, tmp_path / "first")
    (folder / "preprint.json").unlink()
    (folder / "published.json").write_text(
        paper([same + " One more sentence of the reviewed version."], venue="Journal of Glaciology")
    )
    return folder, first


def test_an_older_version_stays_and_the_table_says_that_the_new_one_ranks_better(
    build, two_versions, tmp_path
):
    folder, first = two_versions
    assert first.totals.figures.kept == 1, first.totals.figures.rejected
    second = build(folder, tmp_path / "second", earlier=first.as_earlier())
    (row,) = second.table("duplicates.parquet").to_pylist()
    assert (row["paper_id"], row["kept_paper_id"]) == ("s/published.json", "s/preprint.json")
    assert row["ranks_better"] is row["kept_earlier"] is True
    assert second.totals.ranks_better == 1
    assert second.totals.figures.kept == 0


def test_a_whole_build_would_take_the_newer_version(build, two_versions, tmp_path):
    folder, _ = two_versions
    (folder / "preprint.json").write_text(paper([text("a")]))
    whole = build(folder, tmp_path / "whole")
    assert ids(whole) == ["s/published.json"]
    assert whole.totals.ranks_better == 0


def test_a_copy_of_a_copy_gives_way_to_what_stands_in_the_corpus(build, tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    base = text("b", 640)
    longer = base + " " + text("c", 60)
    (folder / "1.json").write_text(paper([longer]))
    (folder / "2.json").write_text(paper([base]))
    first = build(folder, tmp_path / "first")
    assert ids(first) == ["s/1.json"]
    for path in folder.iterdir():
        path.unlink()
    (folder / "3.json").write_text(paper([base]))
    second = build(folder, tmp_path / "second", earlier=first.as_earlier())
    (row,) = second.table("duplicates.parquet").to_pylist()
    assert (row["kept_paper_id"], row["kind"]) == ("s/1.json", "exact")


def test_a_passage_of_an_earlier_part_is_cut_from_a_new_paper(build, tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    dedup = DedupConfig(near={"enabled": False}, repeated_spans={"enabled": True})
    shared = "This passage about the glacier stands in two papers word for word. " * 3
    (folder / "1.json").write_text(paper([text("d"), shared]))
    first = build(folder, tmp_path / "first", dedup=dedup)
    (folder / "1.json").unlink()
    (folder / "2.json").write_text(paper([text("e"), shared]))
    second = build(folder, tmp_path / "second", dedup=dedup, earlier=first.as_earlier())
    assert shared.strip() in first.documents().column("text")[0].as_py()
    assert "stands in two papers" not in second.documents().column("text")[0].as_py()
    assert second.totals.cut_bytes >= len(shared.strip())
    assert second.totals.cut_documents == 1
    assert second.documents().column("repeated_bytes_cut")[0].as_py() == second.totals.cut_bytes


def test_a_key_filter_never_misses_a_key_and_passes_few_others():
    import numpy as np

    chance = np.random.default_rng(1)
    keys = chance.integers(0, 2**64, 30_000, dtype=np.uint64)
    others = chance.integers(0, 2**64, 30_000, dtype=np.uint64)
    found = KeyFilter.of([keys[:10_000], keys[10_000:]], len(keys))
    assert found.may_hold(keys).all()
    assert found.may_hold(others).mean() < 0.1
