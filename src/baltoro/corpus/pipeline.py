"""The corpus stage on a cluster: Ray Data spreads the tasks of each pass, files hand over between passes.

1. ``records``: read, clean, render, decontaminate, filter each chunk of objects; stage its documents, its
   records (who was read, what became of it) and the keys by which copies meet, sorted by partition.
2. ``edges``: per partition of the keys, the verified pairs of copies in it.
3. ``decisions``: one task joins the pairs to clusters and says who gives way to whom.
4. ``written``: per chunk, the final part without the copies, with splits.

No process holds the corpus, nor all keys; texts are read and written by the tasks alone. What a task has
finished stays finished when a build is killed (:mod:`baltoro.corpus.work`). Chunks, rows and choices depend
only on listing and recipe, so a repeated build writes the same bytes, and the cut into chunks changes
neither documents nor their order.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from tqdm import tqdm

from baltoro.core.artifacts import ArtifactWriter
from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage, join
from baltoro.corpus.config import CorpusConfig
from baltoro.corpus.decontamination.canaries import (
    CanaryCounts,
    MissedCanary,
    canaries_of_chunk,
    choose_canaries,
)
from baltoro.corpus.decontamination.matcher import ItemIndex
from baltoro.corpus.dedup.clusters import KEPT, LEVELS, Edges, clusters_of, find_edges
from baltoro.corpus.dedup.records import DECISION_SCHEMA, DUPLICATE_SCHEMA
from baltoro.corpus.documents import (
    DOCUMENT_SCHEMA,
    ChunkOutcome,
    number_of,
    process_chunk,
)
from baltoro.corpus.listing import Chunk, SourceListing, chunk_listings
from baltoro.corpus.splits import split_of
from baltoro.corpus.work import STAGING, WorkArea, parquet_bytes
from baltoro.papers.metadata import MetadataTable
from baltoro.papers.schema import REJECT_SCHEMA

CORPUS_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("split", pa.string()))
"""The rows of ``documents/part-*.parquet`` in a corpus artifact."""

_RECORD_COLUMNS = (
    "source",
    "format",
    "license",
    "language",
    "year",
    "venue",
    "characters",
    "content_hash",
    "metadata_row",
    "contaminated",
)

RECORD_SCHEMA = pa.schema(
    [("number", pa.int64()), ("paper_id", pa.string()), ("uri", pa.string())]
    + [DOCUMENT_SCHEMA.field(name) for name in _RECORD_COLUMNS]
    + [("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string()), ("excerpt", pa.string())]
)
"""What the first pass says of each record: rejects have a ``reason``, and the text's beginning."""

_PARTITION_BYTES = 32_000_000
_MOST_PARTITIONS = 1024
_DECISIONS_PER_ROW_GROUP = 1 << 16


@dataclass(slots=True)
class CorpusSummary:
    """The figures of a build, as the manifest, the data card and the command line show them."""

    papers_read: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    contaminated: int = 0
    documents_by_split: dict[str, int] = field(default_factory=dict)
    text_bytes: int = 0


def run_chunks(function: Any, rows: Sequence[Mapping[str, Any]], *, what: str) -> Iterator[pa.Table]:
    """Map a table-to-table function over rows, one row a task, streaming; yields tables as they come.

    Args:
        function: takes an Arrow table of one row, returns an Arrow table.
        rows: plain values, one task each.
        what: shown beside the progress bar.
    """
    if not rows:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # What a task raises must reach the command line as it is, not as the text of a wrapper.
    context.raise_original_map_exception = True
    keep_console_clean()
    table = pa.Table.from_pylist([dict(row) for row in rows])
    dataset = ray.data.from_arrow([table.slice(index, 1) for index in range(table.num_rows)])
    mapped = dataset.map_batches(function, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    with tqdm(total=len(rows), desc=what, unit="task", leave=False) as bar:
        for reference in mapped.iter_internal_ref_bundles():
            for block_ref in reference.block_refs:
                bar.update(1)
                yield ray.get(block_ref)


def keep_console_clean() -> None:
    """Leave Ray Data's messages to its log file; with ``-v`` they are shown, too.

    Importing Ray Data gives its logger a console handler of its own, whatever its level was before.
    """
    if logging.getLogger().isEnabledFor(logging.INFO):
        return
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class ReadTask:
    """First pass over one chunk: stage its documents and keys, and last its records."""

    area: WorkArea
    config: CorpusConfig
    storage: Storage
    metadata: Mapping[str, MetadataTable]
    index: ItemIndex | None
    canaries: Sequence[int]
    chunks: int
    partitions: int

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Process the pickled chunks of a batch; returns the chunks' numbers."""
        chunks = [pickle.loads(data) for data in batch.column("chunk").to_pylist()]
        for chunk in chunks:
            self.read_chunk(chunk)
        return pa.table({"index": [chunk.index for chunk in chunks]})

    def read_chunk(self, chunk: Chunk) -> None:
        """Process one chunk."""
        canaries = canaries_of_chunk(self.canaries, chunk.index, self.chunks)
        outcome = process_chunk(
            chunk, self.config, self.storage, self.metadata, index=self.index, canaries=canaries
        )
        self.area.write("documents", chunk.index, outcome.documents)
        self.area.write_partitions("keys", chunk.index, outcome.keys, self.partitions)
        self.area.write(
            "records", chunk.index, records_of(outcome, self.config.sources[chunk.source_index].name)
        )


def records_of(outcome: ChunkOutcome, source: str) -> pa.Table:
    """Return a chunk's records in :data:`RECORD_SCHEMA`; its counts stand in the table's metadata."""
    kept = outcome.documents.select(["number", "paper_id", "uri", *_RECORD_COLUMNS])
    refused = outcome.rejects.append_column(
        "source", pa.array([source] * outcome.rejects.num_rows, pa.string())
    )
    counts = {
        "cleaned": outcome.cleaned,
        "cleaned_papers": outcome.cleaned_papers,
        "canaries": {
            "planted": outcome.canaries.planted,
            "found": outcome.canaries.found,
            "missed": [
                [missed.set_name, missed.item_id, missed.length_class, missed.planted]
                for missed in outcome.canaries.missed
            ],
        },
    }
    table = pa.concat_tables([_complete(kept), _complete(refused)]).sort_by("number")
    return table.replace_schema_metadata({"counts": json.dumps(counts)})


def _complete(table: pa.Table) -> pa.Table:
    for entry in RECORD_SCHEMA:
        if entry.name not in table.column_names:
            table = table.append_column(entry, pa.nulls(table.num_rows, entry.type))
    return table.select(RECORD_SCHEMA.names).cast(RECORD_SCHEMA)


@dataclass(frozen=True)
class EdgeTask:
    """Second pass over one partition of the keys: the pairs of copies in it."""

    area: WorkArea
    config: CorpusConfig
    chunks: int

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Find the edges of the partitions of a batch."""
        for partition in batch.column("index").to_pylist():
            rows = self.area.read_partition("keys", range(self.chunks), partition)
            self.area.write("edges", partition, find_edges(rows, self.config.dedup).to_table())
        return batch.select(["index"])


@dataclass(frozen=True)
class DecideTask:
    """Third pass, one task: who gives way to whom."""

    area: WorkArea
    chunks: int
    partitions: int

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Join all edges and write the decisions, in the order of the documents' numbers."""
        edges = Edges.from_tables([self.area.read("edges", index) for index in range(self.partitions)])
        clusters = clusters_of(edges)
        # Only the names of documents that have copies are held here.
        names = [DECISION_SCHEMA.empty_table().select(["number", "paper_id", "uri"])]
        for table in self.area.read_all("records", range(self.chunks), ["number", "paper_id", "uri"]):
            mask = np.isin(table.column("number").to_numpy(), clusters.documents)
            if mask.any():
                names.append(table.filter(pa.array(mask)).replace_schema_metadata())
        members = pa.concat_tables(names).sort_by("number")
        paper_ids = members.column("paper_id").combine_chunks()
        kinds = np.array([*LEVELS, "kept"], dtype=object)
        assert len(LEVELS) == KEPT
        decisions = members.append_column(
            "kept_paper_id", paper_ids.take(pa.array(np.searchsorted(clusters.documents, clusters.kept)))
        )
        decisions = decisions.append_column("kind", pa.array(kinds[clusters.levels].tolist(), pa.string()))
        decisions = decisions.append_column(
            "cluster", paper_ids.take(pa.array(np.searchsorted(clusters.documents, clusters.clusters)))
        )
        sink = pa.BufferOutputStream()
        pq.write_table(decisions.cast(DECISION_SCHEMA), sink, row_group_size=_DECISIONS_PER_ROW_GROUP)
        self.area.storage.write_bytes(self.area.place("decisions", 0), bytes(sink.getvalue()))
        return batch.select(["index"])


def decisions_of(area: WorkArea, chunk: Chunk) -> pa.Table:
    """Return the decisions about the documents of one chunk."""
    first = number_of(chunk.first_object, 0)
    end = number_of(chunk.first_object + len(chunk.objects), 0)
    with area.storage.open(area.place("decisions", 0)) as file:
        return pq.read_table(file, filters=[("number", ">=", first), ("number", "<", end)])


@dataclass(frozen=True)
class WriteTask:
    """Last pass over one chunk: leave out the copies, add the split, write the final part."""

    area: WorkArea
    config: CorpusConfig
    documents_uri: str

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the parts of the pickled chunks of a batch."""
        chunks = [pickle.loads(data) for data in batch.column("chunk").to_pylist()]
        for chunk in chunks:
            self.write_part(chunk)
        return pa.table({"index": [chunk.index for chunk in chunks]})

    def write_part(self, chunk: Chunk) -> None:
        """Write one part, and last what it holds."""
        staged = self.area.read("documents", chunk.index)
        decisions = decisions_of(self.area, chunk)
        gone = decisions.filter(pa.compute.not_equal(decisions.column("kind"), "kept"))
        mask = np.isin(staged.column("number").to_numpy(), gone.column("number").to_numpy(), invert=True)
        part = staged.filter(pa.array(mask))
        splits = [split_of(hashed, self.config.splits) for hashed in part.column("content_hash").to_pylist()]
        part = part.append_column("split", pa.array(splits, pa.string())).cast(CORPUS_SCHEMA)
        data = parquet_bytes(part)
        if part.num_rows:
            self.area.storage.write_bytes(join(self.documents_uri, part_name(chunk.index)), data)
        text_bytes = sum(len(text.encode()) for text in part.column("text").to_pylist())
        row = {
            "rows": part.num_rows,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "text_bytes": text_bytes,
            "splits": json.dumps(Counter(splits)),
        }
        self.area.write("written", chunk.index, pa.Table.from_pylist([row]))


def part_name(chunk_index: int) -> str:
    """Return the file name of a chunk's final documents."""
    return f"part-{chunk_index:06d}.parquet"


@dataclass(slots=True)
class CorpusBuild:
    """A finished build before it is published; its document parts are already named in the writer.

    ``records`` has one row per record read, ``duplicates`` one per document that gave way.
    """

    summary: CorpusSummary
    records: pa.Table
    duplicates: pa.Table
    cleaned: dict[str, int]
    cleaned_papers: dict[str, int]
    canaries: CanaryCounts


def work_folder(config: CorpusConfig) -> str:
    """Return the name of the folder that builds of one corpus share: one cut, one version of Baltoro."""
    cut = f"{config.objects_per_task}-{config.bytes_per_task}-{version('baltoro')}"
    return f"b-{hashlib.sha256(cut.encode()).hexdigest()[:16]}"


def build_documents(  # noqa: PLR0917  (each is a thing of its own that the caller has at hand)
    config: CorpusConfig,
    listings: Sequence[SourceListing],
    storage: Storage,
    metadata: Mapping[str, MetadataTable],
    index: ItemIndex | None,
    writer: ArtifactWriter,
) -> CorpusBuild:
    """Run all passes, as far as they are not finished, and name the written files in the artifact's writer.

    Raises:
        ArtifactError: the accounting does not balance (read = kept + rejected + duplicates).
    """
    chunks = list(
        chunk_listings(
            listings, objects_per_task=config.objects_per_task, bytes_per_task=config.bytes_per_task
        )
    )
    size_bytes = sum(listing.size_bytes for listing in listings)
    partitions = min(_MOST_PARTITIONS, 1 + size_bytes // _PARTITION_BYTES)
    area = WorkArea(storage, writer.uri_for(STAGING))
    documents_uri = writer.uri_for("documents")
    by_chunk = [{"index": chunk.index, "chunk": pickle.dumps(chunk)} for chunk in chunks]
    canaries = choose_canaries(index, config.decontaminate.canaries) if index is not None else ()
    read = ReadTask(area, config, storage, metadata, index, canaries, len(chunks), partitions)
    run_pass(area, "records", read, by_chunk, what="reading papers")
    edges = EdgeTask(area, config, len(chunks))
    run_pass(area, "edges", edges, [{"index": n} for n in range(partitions)], what="finding copies")
    decide = DecideTask(area, len(chunks), partitions)
    run_pass(area, "decisions", decide, [{"index": 0}], what="choosing among copies")
    write = WriteTask(area, config, documents_uri)
    run_pass(area, "written", write, by_chunk, what="writing documents")
    return collect(area, len(chunks), writer)


def run_pass(
    area: WorkArea,
    name: str,
    function: Callable[[pa.Table], pa.Table],
    rows: Sequence[Mapping[str, Any]],
    *,
    what: str,
) -> None:
    """Run the tasks of a pass whose file is not there yet."""
    finished = area.finished(name)
    for _ in run_chunks(function, [row for row in rows if row["index"] not in finished], what=what):
        pass


def collect(area: WorkArea, chunks: int, writer: ArtifactWriter) -> CorpusBuild:
    """Name the written parts and sum up what all tasks say.

    Raises:
        ArtifactError: the accounting does not balance.
    """
    summary = CorpusSummary()
    splits: Counter[str] = Counter()
    for index in range(chunks):
        row = area.read("written", index).to_pylist()[0]
        summary.kept += row["rows"]
        summary.text_bytes += row["text_bytes"]
        splits.update(json.loads(row["splits"]))
        if row["rows"]:
            writer.add_file(
                f"documents/{part_name(index)}",
                rows=row["rows"],
                size_bytes=row["size_bytes"],
                sha256=row["sha256"],
            )
    summary.documents_by_split = dict(splits)
    tables = [area.read("records", index) for index in range(chunks)]
    cleaned: Counter[str] = Counter()
    cleaned_papers: Counter[str] = Counter()
    canaries = CanaryCounts()
    for table in tables:
        counts = json.loads(table.schema.metadata[b"counts"])
        cleaned.update(counts["cleaned"])
        cleaned_papers.update(counts["cleaned_papers"])
        found = counts["canaries"]
        canaries += CanaryCounts(
            found["planted"], found["found"], tuple(MissedCanary(*missed) for missed in found["missed"])
        )
    records = pa.concat_tables(
        [RECORD_SCHEMA.empty_table(), *(table.replace_schema_metadata() for table in tables)]
    )
    with area.storage.open(area.place("decisions", 0)) as file:
        duplicates = pq.read_table(file, filters=[("kind", "!=", "kept")]).select(DUPLICATE_SCHEMA.names)
    balance(summary, records, duplicates)
    return CorpusBuild(summary, records, duplicates, dict(cleaned), dict(cleaned_papers), canaries)


def balance(summary: CorpusSummary, records: pa.Table, duplicates: pa.Table) -> None:
    """Complete a summary, and check that every record is accounted for.

    Raises:
        ArtifactError: read ≠ kept + rejected + duplicates.
    """
    reasons = Counter(reason for reason in records.column("reason").to_pylist() if reason is not None)
    kinds = Counter(duplicates.column("kind").to_pylist())
    summary.papers_read = records.num_rows
    summary.rejected = dict(sorted(reasons.items()))
    summary.duplicates = {kind: kinds.get(kind, 0) for kind in LEVELS}
    summary.contaminated = reasons.get("contaminated", 0)
    accounted = summary.kept + sum(reasons.values()) + duplicates.num_rows
    if accounted != summary.papers_read:
        raise ArtifactError(
            f"the corpus does not balance: {summary.papers_read} records read, {summary.kept} kept + "
            f"{sum(reasons.values())} rejected + {duplicates.num_rows} duplicates; please report this "
            "with the recipe"
        )


def rejects_of(records: pa.Table) -> pa.Table:
    """Return the rejects among the records, in REJECT_SCHEMA and paper order."""
    return records.filter(pa.compute.is_valid(records.column("reason"))).select(REJECT_SCHEMA.names)
