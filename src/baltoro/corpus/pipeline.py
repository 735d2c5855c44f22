"""The corpus stage on a cluster: Ray Data spreads the chunks, the driver joins what must be joined.

Two passes. The first reads, cleans, renders and filters each chunk and stages its documents in the
artifact's own writer folder; only identities, hashes and reasons come back to the driver. With all
hashes known, the driver picks the copies that stay and draws the splits; the second pass writes the
final parts. Texts never pass through the driver, and since chunks, rows and choices depend only on the
listing and the recipe, a repeated build writes the same bytes.
"""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from tqdm import tqdm

from baltoro.core.artifacts import ArtifactWriter
from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage
from baltoro.corpus.config import CorpusConfig
from baltoro.corpus.documents import DOCUMENT_SCHEMA, process_chunk
from baltoro.corpus.exact_dedup import DUPLICATE_SCHEMA, find_exact_duplicates
from baltoro.corpus.listing import Chunk, SourceListing, chunk_listings
from baltoro.corpus.splits import split_of
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
)

RECORD_SCHEMA = pa.schema(
    [("chunk", pa.int32()), ("row", pa.int32()), ("paper_id", pa.string()), ("uri", pa.string())]
    + [DOCUMENT_SCHEMA.field(name) for name in _RECORD_COLUMNS]
    + [("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""What the first pass reports per record: documents have a ``row``, rejects a ``reason``; never text."""


@dataclass(slots=True)
class CorpusSummary:
    """The figures of a build, as the manifest, the data card and the command line show them."""

    papers_read: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    documents_by_split: dict[str, int] = field(default_factory=dict)
    text_bytes: int = 0
    characters: int = 0


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


class ReadTask:
    """First pass over one chunk: stage its documents, report its records."""

    def __init__(
        self, config: CorpusConfig, storage: Storage, metadata: Mapping[str, MetadataTable], staging_uri: str
    ) -> None:
        self._config = config
        self._storage = storage
        self._metadata = metadata
        self._staging_uri = staging_uri

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Process the pickled chunks of a batch; returns rows in :data:`RECORD_SCHEMA`."""
        return pa.concat_tables(
            [self.read_chunk(pickle.loads(data)) for data in batch.column("chunk").to_pylist()]
        )

    def read_chunk(self, chunk: Chunk) -> pa.Table:
        """Process one chunk and return its records."""
        outcome = process_chunk(chunk, self._config, self._storage, self._metadata)
        documents = outcome.documents
        if documents.num_rows:
            self._storage.write_bytes(staged_uri(self._staging_uri, chunk.index), parquet_bytes(documents))
        count = documents.num_rows
        kept = documents.select(["paper_id", "uri", *_RECORD_COLUMNS])
        kept = kept.add_column(0, "chunk", pa.array([chunk.index] * count, pa.int32()))
        kept = kept.add_column(1, "row", pa.array(range(count), pa.int32()))
        refused = outcome.rejects
        refused = refused.append_column("chunk", pa.array([chunk.index] * refused.num_rows, pa.int32()))
        refused = refused.append_column(
            "source",
            pa.array([self._config.sources[chunk.source_index].name] * refused.num_rows, pa.string()),
        )
        tables = [_complete(kept), _complete(refused)]
        return pa.concat_tables(tables)


class WriteTask:
    """Second pass over one chunk: keep the chosen rows, add the split, write the final part."""

    def __init__(self, storage: Storage, staging_uri: str, documents_uri: str) -> None:
        self._storage = storage
        self._staging_uri = staging_uri
        self._documents_uri = documents_uri

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the parts of a batch; returns name, rows, size_bytes, sha256, text_bytes of each."""
        return pa.Table.from_pylist([self.write_part(row) for row in batch.to_pylist()])

    def write_part(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write one part from its staged documents."""
        import hashlib

        staged = pq.read_table(
            pa.BufferReader(self._storage.read_bytes(staged_uri(self._staging_uri, row["chunk"])))
        )
        part = staged.take(pa.array(row["rows"], pa.int64()))
        part = part.append_column("split", pa.array(row["splits"], pa.string())).cast(CORPUS_SCHEMA)
        data = parquet_bytes(part)
        self._storage.write_bytes(f"{self._documents_uri}/{part_name(row['chunk'])}", data)
        text_bytes = sum(len(text.encode()) for text in part.column("text").to_pylist())
        return {
            "chunk": row["chunk"],
            "rows": part.num_rows,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "text_bytes": text_bytes,
        }


def staged_uri(staging_uri: str, chunk_index: int) -> str:
    """Return where the first pass keeps the documents of a chunk."""
    return f"{staging_uri}/chunk-{chunk_index:06d}.parquet"


def part_name(chunk_index: int) -> str:
    """Return the file name of a chunk's final documents."""
    return f"part-{chunk_index:06d}.parquet"


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet (zstd), the same bytes for the same rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=1024)
    return bytes(sink.getvalue())


def _complete(table: pa.Table) -> pa.Table:
    missing = [entry for entry in RECORD_SCHEMA if entry.name not in table.column_names]
    for entry in missing:
        table = table.append_column(entry, pa.nulls(table.num_rows, entry.type))
    return table.select(RECORD_SCHEMA.names).cast(RECORD_SCHEMA)


@dataclass(slots=True)
class CorpusBuild:
    """A finished build before it is published; its document parts are already named in the writer."""

    summary: CorpusSummary
    records: pa.Table
    duplicates: pa.Table


def build_documents(
    config: CorpusConfig,
    listings: Sequence[SourceListing],
    storage: Storage,
    metadata: Mapping[str, MetadataTable],
    writer: ArtifactWriter,
) -> CorpusBuild:
    """Run both passes and register the written files with the artifact's writer.

    Raises:
        ArtifactError: the accounting does not balance (read = kept + rejected + duplicates).
    """
    chunks = list(
        chunk_listings(
            listings, objects_per_task=config.objects_per_task, bytes_per_task=config.bytes_per_task
        )
    )
    staging_uri = writer.uri_for("staged")
    read_task = ReadTask(config, storage, metadata, staging_uri)
    rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
    tables = list(run_chunks(read_task, rows, what="reading papers"))
    records = pa.concat_tables([RECORD_SCHEMA.empty_table(), *tables]).sort_by(
        [("chunk", "ascending"), ("row", "ascending"), ("paper_id", "ascending")]
    )
    selection = select_documents(records, config)
    write_rows = [
        {"chunk": chunk, "rows": [r for r, _ in picked], "splits": [s for _, s in picked]}
        for chunk, picked in sorted(selection.picked.items())
    ]
    write_task = WriteTask(storage, staging_uri, writer.uri_for("documents"))
    written = sorted(
        (
            row
            for table in run_chunks(write_task, write_rows, what="writing documents")
            for row in table.to_pylist()
        ),
        key=lambda row: row["chunk"],
    )
    for row in written:
        writer.add_file(
            f"documents/{part_name(row['chunk'])}",
            rows=row["rows"],
            size_bytes=row["size_bytes"],
            sha256=row["sha256"],
        )
    for chunk in set(records.column("chunk").to_pylist()):
        storage.delete(staged_uri(staging_uri, chunk))
    summary = summarise(records, selection, sum(row["text_bytes"] for row in written))
    if summary.kept != sum(row["rows"] for row in written):
        raise ArtifactError(
            f"the corpus lost documents while writing: {summary.kept} kept, "
            f"{sum(row['rows'] for row in written)} written; please report this with the recipe"
        )
    return CorpusBuild(summary, records, selection.duplicates)


@dataclass(slots=True)
class Selection:
    """Which rows of which chunk stay, with their split, and which gave way to a copy."""

    picked: dict[int, list[tuple[int, str]]]
    duplicates: pa.Table
    splits: Counter[str]


def select_documents(records: pa.Table, config: CorpusConfig) -> Selection:
    """Choose among copies and draw the splits; depends only on ids and hashes, not on their order."""
    documents = [row for row in records.to_pylist() if row["reason"] is None]
    replaced: dict[str, str] = {}
    if config.dedup.exact:
        replaced = find_exact_duplicates((row["paper_id"], row["content_hash"]) for row in documents)
    picked: dict[int, list[tuple[int, str]]] = {}
    splits: Counter[str] = Counter()
    duplicates = []
    for row in documents:
        if row["paper_id"] in replaced:
            duplicates.append(
                {
                    "paper_id": row["paper_id"],
                    "uri": row["uri"],
                    "kept_paper_id": replaced[row["paper_id"]],
                    "kind": "exact",
                }
            )
            continue
        split = split_of(row["content_hash"], config.splits)
        splits[split] += 1
        picked.setdefault(row["chunk"], []).append((row["row"], split))
    return Selection(picked, pa.Table.from_pylist(duplicates, schema=DUPLICATE_SCHEMA), splits)


def summarise(records: pa.Table, selection: Selection, text_bytes: int) -> CorpusSummary:
    """Count a build and check that every record is accounted for.

    Raises:
        ArtifactError: read ≠ kept + rejected + duplicates, or a paper_id stands twice.
    """
    reasons = Counter(reason for reason in records.column("reason").to_pylist() if reason is not None)
    kinds = Counter(selection.duplicates.column("kind").to_pylist())
    duplicate_ids = set(selection.duplicates.column("paper_id").to_pylist())
    kept = sum(selection.splits.values())
    summary = CorpusSummary(
        papers_read=records.num_rows,
        kept=kept,
        rejected=dict(sorted(reasons.items())),
        duplicates={"exact": kinds.get("exact", 0), "version": 0, "near": 0},
        documents_by_split=dict(selection.splits),
        text_bytes=text_bytes,
        characters=sum(
            characters
            for paper_id, characters in zip(
                records.column("paper_id").to_pylist(), records.column("characters").to_pylist(), strict=True
            )
            if characters is not None and paper_id not in duplicate_ids
        ),
    )
    accounted = kept + sum(reasons.values()) + len(duplicate_ids)
    if accounted != summary.papers_read:
        raise ArtifactError(
            f"the corpus does not balance: {summary.papers_read} records read, {kept} kept + "
            f"{sum(reasons.values())} rejected + {len(duplicate_ids)} duplicates; please report this "
            "with the recipe"
        )
    return summary


def rejects_of(records: pa.Table) -> pa.Table:
    """Return the rejects among the records, in REJECT_SCHEMA and paper order."""
    return records.filter(pa.compute.is_valid(records.column("reason"))).select(REJECT_SCHEMA.names)
