"""A small corpus stage for these tests: documents in, clusters out, over several partitions."""

import random
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pytest

from baltoro.corpus.dedup.clusters import KEPT, LEVELS, Edges, clusters_of, find_edges
from baltoro.corpus.dedup.config import DedupConfig
from baltoro.corpus.dedup.exact import content_hash
from baltoro.corpus.dedup.keys import document_keys, key_table, partition_of
from baltoro.corpus.words import words_of
from baltoro.papers.reader import read
from baltoro.papers.renderers import render
from baltoro.papers.schema import Block, Inline, Paper, Section


@dataclass
class Outcome:
    """What became of some documents: cluster members, and per dropped document the kept one and the kind."""

    clusters: list[set[str]] = field(default_factory=list)
    dropped: dict[str, tuple[str, str]] = field(default_factory=dict)

    def together(self, one, other):
        return any({one, other} <= cluster for cluster in self.clusters)

    def facts(self):
        return sorted(map(sorted, self.clusters)), self.dropped


cached_words = lru_cache(maxsize=256)(words_of)


def run_dedup(documents, config=None, *, partitions=3, shuffle=None):
    """Deduplicate (paper, text) pairs; ``shuffle`` seeds another order of documents and rows."""
    config = config or DedupConfig()
    ids = sorted(paper.paper_id for paper, _ in documents)
    assert len(set(ids)) == len(ids)
    number = {paper_id: place for place, paper_id in enumerate(ids)}
    documents = list(documents)
    if shuffle is not None:
        random.Random(shuffle).shuffle(documents)
    rows = key_table(
        [
            document_keys(
                paper,
                cached_words(text),
                document=number[paper.paper_id],
                content_hash=content_hash(text),
                characters=len(text),
                config=config,
            )
            for paper, text in documents
        ],
        config,
    )
    parts = partition_of(rows.column("key").to_numpy(), partitions)
    tables = []
    for part in range(partitions):
        mine = np.flatnonzero(parts == part)
        if shuffle is not None:
            np.random.default_rng(shuffle).shuffle(mine)
        tables.append(find_edges(rows.take(mine), config).to_table())
    found = clusters_of(Edges.from_tables(tables))
    members = {}
    outcome = Outcome()
    for document, cluster, kept, level in zip(
        found.documents, found.clusters, found.kept, found.levels, strict=True
    ):
        members.setdefault(int(cluster), set()).add(ids[document])
        if level == KEPT:
            assert kept == document
        else:
            outcome.dropped[ids[document]] = (ids[kept], LEVELS[level])
    outcome.clusters = list(members.values())
    for cluster, names in members.items():
        assert ids[cluster] == min(names)
        assert len(names - outcome.dropped.keys()) == 1
    return outcome


def make_paper(key, text="", *, title="", source="s", **fields):
    """A paper whose body is ``text``, one paragraph per line."""
    blocks = [Block("paragraph", [Inline("text", line)]) for line in text.split("\n") if line]
    return Paper(
        paper_id=f"{source}/{key}",
        source=source,
        title=title,
        sections=[Section(1, "Results", blocks=blocks)],
        **{"format": "grobid_tei", **fields},
    )


def random_text(seed, count, vocabulary=20_000):
    """Words that look like words, the same for the same seed, a full stop every dozen."""
    rng = random.Random(seed)
    words = [f"w{rng.randrange(vocabulary):x}" for _ in range(count)]
    return ". ".join(" ".join(words[start : start + 12]) for start in range(0, count, 12))


@pytest.fixture(scope="session")
def dedup():
    return run_dedup


@pytest.fixture(scope="session")
def paper():
    return make_paper


@pytest.fixture(scope="session")
def text():
    return random_text


FOLDERS = ("jats", "grobid_tei", "s2orc_json", "nougat/openreview", "nougat/openreview_cleaned")


@pytest.fixture(scope="session")
def real_papers(sample_data):
    """All real papers with their plain text."""
    return [
        (record, render(record, "plain"))
        for folder in FOLDERS
        for record in read(str(sample_data / folder), source=folder.replace("/", "_"))
        if isinstance(record, Paper)
    ]
