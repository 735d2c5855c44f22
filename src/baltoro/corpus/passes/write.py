"""Fourth pass: the final files of each chunk, with splits, and its figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from baltoro.core.storage import join
from baltoro.corpus.dedup.keys import signature_schema
from baltoro.corpus.dedup.repeated_spans import cut_spans, without_empty_headings
from baltoro.corpus.documents import DOCUMENT_SCHEMA, judge_again
from baltoro.corpus.figures import figures_of
from baltoro.corpus.passes.build import Build
from baltoro.corpus.passes.kept import KeptChunk, kept_chunk, refused_records, reject_record
from baltoro.corpus.passes.read import RECORD_SCHEMA, document_records
from baltoro.corpus.passes.spans import KEPT_SPAN_SCHEMA, cuts_of
from baltoro.corpus.splits import split_of
from baltoro.corpus.work import Task, parquet_bytes
from baltoro.papers.schema import REJECT_SCHEMA, Reject

CORPUS_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("split", pa.string()))
"""The rows of ``documents/part-*.parquet`` in a corpus artifact."""

DOCUMENTS, SIGNATURES, SPANS = "documents", "signatures", "spans"
"""Folders of an artifact's files per chunk: texts, what finds their copies, and their passages."""


def part_name(folder: str, chunk_index: int) -> str:
    """Return the name of a chunk's file in a corpus artifact."""
    return f"{folder}/part-{chunk_index:06d}.parquet"


@dataclass(frozen=True)
class WriteTask(Task):
    """One chunk: write its final files, and last what they hold."""

    build: Build

    def run(self, index: int) -> None:
        """Write the chunk."""
        build, area = self.build, self.build.area
        cutting = build.config.dedup.repeated_spans.enabled
        chunk = _staged(build, index) if cutting else kept_chunk(build, index)
        if cutting:
            chunk = without_repeats(build, index, chunk)
        cut = chunk.documents.column("repeated_bytes_cut")
        hashes = chunk.documents.column("content_hash").to_pylist()
        splits = pa.array([split_of(hashed, build.config.splits) for hashed in hashes], pa.string())
        part = chunk.documents.append_column("split", splits).cast(CORPUS_SCHEMA)
        files = [self._write(DOCUMENTS, index, part)] if part.num_rows else []
        signatures = _signatures(build, index, chunk.gone)
        if signatures.num_rows:
            files.append(self._write(SIGNATURES, index, signatures))
        if cutting and (spans := area.read("span-keys", index)).num_rows:
            files.append(self._write(SPANS, index, spans.cast(KEPT_SPAN_SCHEMA)))
        read = area.read("records", index)
        counts = json.loads(read.schema.metadata[b"counts"])
        records = final_records(read.replace_schema_metadata(), part, chunk)
        refused = records.filter(pa.compute.is_valid(records.column("reason")))
        area.write("rejects", index, refused.select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA))
        row = {
            "files": json.dumps(files),
            "figures": figures_of(records, chunk.gone, metadata_rows=build.metadata_rows).to_json(),
            "counts": json.dumps(
                counts
                | {
                    "merged": chunk.merged,
                    "cut_bytes": pa.compute.sum(cut).as_py() or 0,
                    "cut_documents": len(cut) - cut.null_count,
                }
            ),
        }
        area.write("written", index, pa.Table.from_pylist([row]))

    def _write(self, folder: str, index: int, table: pa.Table) -> dict[str, Any]:
        name, data = part_name(folder, index), parquet_bytes(table)
        self.build.storage.write_bytes(join(self.build.artifact_uri, name), data)
        return {
            "name": name,
            "rows": table.num_rows,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }


def without_repeats(build: Build, index: int, chunk: KeptChunk) -> KeptChunk:
    """Cut from a chunk's documents what stands in earlier ones, and headings that are left without text."""
    cuts = cuts_of(build, index)
    rows: list[Mapping[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for document in chunk.documents.to_pylist():
        spans = cuts.get(document["number"])
        outcome: Mapping[str, Any] | Reject = document
        if spans:
            cut = cut_spans(document["text"], spans, build.config.dedup.repeated_spans)
            judged = judge_again(document, without_empty_headings(cut.text), build.config)
            outcome = (
                judged if isinstance(judged, Reject) else {**judged, "repeated_bytes_cut": cut.cut_bytes}
            )
        if isinstance(outcome, Reject):
            refused.append(reject_record(outcome, document))
        else:
            rows.append(outcome)
    documents = pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA)
    late = refused_records(refused)
    return KeptChunk(documents, chunk.gone, pa.concat_tables([chunk.refused, late]), chunk.merged)


def final_records(read: pa.Table, part: pa.Table, chunk: KeptChunk) -> pa.Table:
    """Return a chunk's records as they are in the end: every number read stands there once."""
    changed = np.concatenate([part.column("number").to_numpy(), chunk.refused.column("number").to_numpy()])
    same = np.isin(read.column("number").to_numpy(), changed, invert=True)
    tables = [read.filter(pa.array(same)), document_records(part), chunk.refused]
    return pa.concat_tables([table.cast(RECORD_SCHEMA) for table in tables]).sort_by("number")


def _staged(build: Build, index: int) -> KeptChunk:
    """Return what ``kept`` staged of a chunk."""
    area = build.area
    refused = area.read("kept-refused", index)
    return KeptChunk(
        area.read("kept", index),
        area.read("kept-gone", index),
        refused.replace_schema_metadata(),
        int(refused.schema.metadata[b"merged"]),
    )


def _signatures(build: Build, index: int, gone: pa.Table) -> pa.Table:
    """Return a chunk's signatures, with the number of what stands for each document that gave way."""
    schema = signature_schema(build.config.dedup)
    staged = build.area.read("signatures", index).cast(schema)
    numbers = staged.column("number").to_numpy()
    kept = numbers.copy()
    kept[np.searchsorted(numbers, gone.column("number").to_numpy())] = gone.column("kept").to_numpy()
    return staged.set_column(schema.get_field_index("kept"), schema.field("kept"), pa.array(kept))
