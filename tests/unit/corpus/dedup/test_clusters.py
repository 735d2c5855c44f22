"""Clusters depend on the documents alone, cost linear time in the worst case, and keep one of each."""

import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.corpus.dedup.clusters import KEPT, Edges, clusters_of, find_edges
from baltoro.corpus.dedup.config import DedupConfig, NearDuplicateConfig, VersionConfig
from baltoro.corpus.dedup.keys import (
    document_keys,
    explain_document,
    explain_pair,
    key_schema,
    key_table,
    partition_of,
)
from baltoro.corpus.dedup.versions import SETTLED_RANK, KeyKind
from baltoro.corpus.words import mixed, words_of
from baltoro.papers.schema import Paper

CONFIG = DedupConfig()
NEAR_ONLY = DedupConfig(exact=False, versions=VersionConfig(enabled=False))


def rows(entries, config=CONFIG):
    """Rows from (key, kind, document, rank, sketch bytes) tuples."""
    width = config.near.bins // 2
    return pa.table(
        {
            "key": [e[0] for e in entries],
            "kind": [int(e[1]) for e in entries],
            "document": [e[2] for e in entries],
            "rank": [e[3] for e in entries],
            "title": [0] * len(entries),
            "shingles": [1000] * len(entries),
            "format": [0] * len(entries),
            "sketch": [e[4].ljust(width, b"\0")[:width] for e in entries],
        },
        schema=key_schema(config),
    )


def edges(pairs):
    """Edges from (better, worse, level) with ranks equal to the numbers."""
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    left, right = np.array(columns[0], np.int64), np.array(columns[1], np.int64)
    return Edges(left, right, np.array(columns[2], np.uint8), left.astype(np.uint64), right.astype(np.uint64))


def varied(corpus, paper, text):
    """Documents of every kind of duplicate, from a list of (original, change) numbers."""
    documents = []
    for place, (original, change) in enumerate(corpus):
        body = text(original, 400)
        if change == 1:
            body = body[300:] + " some other words at the end"
        document = paper(
            f"{place:03}",
            title=f"A study of the rocks of valley number {original}" if change == 2 else "",
            authors=["Ann Lee"],
            format=["jats", "nougat"][place % 2],
        )
        documents.append((document, body if change != 2 else text(1000 + place, 400)))
    return documents


@given(
    corpus=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=14),
    seed=st.integers(0, 1000),
    partitions=st.integers(1, 7),
)
@settings(max_examples=12)
def test_order_and_partitions_change_nothing(dedup, paper, text, corpus, seed, partitions):
    documents = varied(corpus, paper, text)
    shuffled = dedup(documents, partitions=partitions, shuffle=seed)
    assert shuffled.facts() == dedup(documents).facts()


def test_each_document_gives_way_at_the_strongest_kind(dedup, paper, text):
    title = "A study of the rocks of the upper valley"
    body = text(1, 600)
    documents = [
        (paper("a", format="jats", title=title, authors=["Ann Lee"], venue="Rocks"), body),
        (paper("b", format="jats", title=title, authors=["Ann Lee"], venue="Rocks"), body),
        (paper("c", format="nougat", title=title, authors=["Ann Lee"]), text(2, 600)),
        (paper("d", format="nougat"), body[200:] + " and some other words"),
        (paper("e"), text(3, 600)),
    ]
    outcome = dedup(documents)
    assert outcome.dropped == {"s/b": ("s/a", "exact"), "s/c": ("s/a", "version"), "s/d": ("s/a", "near")}


def test_copies_of_a_copy_are_counted_as_what_they_are(dedup, paper, text):
    body = text(1, 600)
    documents = [
        (paper("a", format="jats"), body + " with an end that differs"),
        (paper("b", format="nougat"), body),
        (paper("c", format="nougat"), body),
    ]
    assert dedup(documents).dropped == {"s/b": ("s/a", "near"), "s/c": ("s/a", "exact")}


def test_switches_take_their_kind_away(dedup, paper, text):
    body = text(1, 600)
    copies = [(paper("a"), body), (paper("b"), body)]
    near = NearDuplicateConfig(enabled=False)
    assert dedup(copies, DedupConfig(exact=False)).dropped == {"s/b": ("s/a", "near")}
    assert dedup(copies, DedupConfig(near=near)).dropped == {"s/b": ("s/a", "exact")}
    assert dedup(copies, DedupConfig(exact=False, near=near)).dropped == {}


def test_a_shared_band_alone_merges_nothing():
    one, other = np.random.default_rng(1).bytes(128), np.random.default_rng(2).bytes(128)
    assert len(find_edges(rows([(5, KeyKind.NEAR, 1, 1, one), (5, KeyKind.NEAR, 2, 1, other)]), CONFIG)) == 0
    found = find_edges(rows([(5, KeyKind.NEAR, 1, 9, one), (5, KeyKind.NEAR, 2, 1, one)]), CONFIG)
    assert (found.left.tolist(), found.right.tolist(), found.levels.tolist()) == ([2], [1], [2])


def test_equal_hashes_of_different_texts_are_no_copies():
    one, other = np.random.default_rng(1).bytes(128), np.random.default_rng(2).bytes(128)
    assert (
        len(find_edges(rows([(5, KeyKind.EXACT, 1, 1, one), (5, KeyKind.EXACT, 2, 1, other)]), CONFIG)) == 0
    )


def test_contained_texts_count_where_the_recipe_says_so(dedup, paper, text):
    documents = []
    for n in range(20):
        whole = text(n, 3000)
        documents += [(paper(f"{n}a"), whole), (paper(f"{n}b"), whole[: int(len(whole) * 0.4)])]
    assert len(dedup(documents, NEAR_ONLY).dropped) <= 3
    near = NearDuplicateConfig(min_containment=0.75)
    dropped = dedup(
        documents, DedupConfig(exact=False, versions=VersionConfig(enabled=False), near=near)
    ).dropped
    assert len(dropped) >= 12
    assert all(name.replace("b", "a") == kept for name, (kept, _) in dropped.items())


NAMES = ["Ann", "Lee", "Bo", "Chen", "Eva", "Moe", "Ole"]


def test_short_notices_of_one_form_are_not_merged(dedup, paper):
    form = "In the published version of this article the affiliation of author {} was wrong. It is {}."
    notices = [(paper(f"{n}"), form.format(*NAMES[n : n + 2])) for n in range(5)]
    assert dedup(notices).dropped == {}


def test_empty_documents_are_one_cluster_of_exact_copies_and_break_nothing(dedup, paper):
    outcome = dedup([(paper("a"), ""), (paper("b"), "")])
    assert outcome.dropped == {"s/b": ("s/a", "exact")}


def test_a_document_of_an_earlier_part_stays_whatever_its_rank():
    sketch = np.random.default_rng(1).bytes(128)
    found = find_edges(
        rows([(5, KeyKind.NEAR, 9, SETTLED_RANK, sketch), (5, KeyKind.NEAR, 2, 1, sketch)]), CONFIG
    )
    clusters = clusters_of(found)
    assert clusters.kept.tolist() == [9, 9]
    assert clusters.clusters.tolist() == [2, 2]


def test_no_rows_give_no_edges_and_no_clusters():
    found = find_edges(key_schema(CONFIG).empty_table(), CONFIG)
    assert len(found) == 0
    assert len(clusters_of(Edges.from_tables([found.to_table()])).documents) == 0
    assert len(clusters_of(Edges.from_tables([])).documents) == 0
    assert key_table([], CONFIG).schema == key_schema(CONFIG)


def union_find(pairs):
    parent = {}

    def root(x):
        parent.setdefault(x, x)
        while parent[x] != x:
            x = parent[x]
        return x

    for one, other, _ in pairs:
        parent[root(one)] = root(other)
    groups = {}
    for x in list(parent):
        groups.setdefault(root(x), set()).add(x)
    return sorted(map(sorted, groups.values()))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 2)), max_size=30))
def test_clusters_are_the_connected_components(pairs):
    found = clusters_of(edges(pairs))
    groups = {}
    for document, cluster in zip(found.documents.tolist(), found.clusters.tolist(), strict=True):
        groups.setdefault(cluster, set()).add(document)
    assert sorted(map(sorted, groups.values())) == union_find(pairs)
    assert all(cluster == min(members) for cluster, members in groups.items())
    for cluster, members in groups.items():
        kept = {d for d, level in zip(found.documents, found.levels, strict=True) if level == KEPT} & members
        assert kept == {min(members)}, cluster


def many(count, sketches, keys):
    """Near rows of ``count`` documents with one key each."""
    return pa.table(
        [
            keys,
            np.full(count, int(KeyKind.NEAR), np.uint8),
            np.arange(count),
            mixed(np.arange(1, count + 1, dtype=np.uint64)) >> np.uint64(2),
            np.zeros(count, np.uint64),
            np.full(count, 1000, np.int32),
            np.zeros(count, np.uint8),
            pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(128), count, [None, pa.py_buffer(sketches.tobytes())]
            ),
        ],
        schema=key_schema(CONFIG),
    )


def seconds(table):
    start = time.process_time()
    found = find_edges(table, CONFIG)
    return time.process_time() - start, found


def test_a_form_that_all_documents_share_costs_linear_time():
    sketches = np.random.default_rng(3).integers(0, 256, (100_000, 128), np.uint8)
    small, _ = seconds(many(10_000, sketches[:10_000], np.full(10_000, 7, np.uint64)))
    large, found = seconds(many(100_000, sketches, np.full(100_000, 7, np.uint64)))
    print(f"\n10^5 unrelated documents in one band: {large:.2f} s ({large / small:.1f} times 10^4)")
    assert len(found) == 0
    assert large < 40 * max(small, 0.01)
    assert large < 10


def test_a_text_that_all_documents_copy_is_one_star():
    sketches = np.tile(np.random.default_rng(3).integers(0, 256, 128, np.uint8), (100_000, 1))
    took, found = seconds(many(100_000, sketches, np.full(100_000, 7, np.uint64)))
    assert len(found) == 99_999
    assert len(np.unique(found.left)) == 1
    assert took < 5


def test_pairs_hidden_in_a_shared_form_meet_by_their_other_keys(dedup, paper, text):
    form = text(99, 400)
    documents = [(paper(f"{n:03}"), f"{text(n, 500)} {form}") for n in range(60)]
    documents += [(paper(f"{n:03}x"), f"{text(n, 500)} {form} and more") for n in range(0, 60, 7)]
    outcome = dedup(documents, NEAR_ONLY)
    assert outcome.dropped == {f"s/{n:03}": (f"s/{n:03}x", "near") for n in range(0, 60, 7)}


def test_the_keys_of_a_document_are_counted_and_evenly_spread(text):
    paper = Paper(
        paper_id="s/a.mmd", format="nougat", title="The rocks of the upper valley", authors=["A. Lee"]
    )
    body = text(1, 3000)
    keys = document_keys(
        paper, words_of(body), document=3, content_hash="ab" * 16, characters=len(body), config=CONFIG
    )
    kinds = [KeyKind(kind).name for kind in keys.kinds if kind != KeyKind.NEAR]
    assert kinds == ["TITLE_AUTHOR", "STEM", "TITLE", "EXACT"]
    assert (keys.kinds == KeyKind.NEAR).sum() == 64
    table = key_table([keys, keys], CONFIG)
    assert table.num_rows == 136
    assert table.nbytes / table.num_rows == pytest.approx(166)
    assert table.column("sketch")[5].as_py() == keys.sketch.tobytes()
    counts = np.bincount(partition_of(mixed(np.arange(10_000, dtype=np.uint64)), 8), minlength=8)
    assert counts.min() > 1100


def test_a_verdict_can_be_explained(text):
    paper = Paper(
        paper_id="s/7.mmd",
        format="nougat",
        title="The rocks of the upper valley",
        authors=["A. Lee"],
        doi="10.1017/x",
    )
    body = text(1, 900)
    told = explain_document(paper, words_of(body), len(body), CONFIG)
    assert told["key doi"] == "10.1017/x"
    assert told["key title_author"] == "paper / therocksoftheuppervalley / lee"
    assert told["key stem"] == "7"
    assert "full_text=0, published=0, structure=7, format=3" in told["rank"]
    assert told["structure missing"].startswith("abstract, headings")
    assert (told["shingles"], told["bands"]) == ("896", "64")
    one, other = (
        document_keys(
            paper,
            words_of(words),
            document=n,
            content_hash=f"{n}" * 16,
            characters=len(words) - n,
            config=CONFIG,
        )
        for n, words in enumerate((body, body[2000:]))
    )
    told = explain_pair(one, other)
    assert told["shared keys"].startswith("title_author 1, doi 1, stem 1, title 1, near ")
    assert 0.5 < float(told["estimated similarity"]) < 0.8
    assert float(told["estimated part of the shorter in the longer"]) > 0.8
    assert (told["titles agree"], told["better by rank"]) == ("yes", "0")


def test_a_slice_of_a_table_is_read_at_its_place(paper, text):
    sketch = [np.random.default_rng(n).bytes(128) for n in range(3)]
    table = rows(
        [(1, KeyKind.NEAR, n, n + 1, sketch[max(n - 1, 0)]) for n in range(3)]
        + [(1, KeyKind.NEAR, 3, 9, sketch[1])]
    )
    found = find_edges(table.slice(1), CONFIG)
    assert sorted(zip(found.left.tolist(), found.right.tolist(), strict=True)) == [(2, 3)]
    shuffled = list(range(4))
    random.Random(0).shuffle(shuffled)
    joined = pa.concat_tables([table.slice(n, 1) for n in shuffled])
    assert find_edges(joined, CONFIG).to_table().equals(find_edges(table, CONFIG).to_table())
