"""Corpus builds in this process: one task after the other, without Ray."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.storage import Storage
from baltoro.corpus import pipeline
from baltoro.corpus.config import CorpusConfig, SourceConfig
from baltoro.corpus.listing import list_sources
from baltoro.corpus.passes.build import EarlierParts


class Killed(Exception):
    """The process died."""


class Tasks:
    """Runs tasks here and now; ``die_after`` is when the process dies, ``done`` what it did."""

    Killed = Killed

    def __init__(self):
        self.die_after = None
        self.done = []

    def run(self, task, indices, *, what):
        for index in indices:
            if self.die_after is not None and len(self.done) >= self.die_after:
                raise Killed
            yield task(pa.table({"index": [index]}))
            self.done.append((what, index))


@pytest.fixture
def tasks(monkeypatch):
    here = Tasks()
    monkeypatch.setattr(pipeline, "run_chunks", here.run)
    monkeypatch.setattr(pipeline, "_PARTITION_BYTES", 100_000)
    return here


class Built(SimpleNamespace):
    """A finished build: its totals, the checksums of its parts, and its files."""

    def table(self, name):
        return pq.read_table(self.writer.uri_for(name))

    def documents(self):
        parts = Storage().list(self.writer.uri_for("documents"))
        return pa.concat_tables([pq.read_table(info.uri) for info in parts]).combine_chunks()

    def files(self, folder):
        return tuple(info.uri for info in Storage().list(self.writer.uri_for(folder)))

    def as_earlier(self, *before):
        """Return what a build that extends this one (and those before it) needs to know."""
        chain = (*before, self)
        return EarlierParts(
            signatures=tuple(uri for built in chain for uri in built.files("signatures")),
            spans=tuple(uri for built in chain for uri in built.files("spans")),
            objects=sum(built.table("objects.parquet").num_rows for built in chain),
        )


@pytest.fixture
def build(tasks):
    """Build a corpus of one folder under a root; returns :class:`Built`."""

    def build_one(folder, root, *, earlier=None, listings=None, style="plain", **settings):
        config = CorpusConfig(sources=(SourceConfig(name="s", uri=str(folder), style=style),), **settings)
        storage = Storage()
        writer = ArtifactStore(storage, str(root)).begin("corpus", "c", "0" * 16)
        writer.adopt_folder(pipeline.work_folder(config), shared=True)
        listings = list_sources(config, storage) if listings is None else listings
        totals = pipeline.build_documents(config, listings, storage, {}, None, writer, earlier)
        parts = {info.key: info.etag for info in storage.list(writer.uri_for("documents"))}
        return Built(totals=totals, parts=parts, writer=writer, listings=listings)

    return build_one
