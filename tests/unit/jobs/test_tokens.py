"""From corpus parts to rows: every training token once per epoch, and rows that know their papers.

The passes run one task after the other in this process; Ray only spreads them over others.
"""

import hashlib
import itertools
import pickle
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baltoro.core.artifacts import Artifact, ArtifactStore, fingerprint_of
from baltoro.core.errors import ArtifactError, ConfigError, InputError
from baltoro.core.storage import Storage
from baltoro.corpus.dedup.records import DUPLICATE_SCHEMA
from baltoro.corpus.work import WorkArea
from baltoro.data import plan
from baltoro.data.config import DataConfig
from baltoro.data.mixture import MixtureConfig
from baltoro.data.plan import SPLITS, Documents, plan_blocks
from baltoro.data.shards import RowBatch, TokenDataset
from baltoro.data.tokenizer import save_tokenizer, tokenizer_fingerprint
from baltoro.jobs import tokens
from baltoro.jobs.extend import part_chain
from baltoro.jobs.token_files import TokenFiles
from baltoro.jobs.token_passes import PAPERS_SCHEMA
from baltoro.testing.tiny import byte_tokenizer

PADDING, END = 1, 2
WIDTH = 32


class Killed(Exception):
    """The process died."""


@dataclass
class Tasks:
    """Tasks run here and now; when the process dies, and what it did."""

    die_after: int | None = None
    done: list = None

    def run(self, area, name, task, count, *, what):
        finished = area.finished(name)
        for index in range(count):
            if index in finished:
                continue
            if self.die_after is not None and len(self.done) >= self.die_after:
                raise Killed
            pickle.loads(pickle.dumps(task)).run(index)
            self.done.append((name, index))


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    tasks = Tasks(done=[])
    monkeypatch.setattr(tokens, "run_tasks", tasks.run)
    return tasks


class NoRun:
    """Stands for an MLflow run."""

    def __init__(self):
        self.metrics = {}

    def log_metrics(self, metrics):
        self.metrics.update(metrics)


@dataclass
class Built:
    """A dataset of one split: its rows, rows per epoch, what paper_index points into."""

    rows: RowBatch
    rows_by_epoch: list[int]
    papers: pa.Table
    artifact: Artifact

    def epoch(self, number):
        start = sum(self.rows_by_epoch[:number])
        return self.rows.slice(start, start + self.rows_by_epoch[number])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ArtifactStore(Storage(), str(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="module")
def tokenizer(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(byte_tokenizer(), folder)
    with store.begin("tokenizer", "geo", fingerprint_of({})) as writer:
        for path in folder.iterdir():
            writer.write_file(f"tokenizer/{path.name}", path.read_bytes())
        extra = {"folder": "tokenizer", "tokenizer_fingerprint": tokenizer_fingerprint(byte_tokenizer())}
        return writer.publish(inputs={}, stage_version=1, extra=extra)


def text_of(paper, length):
    """Text in which every stretch of six characters occurs once, and in one paper only."""
    return "".join(f"{paper:02d}:{index:03d}" for index in range(length // 6 + 1))[:length]


def parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    return bytes(sink.getvalue())


TEXT = pa.schema([(name, pa.string()) for name in ("paper_id", "source", "split", "text")])


def publish_corpus(store, parts, copies=()):
    """Publish corpus parts; a document is (paper number, characters, split)."""
    inputs = {"parts": parts, "copies": list(copies)}
    with store.begin("corpus", "geo", fingerprint_of(inputs)) as writer:
        for index, documents in enumerate(parts):
            table = {
                "paper_id": [f"papers/{paper}" for paper, _, _ in documents],
                "source": ["odd" if paper % 2 else "even" for paper, _, _ in documents],
                "split": [split for _, _, split in documents],
                "text": [text_of(paper, length) for paper, length, _ in documents],
            }
            data = parquet(pa.table(table, schema=TEXT))
            writer.write_file(f"documents/part-{index:06d}.parquet", data, rows=len(documents))
        rows = [{"paper_id": f"papers/{gone}", "kept_paper_id": f"papers/{kept}"} for gone, kept in copies]
        writer.write_file("duplicates.parquet", parquet(pa.Table.from_pylist(rows, DUPLICATE_SCHEMA)))
        return writer.publish(inputs=inputs, stage_version=1)


def config_of(**data):
    return DataConfig(sequence_length=WIDTH, **{"rows_per_row_group": 4, "rows_per_shard": 8, **data})


def publish_tokens(store, tokenizer, corpus, *, base=None, epochs=1, number=None, **data):
    """Build and publish a token dataset as the stage does."""
    config = config_of(**data)
    inputs = {
        "number": next(NUMBERS) if number is None else number,
        "corpus": corpus.fingerprint,
        "base": base.fingerprint if base is not None else None,
    }
    writer = store.begin("tokens", "geo", fingerprint_of(inputs))
    writer.adopt_folder(tokens.work_folder(config, corpus), shared=True)
    if base is not None:
        tokens.check_base(base, tokenizer, config)
    part = tokens.build_part(store.storage, writer, config, corpus, tokenizer, base, epochs)
    output = tokens.tokens_output(config, part, base, NoRun())
    parents = {"corpus": corpus, "tokenizer": tokenizer} | ({"base": base} if base is not None else {})
    extra = {**output.extra, "summary": dict(output.summary)}
    return writer.publish(inputs=inputs, stage_version=1, parents=parents, counts=output.counts, extra=extra)


NUMBERS = itertools.count()


def read(store, tokens_artifact, split):
    """Return all rows of a split."""
    files = tokens.split_files(part_chain(store, tokens_artifact), split)
    if not files:
        return RowBatch(np.empty((0, WIDTH), np.int32), [], [])
    with TokenDataset.open(files, store.storage, verify=True) as dataset:
        return dataset.read_rows(0, len(dataset))


def documents_of(papers):
    """Return what is planned, from the table of papers."""
    names = sorted(set(papers.column("source").to_pylist()))
    return Documents(
        papers.column("tokens").to_numpy(),
        np.array([SPLITS.index(split) for split in papers.column("split").to_pylist()], np.int8),
        np.array([names.index(name) for name in papers.column("source").to_pylist()], np.int32),
        tuple(names),
    )


def build(store, tokenizer, parts, *, split="train", epochs=1, **data):
    """Do what the stage does, in this process, and read one split back."""
    corpus = publish_corpus(store, parts)
    config = config_of(**data)
    artifact = publish_tokens(store, tokenizer, corpus, epochs=epochs, **data)
    papers = pq.read_table(artifact.uri_of("papers.parquet"))
    blocks = [
        sum(group.plan.rows for group in block)
        for block in plan_blocks(documents_of(papers), split, config, epochs)
    ]
    per_epoch = len(blocks) // epochs
    rows_by_epoch = [sum(blocks[epoch * per_epoch : (epoch + 1) * per_epoch]) for epoch in range(epochs)]
    rows = read(store, artifact, split)
    assert len(rows) == sum(rows_by_epoch)
    return Built(rows, rows_by_epoch, papers, artifact)


@pytest.fixture
def group_size(monkeypatch):
    """Set how many tokens are packed together."""

    def resize(tokens_of_group):
        monkeypatch.setattr(plan, "GROUP_TOKENS", tokens_of_group)
        monkeypatch.setattr(plan, "_LEAST_ROWS", 0)

    return resize


def staging(store, artifact):
    """Return where the passes handed over; it is removed only by the stage's last step."""
    return WorkArea(store.storage, f"{artifact.uri}/{artifact.manifest.writer}/staging")


def segments(batch):
    """Yield (paper_index, tokens) of every segment, and check what surrounds them."""
    for row, ends, papers in zip(batch.input_ids, batch.segment_ends, batch.paper_index, strict=True):
        assert len(ends) == len(papers)
        start = 0
        for end, paper in zip(ends.tolist(), papers.tolist(), strict=True):
            assert end > start
            yield paper, row[start:end].tolist()
            start = end
        assert set(row[start:].tolist()) <= {PADDING}


def read_text(ids):
    """Return what byte tokens print, with the end token as a vertical bar."""
    alphabet = {value: key for key, value in byte_tokenizer().get_vocab().items()}
    return "".join("|" if token == END else alphabet[token] for token in ids)


def assert_every_token_once(batch, papers, expected):
    """Check that the segments of each paper tile its text and end token, and that no other paper occurs."""
    covered = {}
    for index, ids in segments(batch):
        paper = papers.column("paper_id")[index].as_py()
        whole = text_of(int(paper.removeprefix("papers/")), 10_000)[: expected[paper]] + "|"
        text = read_text(ids)
        # The first characters of a stretch say where it belongs; short ones are looked up in the whole.
        starts = [start for start in range(len(whole)) if whole.startswith(text, start)]
        covered.setdefault(paper, []).append((starts, len(text)))
    assert covered.keys() == expected.keys()
    for paper, pieces in covered.items():
        positions = Counter()
        for starts, length in sorted(pieces, key=lambda piece: len(piece[0])):
            free = [start for start in starts if not any(positions[start + i] for i in range(length))]
            assert free, f"{paper}: a piece of {length} tokens stands twice or belongs elsewhere"
            positions.update(range(free[0], free[0] + length))
        assert set(positions) == set(range(expected[paper] + 1)), f"{paper}: tokens are missing"


PARTS = [
    [(0, 70, "train"), (1, 31, "train"), (2, 40, "validation"), (3, 9, "train")],
    [(4, 12, "test"), (5, 90, "test")],
    [(6, 200, "train"), (7, 14, "validation"), (8, 20, "train"), (9, 20, "train")],
    [(10, 6, "train")],
]
TRAIN = {f"papers/{p}": n for part in PARTS for p, n, split in part if split == "train"}
VALIDATION = {f"papers/{p}": n for part in PARTS for p, n, split in part if split == "validation"}


def test_every_training_token_stands_once_in_every_epoch(store, tokenizer):
    built = build(store, tokenizer, PARTS, epochs=3)
    for number in range(3):
        assert_every_token_once(built.epoch(number), built.papers, TRAIN)


def test_each_document_ends_in_the_end_token_once_per_epoch(store, tokenizer):
    built = build(store, tokenizer, PARTS, epochs=2)
    ends = [read_text(ids)[-1] == "|" for _, ids in segments(built.rows)]
    assert sum(ends) == 2 * len(TRAIN)
    assert int((built.rows.input_ids == END).sum()) == 2 * len(TRAIN)


def test_validation_is_apart_and_the_test_split_is_never_tokenised(store, tokenizer):
    built = build(store, tokenizer, PARTS, split="validation")
    assert_every_token_once(built.rows, built.papers, VALIDATION)
    assert built.papers.column("paper_id").to_pylist() == [
        f"papers/{paper}" for part in PARTS for paper, _, split in part if split != "test"
    ]
    area = staging(store, built.artifact)
    assert area.read("tokenised", 1).num_rows == 0
    assert area.read("tokenised", 1).schema.names == ["paper_id", "source", "split", "tokens"]


def test_paper_index_names_the_paper_whose_text_stands_there(store, tokenizer):
    built = build(store, tokenizer, PARTS, epochs=2)
    seen = set()
    for index, ids in segments(built.rows):
        paper = int(built.papers.column("paper_id")[index].as_py().removeprefix("papers/"))
        text = read_text(ids).removesuffix("|")
        assert text in text_of(paper, 10_000)
        if len(text) >= 6:
            assert all(text not in text_of(other, 10_000) for other in range(11) if other != paper)
            seen.add(paper)
    assert {f"papers/{paper}" for paper in seen} == set(TRAIN)


def test_tokens_of_a_part_are_its_documents_one_after_the_other(store, tokenizer):
    built = build(store, tokenizer, PARTS)
    area = staging(store, built.artifact)
    assert area.read("tokenised", 0).column("tokens").to_pylist() == [71, 32, 41, 10]
    files = TokenFiles(area, 259)
    assert files.dtype == np.dtype("<u2")
    found = files.read("train", np.array([0, 0, 0]), np.array([0, 71, 103]), np.array([71, 32, 10]))
    assert read_text(found) == "|".join([text_of(0, 70), text_of(1, 31), text_of(3, 9), ""])
    found = files.read("validation", np.array([0, 2]), np.array([0, 0]), np.array([41, 15]))
    assert read_text(found) == "|".join([text_of(2, 40), text_of(7, 14), ""])
    assert TokenFiles(area, 100_000).dtype == np.dtype("<i4")


def test_epochs_follow_each_other_and_keep_other_company(store, tokenizer):
    parts = [[(paper, 9, "train") for paper in range(40)]]
    built = build(store, tokenizer, parts, epochs=3)
    expected = {f"papers/{paper}": 9 for paper in range(40)}
    company = []
    for number in range(3):
        epoch = built.epoch(number)
        assert_every_token_once(epoch, built.papers, expected)
        company.append({frozenset(index.tolist()) for index in epoch.paper_index})
    assert company[0] != company[1] != company[2] != company[0], "documents of one length take turns"


def test_rows_of_an_epoch_are_shuffled_over_all_groups(store, tokenizer, group_size):
    parts = [[(part * 10 + paper, 31, "train") for paper in range(10)] for part in range(4)]
    group_size(300)
    built = build(store, tokenizer, parts)
    order = [index[0] for index in built.rows.paper_index]
    assert sorted(order) == list(range(40))
    assert {index // 10 for index in order[:10]} != {0}, "the first rows would all be of the first group"


def test_the_same_input_gives_the_same_rows_and_another_seed_another_order(store, tokenizer):
    first, again = (build(store, tokenizer, PARTS, epochs=2) for _ in range(2))
    other = build(store, tokenizer, PARTS, epochs=2, shuffle_seed=5)
    assert np.array_equal(first.rows.input_ids, again.rows.input_ids)
    assert not np.array_equal(first.rows.input_ids, other.rows.input_ids)
    assert_every_token_once(other.epoch(1), other.papers, TRAIN)


@pytest.mark.parametrize("rows_per_shard", [4, 8, 1024])
def test_how_many_rows_a_shard_has_changes_nothing(store, tokenizer, rows_per_shard):
    expected = build(store, tokenizer, PARTS, epochs=2).rows
    found = build(store, tokenizer, PARTS, epochs=2, rows_per_shard=rows_per_shard).rows
    assert np.array_equal(found.input_ids, expected.input_ids)
    assert [ends.tolist() for ends in found.segment_ends] == [ends.tolist() for ends in expected.segment_ends]
    assert [index.tolist() for index in found.paper_index] == [i.tolist() for i in expected.paper_index]


@pytest.mark.parametrize("group_tokens", [1, 100, 250, 1 << 27])
def test_every_token_stands_once_however_the_documents_are_grouped(
    store, tokenizer, group_size, group_tokens
):
    group_size(group_tokens)
    built = build(store, tokenizer, PARTS, epochs=2)
    for number in range(2):
        assert_every_token_once(built.epoch(number), built.papers, TRAIN)


@given(st.lists(st.integers(1, 19), max_size=6), st.sampled_from([1, 60, 150, 400]))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_another_cut_into_parts_gives_the_same_rows(store, tokenizer, group_size, cuts, group_tokens):
    group_size(group_tokens)
    documents = [
        (paper, 5 + 11 * paper % 90, "validation" if paper % 5 == 4 else "train") for paper in range(20)
    ]
    bounds = [0, *sorted(cuts), len(documents)]
    parts = [documents[start:end] for start, end in itertools.pairwise(bounds)]
    expected = build(store, tokenizer, [documents], epochs=2).rows
    found = build(store, tokenizer, parts, epochs=2).rows
    assert np.array_equal(found.input_ids, expected.input_ids)
    assert [ends.tolist() for ends in found.segment_ends] == [ends.tolist() for ends in expected.segment_ends]
    assert [index.tolist() for index in found.paper_index] == [i.tolist() for i in expected.paper_index]


def tokens_read(built):
    """Tokens by source, counted in the rows as training reads them."""
    sources = built.papers.column("source").to_pylist()
    counted = Counter()
    for paper, ids in segments(built.rows):
        counted[sources[paper]] += len(ids)
    return counted


MIXED = [[(paper, 20 + paper % 7, "train") for paper in range(40)], [(99, 30, "validation")]]
ONCE = {"even": sum(21 + p % 7 for p in range(0, 40, 2)), "odd": sum(21 + p % 7 for p in range(1, 40, 2))}


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({}, {"even": 1.0, "odd": 1.0}),
        ({"odd": {"epochs": 2.5}}, {"even": 1.0, "odd": 2.5}),
        ({"even": {"tokens": 200}}, {"even": 200 / ONCE["even"], "odd": 1.0}),
        ({"even": {"weight": 1}, "odd": {"weight": 3}}, {"even": ONCE["odd"] / ONCE["even"] / 3, "odd": 1.0}),
        ({"even": {"epochs": 0}}, {"even": 0.0, "odd": 1.0}),
    ],
)
@pytest.mark.parametrize("group_tokens", [100, 1 << 27])
def test_rows_hold_of_each_source_what_the_mixture_says(
    store, tokenizer, group_size, sources, expected, group_tokens
):
    group_size(group_tokens)
    mixture = MixtureConfig.model_validate({"sources": sources})
    built = build(store, tokenizer, MIXED, epochs=2, mixture=mixture)
    found = tokens_read(built)
    assert found == Counter(built.artifact.manifest.extra["summary"]["tokens_by_source"])
    for source, passes in expected.items():
        assert abs(found[source] - 2 * passes * ONCE[source]) <= 2 * 27 / 2
    again = build(store, tokenizer, MIXED, epochs=2, mixture=mixture)
    assert np.array_equal(again.rows.input_ids, built.rows.input_ids)


def test_a_curriculum_lays_groups_of_sources_one_after_the_other(store, tokenizer):
    mixture = MixtureConfig(curriculum=(("odd",), ("even",)))
    built = build(store, tokenizer, MIXED, epochs=2, mixture=mixture)
    sources = built.papers.column("source").to_pylist()
    rows = [{sources[paper] for paper in papers.tolist()} for papers in built.rows.paper_index]
    changes = [row for row, after in itertools.pairwise(rows) if row != after]
    assert all(len(row) == 1 for row in rows)
    assert changes == [{"odd"}, {"even"}, {"odd"}]


def test_validation_is_not_mixed(store, tokenizer):
    mixture = MixtureConfig.model_validate({"sources": {"odd": {"epochs": 0}}})
    built = build(store, tokenizer, MIXED, split="validation", mixture=mixture)
    assert set(tokens_read(built)) == {"odd"}


def test_padding_stays_within_the_bound_on_many_short_documents(store, tokenizer):
    random = np.random.default_rng(1)
    parts = [[(paper, int(random.integers(6, 80)), "train") for paper in range(90)] for _ in range(3)]
    built = build(store, tokenizer, [[(p, n, s) for p, n, s in part] for part in parts])
    used = sum(int(ends[-1]) for ends in built.rows.segment_ends)
    assert 1 - used / built.rows.input_ids.size <= 0.01


documents = st.lists(
    st.tuples(st.integers(1, 150), st.sampled_from(["train", "train", "validation", "test"])), max_size=12
)


@given(st.lists(documents, min_size=1, max_size=4), st.integers(1, 400), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_corpus_is_laid_out_whole(store, tokenizer, group_size, lengths, group_tokens, epochs, seed):
    group_size(group_tokens)
    numbers = iter(range(100))
    parts = [[(next(numbers), length, split) for length, split in part] for part in lengths]
    expected = {f"papers/{p}": n for part in parts for p, n, split in part if split == "train"}
    if not expected:
        with pytest.raises(InputError, match="no document in the train split"):
            build(store, tokenizer, parts, epochs=epochs, shuffle_seed=seed)
        return
    built = build(store, tokenizer, parts, epochs=epochs, shuffle_seed=seed)
    for number in range(epochs):
        assert_every_token_once(built.epoch(number), built.papers, expected)


# --------------------------------------------------------------------------------------------------
# Files


def test_the_papers_table_lists_what_was_merged_into_each(store, tokenizer):
    corpus = publish_corpus(store, PARTS, copies=[(90, 3), (95, 77), (91, 3), (92, 0)])
    artifact = publish_tokens(store, tokenizer, corpus)
    (file,) = artifact.files("papers.parquet")
    papers = pq.read_table(artifact.uri_of("papers.parquet"))
    assert papers.schema.equals(PAPERS_SCHEMA)
    assert file.rows == papers.num_rows == 9
    rows = papers.to_pylist()
    assert rows[3] == {
        "paper_id": "papers/3",
        "source": "odd",
        "split": "train",
        "tokens": 10,
        "merged": ["papers/90", "papers/91"],
    }
    assert [row["merged"] for row in rows if row["paper_id"] != "papers/3"] == [["papers/92"], *[[]] * 7]


def test_the_papers_table_does_not_show_the_cut_into_parts(store, tokenizer, monkeypatch):
    monkeypatch.setattr("baltoro.jobs.token_passes._PAPERS_PER_ROW_GROUP", 4)
    whole = [[document for part in PARTS for document in part]]
    copies = [(90, 3), (91, 10)]
    first, second = (
        publish_tokens(store, tokenizer, publish_corpus(store, parts, copies)) for parts in (PARTS, whole)
    )
    (one,), (other,) = first.files("papers.parquet"), second.files("papers.parquet")
    assert one.sha256 == other.sha256
    metadata = pq.read_metadata(first.uri_of("papers.parquet"))
    assert [metadata.row_group(index).num_rows for index in range(3)] == [4, 4, 1]


def test_far_documents_are_read_apart_and_near_ones_together(store, tokenizer, monkeypatch):
    built = build(store, tokenizer, [[(paper, 50, "train") for paper in range(30)]])
    files = TokenFiles(staging(store, built.artifact), 259)
    ranges = []
    read_range = Storage.read_range

    def count(self, uri, start, length):
        ranges.append((start, length))
        return read_range(self, uri, start, length)

    monkeypatch.setattr(Storage, "read_range", count)
    every = np.arange(30)
    chosen = np.array([0, 1, 1, 3, 20, 29])
    arguments = [np.zeros(6, np.int32), chosen * 51, np.full(6, 51)]
    assert read_text(files.read("train", *arguments)) == "".join(
        text_of(p, 50) + "|" for p in chosen.tolist()
    )
    assert ranges == [(0, 30 * 51 * 2)], "gaps of a few kilobytes are read over"
    ranges.clear()
    monkeypatch.setattr("baltoro.jobs.token_files._GAP_BYTES", 51 * 2)
    assert read_text(files.read("train", *arguments)) == "".join(
        text_of(p, 50) + "|" for p in chosen.tolist()
    )
    assert sorted(ranges) == [(0, 4 * 51 * 2), (20 * 51 * 2, 51 * 2), (29 * 51 * 2, 51 * 2)]
    ranges.clear()
    monkeypatch.setattr("baltoro.jobs.token_files._RUN_BYTES", 5 * 51 * 2)
    files.read("train", np.zeros(30, np.int32), every * 51, np.full(30, 51))
    assert sorted(ranges) == [(start * 5 * 51 * 2, 5 * 51 * 2) for start in range(6)]
    assert len(files.read("train", *[np.empty(0, np.int64)] * 3)) == 0


@pytest.mark.parametrize("partitions", [1, 2, 3])
def test_rows_that_travel_in_two_steps_are_the_same_files(
    store, tokenizer, group_size, monkeypatch, tasks, partitions
):
    group_size(100)
    parts = [[(paper, 20 + 3 * paper % 50, "train") for paper in range(60)], [(99, 30, "validation")]]
    corpus = publish_corpus(store, parts)
    one = publish_tokens(store, tokenizer, corpus)
    assert not [name for name, _ in tasks.done if name == "exchanged"]
    monkeypatch.setattr(plan, "MOST_PARTITIONS", partitions)
    two = publish_tokens(store, tokenizer, corpus)
    assert len([name for name, _ in tasks.done if name == "exchanged"]) >= partitions
    expected, found = (read(store, artifact, "train") for artifact in (one, two))
    assert np.array_equal(found.input_ids, expected.input_ids)
    assert [index.tolist() for index in found.paper_index] == [i.tolist() for i in expected.paper_index]
    assert [ends.tolist() for ends in found.segment_ends] == [ends.tolist() for ends in expected.segment_ends]


# --------------------------------------------------------------------------------------------------
# Builds that are killed


def checksums(artifact):
    """Checksum by name of every file, each compared with what the manifest says."""
    found = {}
    for file in artifact.manifest.files:
        data = Storage().read_bytes(artifact.uri_of(file))
        assert hashlib.sha256(data).hexdigest() == file.sha256
        found[file.name] = file.sha256
    return found


KILLED = [
    [
        (part * 9 + paper, 12 + 7 * (part + paper) % 60, "validation" if paper == 4 else "train")
        for paper in range(9)
    ]
    for part in range(6)
]


def new_root(store, tokenizer, folder):
    """Return the same tokenizer under another root."""
    other = ArtifactStore(Storage(), str(folder))
    with other.begin("tokenizer", "geo", tokenizer.fingerprint) as writer:
        for file in tokenizer.manifest.files:
            writer.write_file(file.name, Storage().read_bytes(tokenizer.uri_of(file)))
        return other, writer.publish(inputs={}, stage_version=1, extra=tokenizer.manifest.extra)


@pytest.fixture(scope="module", params=[256, 3], ids=["one step", "two steps"])
def undisturbed(request, store, tokenizer, tmp_path_factory):
    """A build that nothing disturbs, and every task of it; in one step or two from groups to shards."""
    with pytest.MonkeyPatch.context() as patch:
        tasks = Tasks(done=[])
        patch.setattr(tokens, "run_tasks", tasks.run)
        patch.setattr(plan, "GROUP_TOKENS", 300)
        patch.setattr(plan, "_LEAST_ROWS", 0)
        patch.setattr(plan, "MOST_PARTITIONS", request.param)
        root, copied = new_root(store, tokenizer, tmp_path_factory.mktemp("undisturbed"))
        artifact = publish_tokens(root, copied, publish_corpus(root, KILLED), epochs=2, number="killed")
    assert ("exchanged" in {name for name, _ in tasks.done}) == (request.param == 3)
    return request.param, artifact, tasks.done


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_build_goes_on_where_it_stopped_and_gives_the_same_bytes(
    undisturbed, store, tokenizer, group_size, tasks, tmp_path, monkeypatch, seed
):
    partitions, whole, every = undisturbed
    group_size(300)
    monkeypatch.setattr(plan, "MOST_PARTITIONS", partitions)
    root, copied = new_root(store, tokenizer, tmp_path)
    corpus = publish_corpus(root, KILLED)
    chance = random.Random(seed)
    while True:
        tasks.die_after = len(tasks.done) + chance.randint(1, 12)
        try:
            made = publish_tokens(root, copied, corpus, epochs=2, number="killed")
        except Killed:
            continue
        break
    assert checksums(made) == checksums(whole)
    assert made.manifest.extra == whole.manifest.extra
    assert tasks.done == every, "no finished task was done again"


def test_a_task_that_died_while_it_wrote_is_done_again(store, tokenizer, group_size, tasks, tmp_path):
    group_size(300)
    root, copied = new_root(store, tokenizer, tmp_path)
    corpus = publish_corpus(root, KILLED)
    config = config_of()
    writer = root.begin("tokens", "geo", "0" * 16)
    writer.adopt_folder(tokens.work_folder(config, corpus), shared=True)
    build_all = (root.storage, writer, config, corpus, copied, None, 1)
    tokens.build_part(*build_all)
    folder = writer.uri_for("staging")
    before = {info.key: info.etag for info in root.storage.list(writer.uri_for("train"))}
    # What each task writes last is what counts: without it, the rest of its files may be halves.
    for last, other in [
        ("tokenised/000001", "tokens/train/000001.bin"),
        ("layout/000000", "layout-places/000000.parquet"),
    ]:
        root.storage.delete(f"{folder}/{last}.parquet")
        root.storage.write_bytes(f"{folder}/{other}", b"half")
    root.storage.delete(f"{folder}/shards/000002.parquet")
    root.storage.write_bytes(writer.uri_for("train/shard-00002.parquet"), b"half")
    tasks.done.clear()
    again = root.begin("tokens", "geo", "0" * 16)
    again.adopt_folder(writer.folder, shared=True)
    tokens.build_part(root.storage, again, *build_all[2:])
    assert tasks.done == [("tokenised", 1), ("layout", 0), ("shards", 2)]
    assert {info.key: info.etag for info in root.storage.list(again.uri_for("train"))} == before


def test_a_staged_file_that_lost_rows_is_not_taken_for_a_shard(store, tokenizer, group_size, tmp_path):
    group_size(300)
    root, copied = new_root(store, tokenizer, tmp_path)
    corpus = publish_corpus(root, KILLED)
    writer = root.begin("tokens", "geo", "0" * 16)
    build_all = (root.storage, writer, config_of(), corpus, copied, None, 1)
    tokens.build_part(*build_all)
    folder = writer.uri_for("staging")
    root.storage.delete_folder(f"{folder}/shards")
    other = root.storage.read_bytes(f"{folder}/packed/000001.parquet")
    root.storage.write_bytes(f"{folder}/packed/000000.parquet", other)
    with pytest.raises(ArtifactError, match=r"row \d+ of train/shard-\d+\.parquet is not there exactly once"):
        tokens.build_part(*build_all)


def test_two_builds_at_once_write_the_same_bytes_to_the_same_places(
    undisturbed, store, tokenizer, group_size, monkeypatch, tmp_path
):
    partitions, whole, _ = undisturbed
    group_size(300)
    monkeypatch.setattr(plan, "MOST_PARTITIONS", partitions)
    root, copied = new_root(store, tokenizer, tmp_path)
    corpus = publish_corpus(root, KILLED)

    def build_one(_):
        return publish_tokens(root, copied, corpus, epochs=2, number="killed")

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(build_one, range(2))
    assert one.uri == other.uri
    assert checksums(one) == checksums(other) == checksums(whole)


def test_builds_that_would_write_other_bytes_share_no_folder(store):
    corpus = publish_corpus(store, PARTS)
    other_cut = publish_corpus(store, PARTS[:2])
    folders = {
        tokens.work_folder(config_of(), corpus),
        tokens.work_folder(config_of(), other_cut),
        tokens.work_folder(config_of(rows_per_shard=12), corpus),
        tokens.work_folder(config_of(rows_per_row_group=2), corpus),
    }
    assert len(folders) == 4
    assert tokens.work_folder(config_of(), corpus) in folders


@pytest.mark.parametrize("from_end", [200, 3000])
def test_a_damaged_part_of_the_corpus_is_named(store, tokenizer, tmp_path, from_end):
    """Also where only the footer is, which has no checksum of its own."""
    root, copied = new_root(store, tokenizer, tmp_path)
    corpus = publish_corpus(root, PARTS)
    uri = corpus.uri_of("documents/part-000002.parquet")
    data = bytearray(root.storage.read_bytes(uri))
    data[-min(from_end, len(data) - 8)] ^= 1
    root.storage.write_bytes(uri, bytes(data))
    with pytest.raises(ArtifactError, match=r"part-000002\.parquet: damaged: .*; restore the file or build"):
        publish_tokens(root, copied, corpus)


def test_what_was_handed_over_goes_when_the_dataset_is_published(store, tokenizer):
    built = build(store, tokenizer, PARTS)
    staged = staging(store, built.artifact).uri
    assert list(store.storage.list(staged))
    assert tokens.finish_tokens(SimpleNamespace(storage=store.storage), built.artifact, None, None) == {}
    assert not list(store.storage.list(staged))
    assert len(read(store, built.artifact, "train")) == len(built.rows)


# --------------------------------------------------------------------------------------------------
# Parts

ADDED = [[(20, 70, "train"), (21, 33, "validation"), (23, 9, "train")], [(25, 50, "test")]]


@pytest.fixture(scope="module")
def snapshots(store, tokenizer):
    """A first build, one that adds papers to it, and one that adds to that."""
    patch = pytest.MonkeyPatch()
    patch.setattr(tokens, "run_tasks", Tasks(done=[]).run)
    first = publish_tokens(store, tokenizer, publish_corpus(store, PARTS), epochs=2)
    second = publish_tokens(store, tokenizer, publish_corpus(store, ADDED), base=first, epochs=2)
    third = publish_tokens(
        store, tokenizer, publish_corpus(store, [[(31, 80, "train")]]), base=second, epochs=2
    )
    patch.undo()
    return first, second, third


def test_added_rows_follow_those_that_stand(store, snapshots):
    first, _, third = snapshots
    before, after = read(store, first, "train"), read(store, third, "train")
    assert len(after) > len(before)
    assert np.array_equal(after.input_ids[: len(before)], before.input_ids)
    assert [ends.tolist() for ends in after.segment_ends[: len(before)]] == [
        ends.tolist() for ends in before.segment_ends
    ]
    assert [index.tolist() for index in after.paper_index[: len(before)]] == [
        index.tolist() for index in before.paper_index
    ]


def test_paper_index_goes_on_over_the_parts(store, snapshots):
    third = snapshots[2]
    chain = part_chain(store, third)
    assert [part.fingerprint for part in chain] == [part.fingerprint for part in snapshots]
    assert [part.manifest.extra["first_paper"] for part in chain] == [0, 9, 12]
    papers = pa.concat_tables([pq.read_table(part.uri_of("papers.parquet")) for part in chain])
    for split, added in (("train", {20: 70, 23: 9, 31: 80}), ("validation", {21: 33})):
        start = len(read(store, chain[0], split))
        rows = read(store, third, split)
        added_rows = rows.slice(start, len(rows))
        expected = {f"papers/{paper}": length for paper, length in added.items()}
        seen = {papers.column("paper_id")[index].as_py() for index, _ in segments(added_rows)}
        assert seen == expected.keys()
        for index, ids in segments(added_rows):
            paper = int(papers.column("paper_id")[index].as_py().removeprefix("papers/"))
            assert read_text(ids).removesuffix("|") in text_of(paper, 10_000)


def test_the_manifest_of_added_rows_counts_the_whole_and_names_its_parts(store, snapshots):
    first, second, third = snapshots
    parts = third.manifest.extra["parts"]
    assert [entry["tokens"] for entry in parts] == [first.relative_path, second.relative_path, None]
    assert set(parts[0]) == {"tokens", "sequences", "tokens_count"}
    for split in SPLITS:
        rows = read(store, third, split)
        held = sum(len(ids) for _, ids in segments(rows))
        assert third.manifest.counts[f"sequences_{split}"] == len(rows)
        assert third.manifest.counts[f"tokens_{split}"] == held
        assert sum(entry["tokens_count"].get(split, 0) for entry in parts) == held
        assert sum(entry["sequences"].get(split, 0) for entry in parts) == len(rows)
    summary = third.manifest.extra["summary"]
    assert summary["sequences"] == third.manifest.counts["sequences_train"]
    assert summary["added"] == {"sequences": parts[2]["sequences"]["train"], "tokens": 2 * 81}
    assert sum(summary["tokens_by_source"].values()) == summary["tokens"]
    assert summary["tokens_by_source"]["even"] == sum(2 * (n + 1) for p, n in TRAIN_ALL.items() if p % 2 == 0)
    assert "added" not in first.manifest.extra["summary"]
    assert third.files("train/")[0].name == "train/shard-00000.parquet"


TRAIN_ALL = {
    p: n for part in [*PARTS, *ADDED, [(31, 80, "train")]] for p, n, split in part if split == "train"
}


def test_added_papers_without_training_documents_add_no_training_rows(store, tokenizer, snapshots):
    first = snapshots[0]
    corpus = publish_corpus(store, [[(41, 30, "validation")], []])
    artifact = publish_tokens(store, tokenizer, corpus, base=first, epochs=2)
    assert len(read(store, artifact, "train")) == len(read(store, first, "train"))
    assert len(read(store, artifact, "validation")) == len(read(store, first, "validation")) + 1
    none = publish_tokens(store, tokenizer, publish_corpus(store, [[]]), base=artifact, epochs=2)
    assert len(tokens.split_files(part_chain(store, none), "train")) == len(
        tokens.split_files(first, "train")
    )
    assert none.manifest.extra["sources"] == ["even", "odd"]


def test_passes_over_a_source_that_has_no_added_paper_are_kept_in_the_mixture(store, tokenizer):
    mixture = MixtureConfig.model_validate({"sources": {"odd": {"epochs": 2}, "even": {"epochs": 0.5}}})
    first = publish_tokens(store, tokenizer, publish_corpus(store, PARTS), mixture=mixture)
    corpus = publish_corpus(store, [[(51, 40, "train")]])
    second = publish_tokens(store, tokenizer, corpus, base=first, mixture=mixture)
    assert second.manifest.extra["parts"][-1]["tokens_count"] == {"train": 2 * 41}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"odd": {"tokens": 100}}, r"sources\.odd\.tokens=100 is about the whole dataset"),
        ({"odd": {"weight": 1}, "even": {"weight": 3}}, r"sources\.even\.weight=3\.0 is about the whole"),
    ],
)
def test_a_mixture_of_the_whole_is_refused_for_added_papers(
    store, tokenizer, snapshots, tasks, sources, message
):
    mixture = MixtureConfig.model_validate({"sources": sources})
    with pytest.raises(ConfigError, match=message + r".* give epochs, .* without corpus\.extends"):
        publish_tokens(
            store, tokenizer, publish_corpus(store, ADDED), base=snapshots[0], epochs=2, mixture=mixture
        )
    assert tasks.done == []
    recipe = SimpleNamespace(
        pins=SimpleNamespace(corpus=None),
        pretrain=SimpleNamespace(data=config_of(mixture=mixture)),
        corpus=SimpleNamespace(sources=[SimpleNamespace(name="odd"), SimpleNamespace(name="even")]),
    )
    tokens.check_mixture(SimpleNamespace(recipe=recipe, extension=None))
    with pytest.raises(ConfigError, match=message):
        tokens.check_mixture(SimpleNamespace(recipe=recipe, extension=object()))


def test_rows_of_another_length_or_tokenizer_are_not_added(store, tokenizer, snapshots):
    other = tokenizer.manifest.model_copy(update={"fingerprint": "f" * 16})
    with pytest.raises(ArtifactError, match=r"rows of 32 tokens by tokenizer/geo/.* rows of 32 tokens by "):
        tokens.check_base(snapshots[0], Artifact(tokenizer.root_uri, other), config_of())
    with pytest.raises(ArtifactError, match=r"rows of 32 tokens by .*, and rows of 64 tokens by "):
        tokens.check_base(snapshots[0], tokenizer, DataConfig(sequence_length=64))


def test_training_goes_on_only_with_parts_that_begin_as_the_old_ones(snapshots):
    first, second, third = (tokens.parts_of(artifact) for artifact in snapshots)
    tokens.check_prefix(first, third)
    tokens.check_prefix(second, second)
    with pytest.raises(
        ArtifactError, match=r"part 1 of the token dataset .* was tokens/geo/\w+, and is none"
    ):
        tokens.check_prefix(second, first)
    with pytest.raises(ArtifactError, match=rf"part 0 .* and is {snapshots[1].relative_path} in this one"):
        tokens.check_prefix(first, second[1:])


def test_a_chain_is_read_whole_and_in_order(store, snapshots):
    first, second, third = snapshots
    for wrong in ([third], [second, first, third], third):
        with pytest.raises(ArtifactError, match=r"has the parts .*; its rows can only be read in that order"):
            tokens.split_files(wrong, "train")
    assert tokens.split_files(first, "train") == tokens.split_files([first], "train")
    extra = {key: value for key, value in first.manifest.extra.items() if key != "parts"}
    old = Artifact(first.root_uri, first.manifest.model_copy(update={"extra": extra}))
    with pytest.raises(
        ArtifactError, match=r"was built by an earlier version .* build the token dataset again"
    ):
        tokens.split_files(old, "train")
