"""From corpus parts to rows: every training token once per epoch, and rows that know their papers.

The steps are run one after the other as plain functions; Ray only spreads them over processes.
"""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baltoro.core.artifacts import ArtifactStore, fingerprint_of
from baltoro.core.storage import Storage
from baltoro.corpus.dedup.records import DUPLICATE_SCHEMA
from baltoro.data.config import DataConfig
from baltoro.data.mixture import MixtureConfig
from baltoro.data.shards import RowBatch, TokenDataset, shard_ranges
from baltoro.jobs import tokens
from baltoro.jobs.tokens import (
    PAPERS_SCHEMA,
    join_shard,
    pack_group,
    place_rows,
    plan_groups,
    save_shard,
    tokenise_part,
    write_papers,
)
from baltoro.testing.tiny import byte_tokenizer

PADDING, END = 1, 2
WIDTH = 32


@dataclass
class Built:
    """A dataset of one split: its rows, rows per epoch, what paper_index points into, rows by shard."""

    rows: RowBatch
    rows_by_epoch: list[int]
    papers: pa.Table
    shards: list

    def epoch(self, number):
        start = sum(self.rows_by_epoch[:number])
        return self.rows.slice(start, start + self.rows_by_epoch[number])


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


def text_of(paper, length):
    """Text in which every stretch of six characters occurs once, and in one paper only."""
    return "".join(f"{paper:02d}:{index:03d}" for index in range(length // 6 + 1))[:length]


def write_parts(folder, parts):
    """Write corpus parts; a document is (paper number, characters, split)."""
    uris = []
    for index, documents in enumerate(parts):
        table = pa.table(
            {
                "paper_id": [f"papers/{paper}" for paper, _, _ in documents],
                "source": ["odd" if paper % 2 else "even" for paper, _, _ in documents],
                "split": [split for _, _, split in documents],
                "text": [text_of(paper, length) for paper, length, _ in documents],
            },
            schema=pa.schema([(name, pa.string()) for name in ("paper_id", "source", "split", "text")]),
        )
        pq.write_table(table, folder / f"part-{index}.parquet")
        uris.append(str(folder / f"part-{index}.parquet"))
    return uris


def build(folder, tokenizer, parts, *, split="train", epochs=1, rows_per_shard=8, **data):
    """Do what the stage does, in this process."""
    config = DataConfig(sequence_length=WIDTH, rows_per_row_group=4, rows_per_shard=rows_per_shard, **data)
    read = [tokenise_part(uri, Storage(), tokenizer, config) for uri in write_parts(folder, parts)]
    tables = [table for table, _ in read]
    by_epoch = [plan_groups(tables, split, config, epoch) for epoch in range(epochs)]
    by_block = [groups for blocks in by_epoch for groups in blocks]
    places = place_rows(by_block, config.shuffle_seed)
    rows_by_epoch = [sum(group.plan.rows for groups in blocks for group in groups) for blocks in by_epoch]
    shards = [*shard_ranges(sum(rows_by_epoch), rows_per_shard)]
    contributions = [
        pack_group(
            group.plan,
            group.documents,
            group.paper_index,
            place,
            rows_per_shard,
            len(shards),
            PADDING,
            *[read[index][1] for index in group.parts],
        )
        for groups, block_places in zip(by_block, places, strict=True)
        for group, place in zip(groups, block_places, strict=True)
    ]
    joined = [join_shard(*[entry[index] for entry in contributions]) for index in range(len(shards))]
    assert [len(batch) for batch in joined] == [len(shard) for shard in shards]
    rows = RowBatch.concatenate(joined) if joined else RowBatch(np.empty((0, WIDTH), np.int32), [], [])
    return Built(rows, rows_by_epoch, pa.concat_tables(tables), contributions)


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


def test_every_training_token_stands_once_in_every_epoch(folder, tokenizer):
    built = build(folder, tokenizer, PARTS, epochs=3)
    for number in range(3):
        assert_every_token_once(built.epoch(number), built.papers, TRAIN)


def test_each_document_ends_in_the_end_token_once_per_epoch(folder, tokenizer):
    built = build(folder, tokenizer, PARTS, epochs=2)
    ends = [read_text(ids)[-1] == "|" for _, ids in segments(built.rows)]
    assert sum(ends) == 2 * len(TRAIN)
    assert int((built.rows.input_ids == END).sum()) == 2 * len(TRAIN)


def test_validation_is_apart_and_the_test_split_is_never_tokenised(folder, tokenizer):
    built = build(folder, tokenizer, PARTS, split="validation")
    assert_every_token_once(built.rows, built.papers, VALIDATION)
    assert built.papers.column("paper_id").to_pylist() == [
        f"papers/{paper}" for part in PARTS for paper, _, split in part if split != "test"
    ]
    uris = write_parts(folder, PARTS)
    table, part = tokenise_part(uris[1], Storage(), tokenizer, DataConfig(sequence_length=WIDTH))
    assert table.num_rows == 0
    assert table.schema.names == ["paper_id", "source", "split", "tokens"]
    assert (len(part.tokens), part.offsets.tolist()) == (0, [0])


def test_paper_index_names_the_paper_whose_text_stands_there(folder, tokenizer):
    built = build(folder, tokenizer, PARTS, epochs=2)
    seen = set()
    for index, ids in segments(built.rows):
        paper = int(built.papers.column("paper_id")[index].as_py().removeprefix("papers/"))
        text = read_text(ids).removesuffix("|")
        assert text in text_of(paper, 10_000)
        if len(text) >= 6:
            assert all(text not in text_of(other, 10_000) for other in range(11) if other != paper)
            seen.add(paper)
    assert {f"papers/{paper}" for paper in seen} == set(TRAIN)


def test_tokens_of_a_part_are_its_documents_one_after_the_other(folder, tokenizer):
    uri = write_parts(folder, PARTS)[0]
    table, part = tokenise_part(uri, Storage(), tokenizer, DataConfig(sequence_length=WIDTH))
    assert part.tokens.dtype == np.int32
    assert table.column("tokens").to_pylist() == [71, 32, 41, 10]
    assert np.diff(part.offsets).tolist() == [71, 32, 41, 10]
    assert read_text(part.tokens[part.offsets[1] : part.offsets[2]]) == text_of(1, 31) + "|"


def test_epochs_follow_each_other_and_keep_other_company(folder, tokenizer):
    parts = [[(paper, 9, "train") for paper in range(40)]]
    built = build(folder, tokenizer, parts, epochs=3)
    expected = {f"papers/{paper}": 9 for paper in range(40)}
    company = []
    for number in range(3):
        epoch = built.epoch(number)
        assert_every_token_once(epoch, built.papers, expected)
        company.append({frozenset(index.tolist()) for index in epoch.paper_index})
    assert company[0] != company[1] != company[2] != company[0], "documents of one length take turns"


def test_rows_of_an_epoch_are_shuffled_over_all_groups(folder, tokenizer, monkeypatch):
    parts = [[(part * 10 + paper, 31, "train") for paper in range(10)] for part in range(4)]
    monkeypatch.setattr(tokens, "GROUP_TOKENS", 300)
    built = build(folder, tokenizer, parts)
    order = [index[0] for index in built.rows.paper_index]
    assert sorted(order) == list(range(40))
    assert {index // 10 for index in order[:10]} != {0}, "the first rows would all be of the first group"


def test_the_same_input_gives_the_same_rows_and_another_seed_another_order(folder, tokenizer):
    first, again = (build(folder, tokenizer, PARTS, epochs=2) for _ in range(2))
    other = build(folder, tokenizer, PARTS, epochs=2, shuffle_seed=5)
    assert np.array_equal(first.rows.input_ids, again.rows.input_ids)
    assert not np.array_equal(first.rows.input_ids, other.rows.input_ids)
    assert_every_token_once(other.epoch(1), other.papers, TRAIN)


@pytest.mark.parametrize("rows_per_shard", [4, 8, 1024])
def test_how_many_rows_a_shard_has_changes_nothing(folder, tokenizer, rows_per_shard):
    expected = build(folder, tokenizer, PARTS, epochs=2).rows
    found = build(folder, tokenizer, PARTS, epochs=2, rows_per_shard=rows_per_shard).rows
    assert np.array_equal(found.input_ids, expected.input_ids)
    assert [ends.tolist() for ends in found.segment_ends] == [ends.tolist() for ends in expected.segment_ends]
    assert [index.tolist() for index in found.paper_index] == [i.tolist() for i in expected.paper_index]


@pytest.mark.parametrize("group_tokens", [1, 100, 250, 1 << 27])
def test_every_token_stands_once_however_the_documents_are_grouped(
    folder, tokenizer, monkeypatch, group_tokens
):
    monkeypatch.setattr(tokens, "GROUP_TOKENS", group_tokens)
    built = build(folder, tokenizer, PARTS, epochs=2)
    for number in range(2):
        assert_every_token_once(built.epoch(number), built.papers, TRAIN)


def test_groups_are_consecutive_documents_cut_by_the_tokens_before_them(folder, tokenizer, monkeypatch):
    config = DataConfig(sequence_length=WIDTH)
    tables = [tokenise_part(uri, Storage(), tokenizer, config)[0] for uri in write_parts(folder, PARTS)]
    lengths = pa.concat_tables(tables).column("tokens").to_pylist()

    def groups(size, split="train"):
        monkeypatch.setattr(tokens, "GROUP_TOKENS", size)
        (block,) = plan_groups(tables, split, config, 0)
        return block

    (whole,) = groups(1 << 27)
    papers = whole.paper_index.tolist()
    for size in (1, 50, 100, 250):
        found = groups(size)
        assert [index for group in found for index in group.paper_index.tolist()] == papers
        starts = dict(
            zip(papers, np.cumsum([0, *(lengths[index] for index in papers)]).tolist(), strict=False)
        )
        assert [[starts[index] // size for index in group.paper_index.tolist()] for group in found] == [
            [number] * len(group.paper_index)
            for number, group in zip(sorted({start // size for start in starts.values()}), found, strict=True)
        ]
        for group in found:
            assert [len(chosen) for chosen in group.documents].count(0) == 0, "only parts that are needed"
            assert sum(len(chosen) for chosen in group.documents) == len(group.paper_index)
    assert groups(1 << 27, "none") == []


@given(st.lists(st.integers(1, 19), max_size=6), st.sampled_from([1, 60, 150, 400]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_another_cut_into_parts_gives_the_same_rows(folder, tokenizer, monkeypatch, cuts, group_tokens):
    monkeypatch.setattr(tokens, "GROUP_TOKENS", group_tokens)
    documents = [
        (paper, 5 + 11 * paper % 90, "validation" if paper % 5 == 4 else "train") for paper in range(20)
    ]
    bounds = [0, *sorted(cuts), len(documents)]
    parts = [documents[start:end] for start, end in itertools.pairwise(bounds)]
    expected = build(folder, tokenizer, [documents], epochs=2).rows
    found = build(folder, tokenizer, parts, epochs=2).rows
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
    folder, tokenizer, monkeypatch, sources, expected, group_tokens
):
    monkeypatch.setattr(tokens, "GROUP_TOKENS", group_tokens)
    mixture = MixtureConfig.model_validate({"sources": sources})
    built = build(folder, tokenizer, MIXED, epochs=2, mixture=mixture)
    config = DataConfig(sequence_length=WIDTH, mixture=mixture)
    tables = [tokenise_part(uri, Storage(), tokenizer, config)[0] for uri in write_parts(folder, MIXED)]
    blocks = [groups for epoch in range(2) for groups in plan_groups(tables, "train", config, epoch)]
    read = tokens_read(built)
    assert read == Counter(tokens.tokens_by_source(tables, blocks)), "the manifest says what training reads"
    for source, passes in expected.items():
        assert abs(read[source] - 2 * passes * ONCE[source]) <= 2 * 27 / 2
    again = build(folder, tokenizer, MIXED, epochs=2, mixture=mixture)
    assert np.array_equal(again.rows.input_ids, built.rows.input_ids)


def test_a_curriculum_lays_groups_of_sources_one_after_the_other(folder, tokenizer):
    mixture = MixtureConfig(curriculum=(("odd",), ("even",)))
    built = build(folder, tokenizer, MIXED, epochs=2, mixture=mixture)
    sources = built.papers.column("source").to_pylist()
    rows = [{sources[paper] for paper in papers.tolist()} for papers in built.rows.paper_index]
    changes = [row for row, after in itertools.pairwise(rows) if row != after]
    assert all(len(row) == 1 for row in rows)
    assert changes == [{"odd"}, {"even"}, {"odd"}]


def test_validation_is_not_mixed(folder, tokenizer):
    mixture = MixtureConfig.model_validate({"sources": {"odd": {"epochs": 0}}})
    built = build(folder, tokenizer, MIXED, split="validation", mixture=mixture)
    assert set(tokens_read(built)) == {"odd"}


def test_padding_stays_within_the_bound_on_many_short_documents(folder, tokenizer):
    random = np.random.default_rng(1)
    parts = [[(paper, int(random.integers(6, 80)), "train") for paper in range(90)] for _ in range(3)]
    built = build(folder, tokenizer, [[(p, n, s) for p, n, s in part] for part in parts])
    used = sum(int(ends[-1]) for ends in built.rows.segment_ends)
    assert 1 - used / built.rows.input_ids.size <= 0.01


documents = st.lists(
    st.tuples(st.integers(1, 150), st.sampled_from(["train", "train", "validation", "test"])), max_size=12
)


@given(st.lists(documents, min_size=1, max_size=4), st.integers(1, 400), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_corpus_is_laid_out_whole(folder, tokenizer, monkeypatch, lengths, group_tokens, epochs, seed):
    monkeypatch.setattr(tokens, "GROUP_TOKENS", group_tokens)
    numbers = iter(range(100))
    parts = [[(next(numbers), length, split) for length, split in part] for part in lengths]
    expected = {f"papers/{p}": n for part in parts for p, n, split in part if split == "train"}
    built = build(folder, tokenizer, parts, epochs=epochs, shuffle_seed=seed)
    for number in range(epochs):
        if expected:
            assert_every_token_once(built.epoch(number), built.papers, expected)
        else:
            assert built.rows_by_epoch[number] == 0


# --------------------------------------------------------------------------------------------------
# Files


def test_a_saved_shard_reads_back_as_its_rows(folder, tokenizer, tmp_path):
    built = build(folder, tokenizer, PARTS, epochs=2, rows_per_shard=8)
    config = DataConfig(sequence_length=WIDTH, rows_per_row_group=4, rows_per_shard=8)
    count = len(built.shards[0])
    files = [
        save_shard(
            str(tmp_path / f"shard-{index}.parquet"),
            Storage(),
            config,
            "f" * 64,
            *[entry[index] for entry in built.shards],
        )
        for index in range(count)
    ]
    assert sum(file.rows for file in files) == len(built.rows)
    with TokenDataset.open(tuple(files), Storage()) as dataset:
        read = dataset.read_rows(0, len(built.rows))
    assert np.array_equal(read.input_ids, built.rows.input_ids)
    assert [index.tolist() for index in read.paper_index] == [i.tolist() for i in built.rows.paper_index]


def test_the_papers_table_lists_what_was_merged_into_each(folder, tokenizer, tmp_path):
    store = ArtifactStore(Storage(), str(tmp_path))
    sink = pa.BufferOutputStream()
    merged = [
        {"paper_id": "papers/90", "uri": "u", "kept_paper_id": "papers/3", "kind": "exact"},
        {"paper_id": "papers/91", "uri": "u", "kept_paper_id": "papers/3", "kind": "exact"},
    ]
    pq.write_table(pa.Table.from_pylist(merged, schema=DUPLICATE_SCHEMA), sink)
    with store.begin("corpus", "geo", fingerprint_of({"a": 1})) as writer:
        writer.write_file("duplicates.parquet", bytes(sink.getvalue()), rows=2)
        corpus = writer.publish(inputs={"a": 1}, stage_version=1)
    config = DataConfig(sequence_length=WIDTH)
    tables = [tokenise_part(uri, Storage(), tokenizer, config)[0] for uri in write_parts(folder, PARTS)]
    with store.begin("tokens", "geo", fingerprint_of({"b": 1})) as writer:
        write_papers(tables, corpus, Storage(), writer)
        artifact = writer.publish(inputs={"b": 1}, stage_version=1)
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
    assert [row["merged"] for row in rows if row["paper_id"] != "papers/3"] == [[]] * 8
