"""Third pass, where the recipe wants it: passages that several documents share stay in the first alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from baltoro.corpus.dedup.keys import KeyFilter
from baltoro.corpus.dedup.repeated_spans import (
    REPEAT_SCHEMA,
    SPAN_SCHEMA,
    Repeats,
    find_repeats,
    span_keys,
    spans_by_document,
)
from baltoro.corpus.passes.build import Build
from baltoro.corpus.passes.copies import new_keys
from baltoro.corpus.passes.kept import kept_chunk
from baltoro.corpus.work import Task

KEPT_SPAN_SCHEMA = pa.schema([SPAN_SCHEMA.field("key"), SPAN_SCHEMA.field("check")])
"""What a corpus keeps of its documents' passages, for papers that arrive later."""

_EARLIER = -1
"""Stands for every document of an earlier part: before all new ones."""


@dataclass(frozen=True)
class KeepTask(Task):
    """One chunk: stage what is left of it, and the hashes of its passages."""

    build: Build

    def run(self, index: int) -> None:
        """Stage the chunk's documents, and last what else is known of them."""
        build, area = self.build, self.build.area
        chunk = kept_chunk(build, index)
        settings = build.config.dedup.repeated_spans
        source = build.config.sources[int(build.cut.source_index[index])].name
        windows = SPAN_SCHEMA.empty_table()
        if source not in settings.exempt_sources:
            columns = [chunk.documents.column(name).to_pylist() for name in ("text", "number")]
            windows = pa.concat_tables(
                [windows, *(span_keys(text, number, settings) for text, number in zip(*columns, strict=True))]
            )
        area.write("span-keys", index, windows.select(KEPT_SPAN_SCHEMA.names))
        area.write_partitions("spans", index, windows, build.partitions)
        area.write("kept-gone", index, chunk.gone)
        area.write(
            "kept-refused", index, chunk.refused.replace_schema_metadata({"merged": str(chunk.merged)})
        )
        area.write("kept", index, chunk.documents)


@dataclass(frozen=True)
class NewSpansTask(Task):
    """One task: what tells whether a passage may occur among the new documents."""

    build: Build

    def run(self, index: int) -> None:
        """Collect the passages of all chunks."""
        area, chunks = self.build.area, range(len(self.build.cut))
        total = sum(area.rows("span-keys", number) for number in chunks)
        found = KeyFilter.of(
            (table.column("key").to_numpy() for table in area.read_all("span-keys", chunks, ["key"])), total
        )
        area.write("new-spans", index, pa.table({"bits": found.bits}))


@dataclass(frozen=True)
class SettledSpansTask(Task):
    """One file of passages of the corpus that is extended: those that may occur among the new ones."""

    build: Build

    def run(self, index: int) -> None:
        """Pick them out, by partition."""
        build = self.build
        assert build.earlier is not None, "there is nothing settled in a first part"
        spans = build.area.read_uri(build.earlier.spans[index])
        chosen = spans.filter(pa.array(new_keys(build, "new-spans").may_hold(spans.column("key").to_numpy())))
        zeros = np.zeros(chosen.num_rows, np.int64)
        rows = pa.table(
            [chosen.column("key"), chosen.column("check"), pa.array(zeros + _EARLIER), zeros, zeros],
            schema=SPAN_SCHEMA,
        )
        build.area.write_partitions("settled-spans", index, rows, build.partitions)


@dataclass(frozen=True)
class RepeatTask(Task):
    """One partition of the passages: those that stood in an earlier document."""

    build: Build

    def run(self, index: int) -> None:
        """Find them."""
        build = self.build
        rows = build.area.read_partition("spans", range(len(build.cut)), index)
        if build.earlier is not None and build.earlier.spans:
            settled = build.area.read_partition("settled-spans", range(len(build.earlier.spans)), index)
            rows = pa.concat_tables([rows, settled])
        build.area.write("repeats", index, find_repeats(rows))


@dataclass(frozen=True)
class GatherTask(Task):
    """One task: all repeats in the order of the documents, 24 bytes each; each chunk finds its own there."""

    build: Build

    def run(self, index: int) -> None:
        """Sort the repeats of all partitions."""
        area = self.build.area
        tables = area.read_all("repeats", range(self.build.partitions), REPEAT_SCHEMA.names)
        order = [("document", "ascending"), ("start", "ascending"), ("end", "ascending")]
        area.write("cuts", index, pa.concat_tables([REPEAT_SCHEMA.empty_table(), *tables]).sort_by(order))


def cuts_of(build: Build, index: int) -> Repeats:
    """Return the passages to cut from the documents of a chunk."""
    return spans_by_document([build.area.read_between("cuts", 0, "document", *build.cut.numbers_of(index))])
