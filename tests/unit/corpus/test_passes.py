"""The passes of a build, one task after the other in this process: what they find, and how they go on."""

import json
import random

import pytest

from baltoro.core.storage import Storage
from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.work import parquet_bytes
from baltoro.testing.collections import Plan, write_collection

PLAN = Plan(papers=160, words=300, exact_fraction=0.08, edited_fraction=0.1, reordered_fraction=0.05, seed=3)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    return folder, write_collection(folder, PLAN, papers_per_file=20)


def test_planted_copies_are_found_and_nothing_else(collection, build, tmp_path):
    folder, written = collection
    made = build(folder, tmp_path)
    assert made.totals.figures.papers_read == PLAN.papers
    groups = {}
    for key, (_, original) in written.copies.items():
        groups.setdefault(f"s/{original}", {f"s/{original}"}).add(f"s/{key}")
    member_of = {paper: name for name, members in groups.items() for paper in members}
    found = made.table("duplicates.parquet").to_pylist()
    assert all(member_of.get(row["paper_id"]) == member_of.get(row["kept_paper_id"], "") for row in found)
    assert len(found) == len(written.copies), "of every group exactly one stays"
    assert not any(row["ranks_better"] for row in found)
    kept = made.documents().column("paper_id").to_pylist()
    assert len(kept) == len(set(kept)) == PLAN.papers - len(written.copies)
    assert made.totals.figures.duplicates["exact"] >= written.counts()["exact"] // 2
    numbers = made.documents().column("number").to_pylist()
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    "settings", [{"objects_per_task": 1}, {"objects_per_task": 3}, {"bytes_per_task": 1}]
)
@pytest.mark.parametrize("spans", [False, True])
def test_the_cut_into_tasks_changes_neither_documents_nor_verdicts(
    collection, build, tmp_path, settings, spans
):
    folder, _ = collection
    dedup = DedupConfig(near={"enabled": not spans}, repeated_spans={"enabled": spans})
    whole = build(folder, tmp_path / "whole", dedup=dedup)
    cut = build(folder, tmp_path / "cut", dedup=dedup, **settings)
    assert len(cut.parts) > 1
    # As bytes, since a score that does not apply is NaN.
    assert parquet_bytes(cut.documents()) == parquet_bytes(whole.documents())
    for name in ("duplicates.parquet", "rejects.parquet", "objects.parquet"):
        assert cut.table(name) == whole.table(name)
    assert cut.totals.figures == whole.totals.figures
    assert (cut.totals.clusters, cut.totals.cleaned, cut.totals.cut_bytes) == (
        whole.totals.clusters,
        whole.totals.cleaned,
        whole.totals.cut_bytes,
    )


def test_switched_off_copies_stay(collection, build, tmp_path):
    folder, _ = collection
    off = DedupConfig(exact=False, versions={"enabled": False}, near={"enabled": False})
    made = build(folder, tmp_path, dedup=off)
    assert made.totals.figures.kept == PLAN.papers
    assert made.totals.figures.duplicates == {}


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_build_goes_on_where_it_stopped_and_gives_the_same_bytes(
    collection, build, tasks, tmp_path, seed
):
    folder, _ = collection
    settings = {"objects_per_task": 1, "dedup": DedupConfig(repeated_spans={"enabled": seed % 2 == 1})}
    expected = build(folder, tmp_path / "whole", **settings)
    every = list(tasks.done)
    chance = random.Random(seed)
    tasks.done.clear()
    while True:
        tasks.die_after = len(tasks.done) + chance.randint(1, 6)
        try:
            found = build(folder, tmp_path / "killed", **settings)
        except tasks.Killed:
            continue
        break
    assert found.totals.files == expected.totals.files
    assert found.parts == expected.parts
    assert sorted(tasks.done) == sorted(every), "no finished task was done again"
    assert found.totals.figures.duplicates


def test_a_half_written_task_is_done_again(collection, build, tasks, tmp_path):
    folder, _ = collection
    expected = build(folder, tmp_path / "whole", objects_per_task=4)
    again = build(folder, tmp_path / "again", objects_per_task=4)
    staging = again.writer.uri_for("staging")
    storage = Storage()
    # The records are written last, so without them nothing else of the chunk counts.
    storage.delete(f"{staging}/records/000001.parquet")
    storage.write_bytes(f"{staging}/documents/000001.parquet", b"half")
    for name in ("edges", "decisions", "written", "tables"):
        storage.delete_folder(f"{staging}/{name}")
    tasks.done.clear()
    found = build(folder, tmp_path / "again", objects_per_task=4)
    assert found.parts == expected.parts
    assert ("reading papers", 1) in tasks.done
    assert ("reading papers", 0) not in tasks.done


def test_counts_of_tasks_are_summed(collection, build, tmp_path):
    folder, _ = collection
    first = folder / "part-000000.jsonl"
    line = json.loads(first.read_text().splitlines()[0])
    line["body_text"].append({"text": "Write to anna@example.org for the data.", "section": "Notes"})
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.json").write_text(json.dumps(line))
    made = build(tmp_path / "papers", tmp_path / "root")
    assert made.totals.cleaned["emails"] == made.totals.cleaned_papers["emails"] == 1
