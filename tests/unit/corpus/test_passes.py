"""The passes of a build, one task after the other in this process: what they find, and how they go on."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage
from baltoro.corpus import pipeline
from baltoro.corpus.config import CorpusConfig, SourceConfig
from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.listing import list_sources
from baltoro.corpus.work import parquet_bytes
from baltoro.testing.collections import Plan, write_collection

PLAN = Plan(papers=160, words=300, exact_fraction=0.08, edited_fraction=0.1, reordered_fraction=0.05, seed=3)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    return folder, write_collection(folder, PLAN, papers_per_file=20)


class Killed(Exception):
    """The process died."""


@pytest.fixture
def tasks(monkeypatch):
    """Run tasks here and now; ``tasks.die_after`` is when the process dies, ``tasks.done`` what it did."""

    class Tasks:
        die_after = None
        done: list = []  # noqa: RUF012  (one list for one test)

    Tasks.done = []

    def run(function, rows, *, what):
        for row in rows:
            if Tasks.die_after is not None and len(Tasks.done) >= Tasks.die_after:
                raise Killed
            yield function(pa.Table.from_pylist([row]))
            Tasks.done.append((what, row["index"]))

    monkeypatch.setattr(pipeline, "run_chunks", run)
    monkeypatch.setattr(pipeline, "_PARTITION_BYTES", 100_000)
    return Tasks


def build(folder, root, **settings):
    """Return the build and the checksums of its parts."""
    config = CorpusConfig(sources=(SourceConfig(name="s", uri=str(folder), style="plain"),), **settings)
    storage = Storage()
    writer = ArtifactStore(storage, str(root)).begin("corpus", "c", "0" * 16)
    writer.adopt_folder(pipeline.work_folder(config), shared=True)
    made = pipeline.build_documents(config, list_sources(config, storage), storage, {}, None, writer)
    parts = {info.key: info.etag for info in storage.list(writer.uri_for("documents"))}
    return made, parts, writer


def documents(writer):
    parts = Storage().list(writer.uri_for("documents"))
    return pa.concat_tables([pq.read_table(info.uri) for info in parts]).combine_chunks()


def test_planted_copies_are_found_and_nothing_else(collection, tasks, tmp_path):
    folder, written = collection
    made, _, writer = build(folder, tmp_path)
    assert made.summary.papers_read == PLAN.papers
    groups = {}
    for key, (_, original) in written.copies.items():
        groups.setdefault(f"s/{original}", {f"s/{original}"}).add(f"s/{key}")
    member_of = {paper: name for name, members in groups.items() for paper in members}
    found = made.duplicates.to_pylist()
    assert all(member_of.get(row["paper_id"]) == member_of.get(row["kept_paper_id"], "") for row in found)
    assert len(found) == len(written.copies), "of every group exactly one stays"
    kept = documents(writer).column("paper_id").to_pylist()
    assert len(kept) == len(set(kept)) == PLAN.papers - len(written.copies)
    assert made.summary.duplicates["exact"] >= written.counts()["exact"] // 2
    numbers = documents(writer).column("number").to_pylist()
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    "settings", [{"objects_per_task": 1}, {"objects_per_task": 3}, {"bytes_per_task": 1}]
)
def test_the_cut_into_tasks_changes_neither_documents_nor_verdicts(collection, tasks, tmp_path, settings):
    folder, _ = collection
    whole, _, writer = build(folder, tmp_path / "whole")
    cut, parts, cut_writer = build(folder, tmp_path / "cut", **settings)
    assert len(parts) > 1
    # As bytes, since a score that does not apply is NaN.
    assert parquet_bytes(documents(cut_writer)) == parquet_bytes(documents(writer))
    assert cut.duplicates.sort_by("paper_id") == whole.duplicates.sort_by("paper_id")
    assert cut.records == whole.records


def test_switched_off_copies_stay(collection, tasks, tmp_path):
    folder, _ = collection
    off = DedupConfig(exact=False, versions={"enabled": False}, near={"enabled": False})
    made, _, _ = build(folder, tmp_path, dedup=off)
    assert made.summary.kept == PLAN.papers
    assert made.summary.duplicates == {"exact": 0, "version": 0, "near": 0}


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_build_goes_on_where_it_stopped_and_gives_the_same_bytes(collection, tasks, tmp_path, seed):
    folder, _ = collection
    _, expected, _ = build(folder, tmp_path / "whole", objects_per_task=1)
    every = list(tasks.done)
    chance = random.Random(seed)
    tasks.done.clear()
    while True:
        tasks.die_after = len(tasks.done) + chance.randint(1, 6)
        try:
            made, found, _ = build(folder, tmp_path / "killed", objects_per_task=1)
        except Killed:
            continue
        break
    assert found == expected
    assert sorted(tasks.done) == sorted(every), "no finished task was done again"
    assert made.duplicates.num_rows


def test_a_half_written_task_is_done_again(collection, tasks, tmp_path):
    folder, _ = collection
    _, expected, _ = build(folder, tmp_path / "whole", objects_per_task=4)
    _, _, writer = build(folder, tmp_path / "again", objects_per_task=4)
    staging = writer.uri_for("staging")
    storage = Storage()
    # The records are written last, so without them nothing else of the chunk counts.
    storage.delete(f"{staging}/records/000001.parquet")
    storage.write_bytes(f"{staging}/documents/000001.parquet", b"half")
    for name in ("edges", "decisions", "written"):
        storage.delete_folder(f"{staging}/{name}")
    tasks.done.clear()
    _, found, _ = build(folder, tmp_path / "again", objects_per_task=4)
    assert found == expected
    assert ("reading papers", 1) in tasks.done
    assert ("reading papers", 0) not in tasks.done


def test_counts_of_tasks_are_summed(collection, tasks, tmp_path):
    folder, _ = collection
    first = folder / "part-000000.jsonl"
    line = json.loads(first.read_text().splitlines()[0])
    line["body_text"].append({"text": "Write to anna@example.org for the data.", "section": "Notes"})
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.json").write_text(json.dumps(line))
    made, _, _ = build(tmp_path / "papers", tmp_path / "root")
    assert made.cleaned["emails"] == made.cleaned_papers["emails"] == 1
